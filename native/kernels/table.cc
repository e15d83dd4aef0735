#include <string.h>

#include "kernel.h"
#include "spmm/spmm.h"

namespace zs {

const std::vector<Kernel>& kernels() {
  static const std::vector<Kernel> table = {
#define ZS_KERNEL(format_, type_, isa_, family_, doc_) ZS_NAMED(format_, type_, "", isa_, "", family_, doc_)
#define ZS_NAMED(format_, type_, acc_, isa_, tile_, family_, doc_) \
  ZS_ROUNDED(format_, type_, acc_, isa_, tile_, family_, (sizeof(acc_) > 1 ? XType::i8 : XType::f32), doc_)
#define ZS_ROUNDED(format_, type_, acc_, isa_, tile_, family_, x_, doc_)           \
  Kernel{"spmm_" #format_ "_" #type_ acc_ "_" #isa_ tile_,                         \
         Format::format_,                                                          \
         ValueType::type_,                                                         \
         Isa::isa_,                                                                \
         doc_,                                                                     \
         x_,                                                                       \
         [](const Source& s) -> std::unique_ptr<Packed> {                          \
           if (is_code(s.type) != is_code(ValueType::type_)) return nullptr;       \
           return pack_##family_(s, Format::format_, ValueType::type_, Isa::isa_); \
         },                                                                        \
         run_##family_},
#include "kernels.inc"
#undef ZS_ROUNDED
#undef ZS_NAMED
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

const Micro& micro_of([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2 || isa == Isa::avxvnni) return micro_avx2;
  return isa == Isa::avx512 ? micro_avx512 : micro_avx512vnni;
#else
  return micro_neon;
#endif
}

}  // namespace zs
