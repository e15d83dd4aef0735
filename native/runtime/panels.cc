// Layout changes at the edge of the lane-panel world: row-major or token-major to panels, and back.
#include <string.h>

#include <algorithm>

#include "../kernels/kernel.h"

namespace zs {
namespace {

constexpr int64_t kFeatures = 64;  // features a task moves: 64 x 64 floats stay in L1

// One block of a panel. Token-major rows are read along features, so the inner loop runs over lanes of 16 features.
struct Block {
  int64_t p, f0, f1, width, valid;
};

Block block_of(int64_t task, int64_t features, int64_t lanes) {
  const int64_t per_panel = (features + kFeatures - 1) / kFeatures;
  Block b;
  b.p = task / per_panel;
  b.f0 = task % per_panel * kFeatures;
  b.f1 = std::min(features, b.f0 + kFeatures);
  b.width = panel_width(lanes, b.p);
  b.valid = std::min(kPanel, lanes - b.p * kPanel);
  return b;
}

int64_t task_count(int64_t features, int64_t lanes) { return panel_count(lanes) * ((features + kFeatures - 1) / kFeatures); }

}  // namespace

void to_panels(const float* x, int64_t features, int64_t lanes, bool token_major, float* panels, Pool& pool) {
  pool.parallel(task_count(features, lanes), [&](int64_t task, int) {
    const Block b = block_of(task, features, lanes);
    float* out = panels + b.p * kPanel * features;
    for (int64_t f = b.f0; f < b.f1; ++f) {
      if (!token_major) memcpy(out + f * b.width, x + f * lanes + b.p * kPanel, b.valid * sizeof(float));
      for (int64_t t = b.valid; t < b.width; ++t) out[f * b.width + t] = 0;
    }
    if (token_major) {
      for (int64_t t = 0; t < b.valid; ++t) {
        const float* row = x + (b.p * kPanel + t) * features;
        for (int64_t f = b.f0; f < b.f1; ++f) out[f * b.width + t] = row[f];
      }
    }
  });
}

void from_panels(const float* panels, int64_t features, int64_t lanes, bool token_major, float* out, Pool& pool) {
  pool.parallel(task_count(features, lanes), [&](int64_t task, int) {
    const Block b = block_of(task, features, lanes);
    const float* in = panels + b.p * kPanel * features;
    if (token_major) {
      for (int64_t t = 0; t < b.valid; ++t) {
        float* row = out + (b.p * kPanel + t) * features;
        for (int64_t f = b.f0; f < b.f1; ++f) row[f] = in[f * b.width + t];
      }
    } else {
      for (int64_t f = b.f0; f < b.f1; ++f) {
        memcpy(out + f * lanes + b.p * kPanel, in + f * b.width, b.valid * sizeof(float));
      }
    }
  });
}

}  // namespace zs
