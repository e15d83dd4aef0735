// Attention of up to 64 queries of one sequence and head. Queries lie across lanes, so S^T[key][query] needs no sum across
// lanes, neither for the scores nor for the softmax, which runs down the keys. Keys come in blocks of at most 64; the softmax
// is kept up block by block (running maximum m, sum l, output o rescaled by alpha), so that scores never leave the L1 cache
// whatever the length. Keys and values are read where they lie, in the panels or in the cache; only the queries are gathered.
// Lane groups are the outer loop and rows the inner one: the other way round, with the tile of keys in L1 for all groups, was
// 3-4 % slower at 512 tokens (Zen3).
// Source of the running softmax: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.

namespace zs {
namespace {

// Lane group of kGv vectors; kTile x kGv accumulators fill the registers (16 of AVX2, 32 of AVX-512 and NEON).
#if defined(__AVX512F__) && !defined(ZS_VEC_GENERIC)
constexpr int kGv = 2, kTile = 12;
#elif defined(__aarch64__)
constexpr int kGv = 4, kTile = 6;
#else
constexpr int kGv = 2, kTile = 6;
#endif
constexpr int kGroup = kGv * kVf;

// out[r][lane] = scale[lane] * out[r][lane] + sum over k of a[r * ra + k * ka] * b[k][lane]; without scale it begins at zero.
template <int rows, int nv>
static inline void multiply_tile(const float* a, int64_t ra, int64_t ka, const float* b, int64_t depth, float* out,
                                 const vf* scale) {
  vf sum[rows][nv];
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < nv; ++v) sum[r][v] = scale ? vload(out + r * kGroup + v * kVf) * scale[v] : vset(0.0f);
  }
  for (int64_t k = 0; k < depth; ++k) {
    vf lane[nv];
    for (int v = 0; v < nv; ++v) lane[v] = vload(b + k * kGroup + v * kVf);
    for (int r = 0; r < rows; ++r) {
      const vf x = vset(a[r * ra + k * ka]);
      for (int v = 0; v < nv; ++v) sum[r][v] = vfma(x, lane[v], sum[r][v]);
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < nv; ++v) vstore(out + r * kGroup + v * kVf, sum[r][v]);
  }
}

template <int nv>
static void multiply(int64_t rows, const float* a, int64_t ra, int64_t ka, const float* b, int64_t depth, float* out,
                     const vf* scale) {
  int64_t r = 0;
  const auto eight = [&] { return kTile == 6 && rows - r == 8; };  // two rows take as long as four
  for (; rows - r >= kTile && !eight(); r += kTile) {
    multiply_tile<kTile, nv>(a + r * ra, ra, ka, b, depth, out + r * kGroup, scale);
  }
  if constexpr (kTile > 8) {
    if (rows - r >= 8) multiply_tile<8, nv>(a + r * ra, ra, ka, b, depth, out + r * kGroup, scale), r += 8;
  }
  while (rows - r >= 4) multiply_tile<4, nv>(a + r * ra, ra, ka, b, depth, out + r * kGroup, scale), r += 4;
  if (rows - r >= 2) multiply_tile<2, nv>(a + r * ra, ra, ka, b, depth, out + r * kGroup, scale), r += 2;
  if (rows - r >= 1) multiply_tile<1, nv>(a + r * ra, ra, ka, b, depth, out + r * kGroup, scale);
}

// State of one lane group of queries.
struct Group {
  float* q;  // [head_dim][kGroup], scaled
  float* o;  // [head_dim][kGroup], not yet divided by l
  float* m;  // [kGroup]
  float* l;  // [kGroup]
  int64_t query;  // position of its first lane in the sequence, the past counted
};

// Scores to probabilities relative to the running maximum, in place; updates m and l, returns alpha.
template <int nv>
static void softmax_block(const AttentionArgs& a, int64_t head, const KeyBlock& block, const Group& g, float* s, vf* alpha) {
  if (a.bias) {
    const float* bias = a.bias + head * a.bias_stride + a.reach - 1 + g.query - block.first;
    for (int64_t j = 0; j < block.count; ++j) {
      for (int v = 0; v < nv; ++v) {
        float* at = s + j * kGroup + v * kVf;
        vstore(at, vload(at) + vload(bias - j + v * kVf));
      }
    }
  }
  if (a.causal && block.first + block.count - 1 > g.query) {
    for (int v = 0; v < nv; ++v) {
      vi last;  // the last key of this block that each lane may see
      for (int i = 0; i < kVf; ++i) last[i] = static_cast<int32_t>(g.query + v * kVf + i - block.first);
      for (int64_t j = max_of(0, g.query + v * kVf + 1 - block.first); j < block.count; ++j) {
        float* at = s + j * kGroup + v * kVf;
        vstore(at, vselect(viset(static_cast<int32_t>(j)) > last, vset(-__builtin_inff()), vload(at)));
      }
    }
  }
  vf top[nv], sum[nv];
  for (int v = 0; v < nv; ++v) top[v] = vload(g.m + v * kVf);
  for (int64_t j = 0; j < block.count; ++j) {
    for (int v = 0; v < nv; ++v) top[v] = vmax(vload(s + j * kGroup + v * kVf), top[v]);
  }
  for (int v = 0; v < nv; ++v) {
    alpha[v] = vexp_below(vload(g.m + v * kVf) - top[v]);
    vstore(g.m + v * kVf, top[v]);
    sum[v] = vload(g.l + v * kVf) * alpha[v];
  }
  for (int64_t j = 0; j < block.count; ++j) {
    for (int v = 0; v < nv; ++v) {
      float* at = s + j * kGroup + v * kVf;
      const vf p = vexp_below(vload(at) - top[v]);
      sum[v] += p;
      vstore(at, p);
    }
  }
  for (int v = 0; v < nv; ++v) vstore(g.l + v * kVf, sum[v]);
}

template <int nv>
static void attend_block(const AttentionArgs& a, int64_t head, const KeyBlock& block, const Group& g, float* s) {
  vf alpha[nv];
  multiply<nv>(block.count, block.k, 1, block.k_stride, g.q, a.head_dim, s, nullptr);
  softmax_block<nv>(a, head, block, g, s, alpha);
  // The first block finds o undefined.
  multiply<nv>(a.head_dim, block.v, block.v_feature, block.v_key, s, block.count, g.o, block.first ? alpha : nullptr);
}

// The block that begins at key `first` of the sequence: as far as its panel, or its block of the cache, goes.
static KeyBlock key_block(const AttentionArgs& a, const Sequence& s, int64_t kv_head, int64_t first, int64_t keys) {
  KeyBlock b;
  b.first = first;
  if (s.cache) {
    const CacheHead cache = cache_head(a, s, kv_head);
    b.k = cache.k + first * a.head_dim;
    b.v = cache.v + first * a.head_dim;
    b.k_stride = kPanel;
    b.v_feature = 1;
    b.v_key = a.head_dim;
    b.count = min_of(kPanel, keys - first);
    return b;
  }
  const int64_t lane = s.first + first;
  const int64_t width = panel_width(a.lanes, lane / kPanel);
  b.k = view_at(a.k, lane / kPanel, width, kv_head * a.head_dim) + lane % kPanel;
  b.v = view_at(a.v, lane / kPanel, width, kv_head * a.head_dim) + lane % kPanel;
  b.k_stride = b.v_feature = width;
  b.v_key = 1;
  b.count = min_of(kPanel - lane % kPanel, keys - first);
  return b;
}

// Queries of lanes [lane, lane + count) into groups, scaled. Reads whole vectors: what lies beyond fills lanes nobody reads.
static void gather_queries(const AttentionArgs& a, int64_t head, int64_t lane, int64_t count, float* q) {
  const vf scale = vset(a.scale);
  const int64_t split = min_of(count, kPanel - lane % kPanel);  // lanes in the first panel
  const int64_t width0 = panel_width(a.lanes, lane / kPanel);
  const float* run0 = view_at(a.q, lane / kPanel, width0, head * a.head_dim) + lane % kPanel;
  const int64_t width1 = split < count ? panel_width(a.lanes, lane / kPanel + 1) : 0;
  const float* run1 = split < count ? view_at(a.q, lane / kPanel + 1, width1, head * a.head_dim) : nullptr;
  if (split == count) {
    for (int64_t d = 0; d < a.head_dim; ++d) {
      for (int64_t i = 0; i < count; i += kVf) {
        vstore(q + (i / kGroup * a.head_dim + d) * kGroup + i % kGroup, vload(run0 + d * width0 + i) * scale);
      }
    }
    return;
  }
  float row[2 * kPanel];
  for (int64_t d = 0; d < a.head_dim; ++d) {
    for (int64_t i = 0; i < split; i += kVf) vstore(row + i, vload(run0 + d * width0 + i));
    for (int64_t i = 0; i < count - split; i += kVf) vstore(row + split + i, vload(run1 + d * width1 + i));
    for (int64_t i = 0; i < count; i += kVf) {
      vstore(q + (i / kGroup * a.head_dim + d) * kGroup + i % kGroup, vload(row + i) * scale);
    }
  }
}

// o / l back to the lanes they belong to, and no lane more: the neighbours are another task's.
static void scatter_output(const AttentionArgs& a, int64_t head, int64_t lane, int64_t count, const float* o, float* l) {
  for (int64_t i = 0; i < count; i += kVf) vstore(l + i, vset(1.0f) / vload(l + i));
  if (lane % kPanel + count <= kPanel) {
    const int64_t width = panel_width(a.lanes, lane / kPanel);
    float* out = view_at(a.out, lane / kPanel, width, head * a.head_dim) + lane % kPanel;
    for (int64_t d = 0; d < a.head_dim; ++d, out += width) {
      for (int64_t i = 0; i < count; i += kVf) {
        vstore_part(out + i, vload(o + (i / kGroup * a.head_dim + d) * kGroup + i % kGroup) * vload(l + i), count - i);
      }
    }
    return;
  }
  float row[kPanel];
  for (int64_t d = 0; d < a.head_dim; ++d) {
    for (int64_t i = 0; i < count; i += kVf) {
      vstore(row + i, vload(o + (i / kGroup * a.head_dim + d) * kGroup + i % kGroup) * vload(l + i));
    }
    for (int64_t done = 0; done < count;) {
      const int64_t at = lane + done;
      const int64_t n = min_of(count - done, kPanel - at % kPanel);
      float* out = view_at(a.out, at / kPanel, panel_width(a.lanes, at / kPanel), head * a.head_dim + d) + at % kPanel;
      int64_t i = 0;
      for (; i + kVf <= n; i += kVf) vstore(out + i, vload(row + done + i));
      for (; i < n; ++i) out[i] = row[done + i];
      done += n;
    }
  }
}

void attend_tile(const AttentionArgs& a, const Sequence& s, int64_t head, int64_t q0, int64_t count, float* scratch) {
  float* q = scratch;
  float* o = q + kPanel * a.head_dim;
  float* scores = o + kPanel * a.head_dim;
  float* m = scores + kPanel * kPanel;
  float* l = m + kPanel;
  gather_queries(a, head, s.first + q0, count, q);
  for (int64_t i = 0; i < kPanel; ++i) m[i] = -__builtin_inff(), l[i] = 0;
  const int64_t total = s.past + s.length;
  const int64_t keys = a.causal ? min_of(total, s.past + q0 + count) : total;
  const int64_t kv_head = head / (a.heads / a.kv_heads);
  for (int64_t first = 0; first < keys;) {
    const KeyBlock block = key_block(a, s, kv_head, first, keys);
    for (int64_t i = 0; i < count; i += kGroup) {
      const Group g = {q + i * a.head_dim, o + i * a.head_dim, m + i, l + i, s.past + q0 + i};
      if (a.causal && block.first > g.query + kGroup - 1) continue;
      if (count - i > kGroup - kVf) {
        attend_block<kGv>(a, head, block, g, scores);
      } else if (kGv > 2 && count - i > kVf) {
        attend_block<kGv / 2 + 1>(a, head, block, g, scores);
      } else {
        attend_block<1>(a, head, block, g, scores);
      }
    }
    first += block.count;
  }
  scatter_output(a, head, s.first + q0, count, o, l);
}

}  // namespace
}  // namespace zs
