#if defined(__aarch64__)
#include "groups.inl"

namespace zs {

extern const GroupMicro groups_neon = {tile_i8, tile_i4, row_i8, row_i4, nullptr, kChunk};

}  // namespace zs
#endif
