#if defined(__ARM_FEATURE_DOTPROD)
#include "groups.inl"

namespace zs {

extern const GroupMicro groups_neondot = {tile_i8, tile_i4, row_i8, row_i4, nullptr, kChunk};

}  // namespace zs
#endif
