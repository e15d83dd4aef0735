#include <string.h>

#include "kernel.h"
#include "spmm/spmm.h"

namespace zs {

const std::vector<Kernel>& kernels() {
  static const std::vector<Kernel> table = {
#define ZS_KERNEL(format_, type_, isa_, doc_)                                                                   \
  Kernel{"spmm_" #format_ "_" #type_ "_" #isa_, Format::format_, ValueType::type_, Isa::isa_, doc_,             \
         [](const Source& s) { return pack_##isa_(s, ValueType::type_); }, run_##isa_},
#include "kernels.inc"
#undef ZS_KERNEL
  };
  return table;
}

const Kernel* find_kernel(const char* name) {
  for (const Kernel& k : kernels()) {
    if (strcmp(k.name, name) == 0) return &k;
  }
  return nullptr;
}

}  // namespace zs
