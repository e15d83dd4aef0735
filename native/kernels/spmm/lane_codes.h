// x of many tokens as codes with a scale a token, for products that have tokens as lanes (fixed.cc, groups.cc).
#pragma once

#include <vector>

#include "../../runtime/pool.h"
#include "blocks.h"
#include "zeroskip/types.h"

namespace zs {

struct LaneCodes {
  Buffer codes;               // of each panel, as the quantiser lays them out
  std::vector<float> scales;  // [panel][kPanel]; NaN for a token with NaN or infinity in it, 0 for one of zeros
  int64_t panel_bytes = 0;

  int16_t* panel(int64_t p) const { return reinterpret_cast<int16_t*>(codes.data() + p * panel_bytes); }
};

// How x becomes codes.
struct LaneQuantiser {
  float unit;   // the largest code
  float least;  // x of a token whose largest |x| is below counts as zero: its scale would be subnormal
  // The largest |x| of each lane of [features][width], NaN where there is one.
  void (*largest)(const float* x, int64_t width, int64_t features, float* most);
  // x[features][width] to the panel's codes; `inverse` has kPanel, `pairs` of features the codes have room for.
  void (*quantise)(const float* x, int64_t width, int64_t features, int64_t pairs, const float* inverse, int16_t* out);
};

// The codes of x, [features] by lanes in panels of 4 * pairs * kPanel bytes; valid until the calling thread's next call. With `same_x`
// (Epilogue) those of the last call where that made the same ones.
const LaneCodes& codes_of_lanes(const LaneQuantiser& how, const float* x, int64_t features, int64_t pairs, int64_t lanes,
                                bool same_x, Pool& pool);

}  // namespace zs
