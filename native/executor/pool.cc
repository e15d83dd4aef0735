// One vector a sequence: the mean, the maximum, or a token of it. Its lanes are sequences from here on.
#include <math.h>

#include "run.h"
#include "tasks.h"

namespace zs {
namespace {

float pool_feature(const Step& s, const View& in, const Sequence& q, int64_t lanes, int64_t f) {
  const auto at = [&](int64_t lane) { return view_at(in, lane / kPanel, panel_width(lanes, lane / kPanel), f)[lane % kPanel]; };
  if (s.mode == PoolMode::first) return at(q.first);
  if (s.mode == PoolMode::last) return at(q.first + q.length - 1);
  float sum = 0, most = -INFINITY;
  for (int64_t i = 0; i < q.length;) {
    const int64_t lane = q.first + i, n = min_of(q.length - i, kPanel - lane % kPanel);
    const float* row = view_at(in, lane / kPanel, panel_width(lanes, lane / kPanel), f) + lane % kPanel;
    for (int64_t j = 0; j < n; ++j) {
      sum += row[j];
      most = row[j] <= most ? most : row[j];  // NaN wins
    }
    i += n;
  }
  return s.mode == PoolMode::max ? most : sum / static_cast<float>(q.length);
}

}  // namespace

void Run::run_pool(const Step& s) {
  const View in = view(s.in), out = view(s.out);
  zero_padding(out, batch_.sequences);
  for_tasks(batch_.sequences, in.features * batch_.tokens, [&](int64_t b) {
    const int64_t p = b / kPanel, width = panel_width(batch_.sequences, p);
    float square = 0;
    for (int64_t f = 0; f < in.features; ++f) {
      const float x = pool_feature(s, in, state_.sequences[b], batch_.tokens, f);
      view_at(out, p, width, f)[b % kPanel] = x;
      square += x * x;
    }
    if (!s.normalize) return;
    const float scale = 1.0f / fmaxf(sqrtf(square), 1e-12f);
    for (int64_t f = 0; f < in.features; ++f) view_at(out, p, width, f)[b % kPanel] *= scale;
  });
}

}  // namespace zs
