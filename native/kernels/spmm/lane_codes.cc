#include "lane_codes.h"

#include <math.h>

#include <algorithm>

namespace zs {
namespace {

// What the codes that a thread keeps were made of.
struct Kept {
  LaneCodes codes;
  decltype(LaneQuantiser::quantise) quantise = nullptr;
  const float* x = nullptr;
  int64_t features = 0, pairs = 0, lanes = 0;
};

}  // namespace

const LaneCodes& codes_of_lanes(const LaneQuantiser& how, const float* x, int64_t features, int64_t pairs, int64_t lanes,
                                bool same_x, Pool& pool) {
  thread_local Kept kept;
  LaneCodes& out = kept.codes;
  if (same_x && kept.quantise == how.quantise && kept.x == x && kept.features == features && kept.pairs == pairs &&
      kept.lanes == lanes) {
    return out;
  }
  const int64_t panels = panel_count(lanes);
  out.panel_bytes = 4 * pairs * kPanel;
  if (out.codes.bytes() < panels * out.panel_bytes) out.codes = Buffer(panels * out.panel_bytes);
  out.scales.resize(panels * kPanel);
  kept.quantise = how.quantise;
  kept.x = x;
  kept.features = features;
  kept.pairs = pairs;
  kept.lanes = lanes;
  pool.parallel(panels, [&](int64_t p, int) {
    const int64_t width = panel_width(lanes, p), valid = std::min(kPanel, lanes - p * kPanel);
    const float* panel = x + p * kPanel * features;
    float inverse[kPanel];
    float* scales = out.scales.data() + p * kPanel;
    how.largest(panel, width, features, scales);
    for (int64_t t = 0; t < kPanel; ++t) {
      const float most = t < valid ? scales[t] : 0.0f;
      scales[t] = !isfinite(most) ? NAN : most < how.least ? 0.0f : most / how.unit;
      inverse[t] = scales[t] > 0 ? 1.0f / scales[t] : 0.0f;
    }
    how.quantise(panel, width, features, pairs, inverse, out.panel(p));
  });
  return out;
}

}  // namespace zs
