#if defined(__aarch64__)
#include "micro.inl"
#include "codes.inl"
#include "few.inl"
#include "rows.inl"

namespace zs {

extern const Micro micro_neon = {
    cell,           cell_narrow, cell_one, cell_one_narrow, bits_one, sum_lanes, quad,        kQuadLanes,     two_quads,
    kTwoQuadsLanes, kVf,         quad_one, quads_few,       nullptr,  nullptr,   expand_bits, expand_nibbles, widen,
    unpack_nibbles, decode,      rows,     nullptr,         nullptr,  finish};

}  // namespace zs
#endif
