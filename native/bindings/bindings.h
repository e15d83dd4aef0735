#pragma once

#include <nanobind/nanobind.h>

#include <memory>

#include "../kernels/kernel.h"

namespace zs {

// The Python object _native.Packed.
struct PyPacked {
  std::shared_ptr<Packed> packed;
};

void bind_kernels(nanobind::module_& m);
void bind_attention(nanobind::module_& m);
void bind_graph(nanobind::module_& m);
void bind_program(nanobind::module_& m);
void bind_sddmm(nanobind::module_& m);

}  // namespace zs
