#if defined(__AVX512F__)
#include "gat.inl"

namespace zs {

extern const GatMicro gat_avx512 = {rows, part, softmax, softmax_part, add, add_part};

}  // namespace zs
#endif
