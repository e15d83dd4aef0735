#if defined(__AVX2__)
#include "groups.inl"
#include "many.inl"

namespace zs {

extern const GroupMicro groups_avx2 = {tile_i8, tile_i4, row_i8, row_i4, &many_avx2, kChunk};

}  // namespace zs
#endif
