#include "ops.h"

#include "../runtime/cpu.h"

namespace zs {

const ExecOps& exec_ops() {
  switch (cpu().selected) {
#if defined(__x86_64__)
    case Isa::amx:
    case Isa::avx512vnni:
    case Isa::avx512: return exec_ops_avx512;
    case Isa::avxvnni:
    case Isa::avx2: return exec_ops_avx2;
#elif defined(__aarch64__)
    case Isa::neondot:
    case Isa::neon: return exec_ops_neon;
#endif
    default: return exec_ops_scalar;
  }
}

}  // namespace zs
