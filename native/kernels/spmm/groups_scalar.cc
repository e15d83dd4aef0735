#define ZS_PORTABLE
#include "groups.inl"

namespace zs {

extern const GroupMicro groups_scalar = {tile_i8, tile_i4, row_i8, row_i4, nullptr, kChunk};

}  // namespace zs
