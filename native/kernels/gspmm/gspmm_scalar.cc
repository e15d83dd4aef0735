#include "gspmm.inl"

namespace zs {

extern const GspmmMicro gspmm_scalar = {rows, part};

}  // namespace zs
