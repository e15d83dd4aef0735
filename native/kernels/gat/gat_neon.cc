#if defined(__aarch64__)
#include "gat.inl"

namespace zs {

extern const GatMicro gat_neon = {rows, part, softmax, softmax_part, add, add_part};

}  // namespace zs
#endif
