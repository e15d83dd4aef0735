#if defined(__aarch64__)
#include "gspmm.inl"

namespace zs {

extern const GspmmMicro gspmm_neon = {rows, part};

}  // namespace zs
#endif
