#if defined(__AVX512F__)
#include "gspmm.inl"

namespace zs {

extern const GspmmMicro gspmm_avx512 = {rows, part};

}  // namespace zs
#endif
