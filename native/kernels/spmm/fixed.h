// Products in fixed point, 16 bits (fixed.cc drives, fixed.inl multiplies). C headers only.
#pragma once

#include <stdint.h>

#include "zeroskip/types.h"

namespace zs {

// Rows of a cell: a block of rows by a block of columns, 256 at most. Entries of a row lie one behind the other.
struct FixedCell {
  int64_t rows;
  const uint16_t* ids;     // [row] which one of the block
  const uint16_t* counts;  // [row]
  const float* scales;     // [row] what a unit of a sum of products is worth, before the scale of the lane
  const uint16_t* offsets;  // of the column in the block: bytes from the first one's codes of x
  const int16_t* codes;
};

struct FixedMicro {
  // As LaneQuantiser has them: out[feature][kPanel], lanes from `width` on zero, no more features than x has.
  void (*largest)(const float* x, int64_t width, int64_t features, float* most);
  void (*quantise)(const float* x, int64_t width, int64_t features, int64_t pairs, const float* inverse, int16_t* out);
  // y[row][lane] = or += the sums of a cell; times lane_scales where that is not null.
  void (*cell)(const FixedCell&, const int16_t* x, int64_t width, const float* lane_scales, float* y, int64_t ldy, bool first);
};

extern const FixedMicro fixed_scalar;
extern const FixedMicro fixed_avx2;
extern const FixedMicro fixed_avx512;
extern const FixedMicro fixed_neon;

const FixedMicro& fixed_of(Isa isa);

}  // namespace zs
