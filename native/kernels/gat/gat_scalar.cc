#include "gat.inl"

namespace zs {

extern const GatMicro gat_scalar = {rows, part, softmax, softmax_part, add, add_part};

}  // namespace zs
