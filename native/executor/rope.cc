// Rotary positions. Cosines and sines of this batch's positions are laid out as lane panels once a run and serve every layer.
// Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021, section 3.4 (halves rotated).
#include <math.h>

#include "run.h"
#include "tasks.h"

namespace zs {

const RunState::Rotation& Run::rotation(const Step& s) {
  for (size_t i = 0; i < state_.rotations_used; ++i) {
    const auto& r = state_.rotations[i];
    if (r.freqs == s.freqs && r.half == s.half && r.scale == s.scale) return r;
  }
  if (state_.rotations.size() == state_.rotations_used) state_.rotations.emplace_back();
  auto& r = state_.rotations[state_.rotations_used++];
  r.freqs = s.freqs;
  r.half = s.half;
  r.scale = s.scale;
  const size_t floats = s.half * padded_lanes(batch_.tokens);
  r.cosine.resize(floats);
  r.sine.resize(floats);
  for_tasks(panel_count(batch_.tokens), s.half * batch_.tokens * 8, [&](int64_t p) {
    const int64_t width = panel_width(batch_.tokens, p);
    for (int64_t lane = p * kPanel; lane < min_of(batch_.tokens, (p + 1) * kPanel); ++lane) {
      const int64_t at = p * kPanel * s.half + lane % kPanel;
      for (int64_t f = 0; f < s.half; ++f) {
        const float angle = static_cast<float>(state_.positions[lane]) * s.freqs[f];
        r.cosine[at + f * width] = cosf(angle) * s.scale;
        r.sine[at + f * width] = sinf(angle) * s.scale;
      }
    }
  });
  return r;
}

void Run::run_rope(const Step& s) {
  const RunState::Rotation& r = rotation(s);
  const View x = view(s.in);
  for_tasks(panel_count(batch_.tokens) * s.heads, x.features * batch_.tokens, [&](int64_t task) {
    const int64_t p = task / s.heads, width = panel_width(batch_.tokens, p);
    float* x1 = view_at(x, p, width, task % s.heads * s.head_dim);
    const int64_t at = p * kPanel * s.half;
    exec_ops().rope(x1, x1 + s.half * width, &r.cosine[at], &r.sine[at], s.half * width);
  });
}

}  // namespace zs
