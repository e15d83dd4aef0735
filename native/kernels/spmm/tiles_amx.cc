#if defined(ZS_HAVE_AMX)
#include "tiles.inl"

namespace zs {

extern const TileMicro tiles_amx = {Tiles::begin, Tiles::end, multiply, round_x};

}  // namespace zs
#endif
