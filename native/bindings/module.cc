// nanobind: checks and converts arguments, releases the GIL, calls. No maths.
#include <nanobind/nanobind.h>

#include "bindings.h"

NB_MODULE(_native, m) {
  m.doc() = "zeroskip's native kernels and executor.";
  zs::bind_kernels(m);
  zs::bind_attention(m);
  zs::bind_program(m);
  zs::bind_sddmm(m);
  zs::bind_graph(m);
}
