#if defined(__AVX2__)
#include "gat.inl"

namespace zs {

extern const GatMicro gat_avx2 = {rows, part, softmax, softmax_part, add, add_part};

}  // namespace zs
#endif
