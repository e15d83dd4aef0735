#if defined(__AVX2__)
#include "gspmm.inl"

namespace zs {

extern const GspmmMicro gspmm_avx2 = {rows, part};

}  // namespace zs
#endif
