// Cuts attention into tasks: queries of a panel's worth by head where there are several, key heads by ranges of keys for the
// one new token of a sequence with a cache.
#include <math.h>
#include <string.h>

#include "run.h"
#include "tasks.h"

namespace zs {
namespace {

// Joins what ranges of keys gave for the same query: each {max, sum, out[head_dim]} weighs sum * e^(max - top).
void combine(const AttentionArgs& a, const Sequence& s, int64_t kv_head, const float* partials, int64_t splits) {
  const int64_t group = a.heads / a.kv_heads, n = a.head_dim, step = group * (n + 2);
  const int64_t width = panel_width(a.lanes, s.first / kPanel);
  for (int64_t g = 0; g < group; ++g) {
    const float* part = partials + g * (n + 2);
    float top = part[0];
    for (int64_t i = 1; i < splits; ++i) top = fmaxf(top, part[i * step]);
    float* out = view_at(a.out, s.first / kPanel, width, (kv_head * group + g) * n) + s.first % kPanel;
    float sum = 0;
    for (int64_t i = 0; i < splits; ++i) sum += part[i * step + 1] * expf(part[i * step] - top);
    for (int64_t d = 0; d < n; ++d) out[d * width] = 0;
    for (int64_t i = 0; i < splits; ++i) {
      const float weight = expf(part[i * step] - top) / sum;
      for (int64_t d = 0; d < n; ++d) out[d * width] += weight * part[i * step + 2 + d];
    }
  }
}

struct Range {
  int64_t sequence, kv_head, key0, key1;
};

Range range_of(const RunState& state, int64_t task, int64_t kv_heads, int64_t splits) {
  const int64_t single = task / (kv_heads * splits);
  const Sequence& s = state.sequences[state.singles[single]];
  const int64_t keys = s.past + 1;
  const int64_t blocks = (keys + kPanel - 1) / kPanel;
  const int64_t share = (blocks + splits - 1) / splits * kPanel;
  const int64_t key0 = task % splits * share;
  return {state.singles[single], task / splits % kv_heads, key0, min_of(keys, key0 + share)};
}

void attend_singles(const AttentionArgs& a, RunState& state) {
  const int64_t singles = static_cast<int64_t>(state.singles.size());
  const int64_t rows = singles * a.kv_heads;
  int64_t keys = 0, total = 0;
  for (int i : state.singles) {
    keys = max_of(keys, state.sequences[i].past + 1);
    total += state.sequences[i].past + 1;
    for (int64_t h = 0; h < a.kv_heads; ++h) exec_ops().append(a, state.sequences[i], h);
  }
  Pool& pool = Pool::get();
  const int64_t wanted = (3 * pool.available() + rows - 1) / rows;
  const int64_t splits = max_of(1, min_of(wanted, (keys + kPanel - 1) / kPanel));
  const int64_t per_range = a.heads / a.kv_heads * (a.head_dim + 2);
  state.partials.resize(rows * splits * per_range);
  const auto attend = [&](int64_t task, int worker) {
    const Range r = range_of(state, task, a.kv_heads, splits);
    float* partial = &state.partials[task * per_range];
    if (r.key0 >= r.key1) {  // a short sequence beside a long one: nothing left for this range
      memset(partial, 0, per_range * sizeof(float));
      for (int64_t g = 0; g < a.heads / a.kv_heads; ++g) partial[g * (a.head_dim + 2)] = -INFINITY;
      return;
    }
    float* scratch = pool.scratch(worker, attend_token_floats(a, r.key1 - r.key0) * 4);
    exec_ops().attend_token(a, state.sequences[r.sequence], r.kv_head, r.key0, r.key1, partial, scratch);
  };
  if (total * a.heads * a.head_dim < 4 * kInlineFloats) {
    pool.parallel(1, [&](int64_t, int worker) {
      for (int64_t task = 0; task < rows * splits; ++task) attend(task, worker);
    });
  } else {
    pool.parallel(rows * splits, [&](int64_t task, int worker) { attend(task, worker); });
  }
  for_tasks(rows, 2 * rows * splits * per_range, [&](int64_t row) {
    combine(a, state.sequences[state.singles[row / a.kv_heads]], row % a.kv_heads, &state.partials[row * splits * per_range],
            splits);
  });
}

void attend_tiles(const AttentionArgs& a, RunState& state) {
  Pool& pool = Pool::get();
  const int64_t tiles = static_cast<int64_t>(state.tiles.size());
  if (state.sequences[state.tiles[0].sequence].cache) {
    pool.parallel(static_cast<int64_t>(state.sequences.size()) * a.kv_heads, [&](int64_t task, int) {
      const Sequence& s = state.sequences[task / a.kv_heads];
      if (s.length > 1) exec_ops().append(a, s, task % a.kv_heads);
    });
  }
  // Last tiles first: with a causal mask they are the longest.
  pool.parallel(tiles * a.heads, [&](int64_t task, int worker) {
    const Tile& tile = state.tiles[tiles - 1 - task % tiles];
    float* scratch = pool.scratch(worker, attend_tile_floats(a.head_dim) * 4);
    exec_ops().attend_tile(a, state.sequences[tile.sequence], task / tiles, tile.q0, tile.count, scratch);
  });
}

}  // namespace

void Run::run_attention(const Step& s) {
  AttentionArgs a;
  a.q = view(s.in);
  a.k = view(s.in2);
  a.v = view(s.in3);
  a.out = view(s.out);
  a.heads = s.heads;
  a.kv_heads = s.kv_heads;
  a.head_dim = s.head_dim;
  a.scale = s.scale;
  a.causal = s.causal;
  a.bias = s.bias ? s.padded_bias.data() : nullptr;
  a.reach = s.reach;
  a.bias_stride = 2 * s.reach - 1 + kPanel;
  a.lanes = batch_.tokens;
  for (size_t b = 0; b < batch_.caches.size(); ++b) {
    state_.sequences[b].cache = s.cache >= 0 ? batch_.caches[b]->layer(s.cache) : nullptr;
  }
  zero_padding(a.out, batch_.tokens);
  if (!state_.singles.empty()) attend_singles(a, state_);
  if (!state_.tiles.empty()) attend_tiles(a, state_);
}

}  // namespace zs
