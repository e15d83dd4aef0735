// The sums of attention, written once on vectors. Two shapes:
//
// Lanes: a group of queries lies across lanes. S[key][query] = sum over d of K[key][d] Q[d][query] broadcasts K, O[d][query] +=
// V[key][d] P[key][query] broadcasts V, and the softmax runs down the keys: no sum across lanes anywhere. Keys come as a list,
// so a window, blocks and the union of scattered columns are the same loop. kTile x kGv accumulators fill the registers.
//
// Rows: one query (or a few heads of one) by itself, vectors along d, for scattered keys that neighbours do not share and for one
// new token over a cache.
#include <stdint.h>
#include <string.h>

#include "../../runtime/vecmath.inl"
#include "attention.h"

namespace zs {
namespace {

#if defined(__AVX512F__) && !defined(ZS_VEC_GENERIC)
constexpr int kGv = 2, kTile = 8;
#elif defined(__aarch64__)
constexpr int kGv = 4, kTile = 6;
#else
constexpr int kGv = 2, kTile = 6;
#endif
constexpr int kLanes = kGv * kVf;
static_assert(kLanes <= kMostLanes && kVf <= kMostVf, "a word of `seen` has a bit for each lane");

// s[r][lane] = sum over k of rows[r][k] * q[k][lane].
template <int rows> static inline void score_tile(const KeyChunk& c, int64_t t, const float* q, int64_t d, float* s) {
  const float* key[rows];
  for (int r = 0; r < rows; ++r) key[r] = c.k + c.k_at[t + r];
  vf sum[rows][kGv];
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < kGv; ++v) sum[r][v] = vset(0.0f);
  }
  for (int64_t k = 0; k < d; ++k, q += kLanes) {
    vf lane[kGv];
    for (int v = 0; v < kGv; ++v) lane[v] = vload(q + v * kVf);
    for (int r = 0; r < rows; ++r) {
      const vf x = vset(key[r][k]);
      for (int v = 0; v < kGv; ++v) sum[r][v] = vfma(x, lane[v], sum[r][v]);
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < kGv; ++v) vstore(s + (t + r) * kLanes + v * kVf, sum[r][v]);
  }
}

// o[f + r][lane] = alpha[lane] * o[f + r][lane] + sum over t of V[t][f + r] * p[t][lane]; without alpha it begins at zero.
template <int rows> static inline void value_tile(const KeyChunk& c, int64_t f, const float* p, float* o, const vf* alpha) {
  vf sum[rows][kGv];
  float* out = o + f * kLanes;
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < kGv; ++v) sum[r][v] = alpha ? vload(out + r * kLanes + v * kVf) * alpha[v] : vset(0.0f);
  }
  const float* values = c.v + f;
  for (int64_t t = 0; t < c.count; ++t, p += kLanes) {
    const float* value = values + c.v_at[t];
    vf lane[kGv];
    for (int v = 0; v < kGv; ++v) lane[v] = vload(p + v * kVf);
    for (int r = 0; r < rows; ++r) {
      const vf x = vset(value[r]);
      for (int v = 0; v < kGv; ++v) sum[r][v] = vfma(x, lane[v], sum[r][v]);
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < kGv; ++v) vstore(out + r * kLanes + v * kVf, sum[r][v]);
  }
}

static void scores(const KeyChunk& c, const float* q, int64_t d, float* s) {
  int64_t t = 0;
  for (; c.count - t >= kTile; t += kTile) score_tile<kTile>(c, t, q, d, s);
  if (c.count - t >= 4) score_tile<4>(c, t, q, d, s), t += 4;
  if (c.count - t >= 2) score_tile<2>(c, t, q, d, s), t += 2;
  if (c.count - t >= 1) score_tile<1>(c, t, q, d, s);
}

static void values(const KeyChunk& c, int64_t dv, const float* p, float* o, const vf* alpha) {
  int64_t f = 0;
  for (; dv - f >= kTile; f += kTile) value_tile<kTile>(c, f, p, o, alpha);
  if (dv - f >= 4) value_tile<4>(c, f, p, o, alpha), f += 4;
  if (dv - f >= 2) value_tile<2>(c, f, p, o, alpha), f += 2;
  if (dv - f >= 1) value_tile<1>(c, f, p, o, alpha);
}

// Scores that a lane does not see become -inf.
static void hide(const KeyChunk& c, float* s) {
  vi bit[kGv];
  for (int v = 0; v < kGv; ++v) {
    for (int i = 0; i < kVf; ++i) bit[v][i] = static_cast<int32_t>(1u << (v * kVf + i));
  }
  const uint32_t all = kLanes == 32 ? ~0u : (1u << kLanes % 32) - 1;
  for (int64_t t = 0; t < c.count; ++t) {
    if ((c.seen[t] & all) == all) continue;
    const vi seen = viset(static_cast<int32_t>(c.seen[t]));
    for (int v = 0; v < kGv; ++v) {
      float* at = s + t * kLanes + v * kVf;
      vstore(at, vselect((seen & bit[v]) != 0, vload(at), vset(-__builtin_inff())));
    }
  }
}

// Scores to weights relative to the largest score yet, in place; updates m and l, gives what o is multiplied by. Where nothing was
// seen the largest is -inf and stands as 0 in differences, so that weights are 0 and not NaN. A NaN score is no largest one
// (vmax); its weight is NaN.
static void softmax(LaneGroup& g, int64_t count, vf* alpha) {
  const vf nothing = vset(-__builtin_inff());
  vf top[kGv], sum[kGv];
  for (int v = 0; v < kGv; ++v) top[v] = vload(g.m + v * kVf);
  for (int64_t t = 0; t < count; ++t) {
    for (int v = 0; v < kGv; ++v) top[v] = vmax(vload(g.s + t * kLanes + v * kVf), top[v]);
  }
  for (int v = 0; v < kGv; ++v) {
    const vf before = vload(g.m + v * kVf);
    vstore(g.m + v * kVf, top[v]);
    top[v] = vselect(top[v] == nothing, vset(0.0f), top[v]);
    alpha[v] = vexp_below(before - top[v]);
    sum[v] = vload(g.l + v * kVf) * alpha[v];
  }
  for (int64_t t = 0; t < count; ++t) {
    for (int v = 0; v < kGv; ++v) {
      float* at = g.s + t * kLanes + v * kVf;
      const vf p = vexp_below(vload(at) - top[v]);
      sum[v] += p;
      vstore(at, p);
    }
  }
  for (int v = 0; v < kGv; ++v) vstore(g.l + v * kVf, sum[v]);
}

void lanes_begin(LaneGroup& g, const float* q, int64_t stride, int64_t count, float scale) {
  if (count < kLanes) memset(g.q, 0, g.d * kLanes * sizeof(float));
  for (int64_t lane = 0; lane < count; ++lane) {
    for (int64_t k = 0; k < g.d; ++k) g.q[k * kLanes + lane] = q[lane * stride + k] * scale;
  }
  for (int lane = 0; lane < kLanes; ++lane) g.m[lane] = -__builtin_inff(), g.l[lane] = 0;
  g.fresh = true;
}

void lanes_chunk(LaneGroup& g, const KeyChunk& c) {
  vf alpha[kGv];
  scores(c, g.q, g.d, g.s);
  if (c.seen) hide(c, g.s);
  softmax(g, c.count, alpha);
  values(c, g.dv, g.s, g.o, g.fresh ? nullptr : alpha);
  g.fresh = false;
}

void lanes_finish(const LaneGroup& g, float* out, int64_t stride, int64_t count) {
  vf share[kGv];
  for (int v = 0; v < kGv; ++v) {
    const vf l = vload(g.l + v * kVf);
    share[v] = vselect(l == vset(0.0f), vset(0.0f), vset(1.0f) / l);
  }
  for (int64_t f = 0; f < g.dv; ++f) {
    float row[kLanes];
    for (int v = 0; v < kGv; ++v) {
      vstore(row + v * kVf, g.fresh ? vset(0.0f) : vload(g.o + f * kLanes + v * kVf) * share[v]);
    }
    for (int64_t lane = 0; lane < count; ++lane) out[lane * stride + f] = row[lane];
  }
}

// ---- Rows --------------------------------------------------------------------------------------------------------

// Lanes of a and b in turn, runs of `step` lanes each, added to the runs beside them.
#define ZS_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
static inline vf add_runs1(vf a, vf b) {
#if ZS_VECTOR_BYTES == 16
  return ZS_SHUFFLE(a, b, 0, 4, 2, 6) + ZS_SHUFFLE(a, b, 1, 5, 3, 7);
#elif ZS_VECTOR_BYTES == 32
  return ZS_SHUFFLE(a, b, 0, 8, 2, 10, 4, 12, 6, 14) + ZS_SHUFFLE(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
#else
  return ZS_SHUFFLE(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
         ZS_SHUFFLE(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
#endif
}
static inline vf add_runs2(vf a, vf b) {
#if ZS_VECTOR_BYTES == 16
  return ZS_SHUFFLE(a, b, 0, 1, 4, 5) + ZS_SHUFFLE(a, b, 2, 3, 6, 7);
#elif ZS_VECTOR_BYTES == 32
  return ZS_SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + ZS_SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
#else
  return ZS_SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
         ZS_SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
#endif
}
#if ZS_VECTOR_BYTES >= 32
static inline vf add_runs4(vf a, vf b) {
#if ZS_VECTOR_BYTES == 32
  return ZS_SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + ZS_SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
#else
  return ZS_SHUFFLE(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
         ZS_SHUFFLE(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
#endif
}
#endif
#if ZS_VECTOR_BYTES == 64
static inline vf add_runs8(vf a, vf b) {
  return ZS_SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
         ZS_SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
#endif
#undef ZS_SHUFFLE

// The sums of kVf vectors, in order.
static inline vf sums_of(const vf* x) {
  vf pair[kVf / 2], four[kVf / 4];
  for (int i = 0; i < kVf / 2; ++i) pair[i] = add_runs1(x[2 * i], x[2 * i + 1]);
  for (int i = 0; i < kVf / 4; ++i) four[i] = add_runs2(pair[2 * i], pair[2 * i + 1]);
#if ZS_VECTOR_BYTES == 16
  return four[0];
#elif ZS_VECTOR_BYTES == 32
  return add_runs4(four[0], four[1]);
#else
  return add_runs8(add_runs4(four[0], four[1]), add_runs4(four[2], four[3]));
#endif
}

// part[i][key] = the vector of products of query i and key; its lanes still have to be added up.
template <int nq, int keys>
static inline void dot_tile(const RowGroup& g, const KeyChunk& c, int64_t t, vf (*part)[kVf], int first) {
  const float* key[keys];
  for (int j = 0; j < keys; ++j) key[j] = c.k + c.k_at[t + j];
  vf sum[nq][keys];
  for (int i = 0; i < nq; ++i) {
    for (int j = 0; j < keys; ++j) sum[i][j] = vset(0.0f);
  }
  int64_t k = 0;
  for (; k + kVf <= g.d; k += kVf) {
    vf query[nq];
    for (int i = 0; i < nq; ++i) query[i] = vload(g.q + i * g.q_stride + k);
    for (int j = 0; j < keys; ++j) {
      const vf x = vload(key[j] + k);
      for (int i = 0; i < nq; ++i) sum[i][j] = vfma(query[i], x, sum[i][j]);
    }
  }
  if (k < g.d) {
    for (int j = 0; j < keys; ++j) {
      const vf x = vload_part(key[j] + k, g.d - k);
      for (int i = 0; i < nq; ++i) sum[i][j] = vfma(vload(g.q + i * g.q_stride + k), x, sum[i][j]);
    }
  }
  for (int i = 0; i < nq; ++i) {
    for (int j = 0; j < keys; ++j) part[i][first + j] = sum[i][j];
  }
}

// Scores of a whole number of vectors of keys: what the list holds beyond `count` repeats a key and is not used.
template <int nq> static void row_scores(const RowGroup& g, const KeyChunk& c) {
  constexpr int keys = nq > 1 || kVf < 8 ? 4 : 8;
  for (int64_t t = 0; t < c.count; t += kVf) {
    vf part[nq][kVf];
    for (int first = 0; first < kVf; first += keys) dot_tile<nq, keys>(g, c, t + first, part, first);
    for (int i = 0; i < nq; ++i) vstore(g.s + i * kRowKeys + t, sums_of(part[i]));
  }
}

// As `softmax`, of one query; gives what its o is multiplied by.
static float row_softmax(float* s, int64_t count, float* m, float* l) {
  const int64_t padded = (count + kVf - 1) / kVf * kVf;
  for (int64_t t = count; t < padded; ++t) s[t] = -__builtin_inff();
  vf top = vset(*m), sum = vset(0.0f);
  for (int64_t t = 0; t < padded; t += kVf) top = vmax(vload(s + t), top);
  float most = top[0];
  for (int i = 1; i < kVf; ++i) most = top[i] > most ? top[i] : most;
  const float before = *m;
  *m = most;
  if (most == -__builtin_inff()) most = 0;
  for (int64_t t = 0; t < padded; t += kVf) {
    const vf p = vexp_below(vload(s + t) - vset(most));
    sum += p;
    vstore(s + t, p);
  }
  const float alpha = vexp_below(vset(before - most))[0];
  *l = *l * alpha + vsum(sum);
  return alpha;
}

template <int nq, int nv>
static inline void row_value_tile(const RowGroup& g, const KeyChunk& c, int64_t f, const float* alpha) {
  vf sum[nq][nv];
  for (int i = 0; i < nq; ++i) {
    for (int u = 0; u < nv; ++u) sum[i][u] = vload(g.o + i * g.o_stride + f + u * kVf) * vset(alpha[i]);
  }
  for (int64_t t = 0; t < c.count; ++t) {
    const float* value = c.v + c.v_at[t] + f;
    vf x[nv];
    for (int u = 0; u < nv; ++u) x[u] = vload(value + u * kVf);
    for (int i = 0; i < nq; ++i) {
      const vf p = vset(g.s[i * kRowKeys + t]);
      for (int u = 0; u < nv; ++u) sum[i][u] = vfma(p, x[u], sum[i][u]);
    }
  }
  for (int i = 0; i < nq; ++i) {
    for (int u = 0; u < nv; ++u) vstore(g.o + i * g.o_stride + f + u * kVf, sum[i][u]);
  }
}

template <int nq> static void row_values(const RowGroup& g, const KeyChunk& c, const float* alpha) {
  constexpr int wide = nq > 1 ? 4 : 8;
  int64_t f = 0;
  for (; f + wide * kVf <= g.dv; f += wide * kVf) row_value_tile<nq, wide>(g, c, f, alpha);
  for (; f + kVf <= g.dv; f += kVf) row_value_tile<nq, 1>(g, c, f, alpha);
  if (f == g.dv) return;
  for (int i = 0; i < nq; ++i) {
    float* o = g.o + i * g.o_stride + f;
    vf sum = vload(o) * vset(alpha[i]);
    for (int64_t t = 0; t < c.count; ++t) {
      sum = vfma(vset(g.s[i * kRowKeys + t]), vload_part(c.v + c.v_at[t] + f, g.dv - f), sum);
    }
    vstore(o, sum);
  }
}

template <int nq> static void rows_step(RowGroup& g, const KeyChunk& c) {
  float alpha[nq];
  row_scores<nq>(g, c);
  for (int i = 0; i < nq; ++i) alpha[i] = row_softmax(g.s + i * kRowKeys, c.count, g.m + i, g.l + i);
  row_values<nq>(g, c, alpha);
}

void row_chunk(RowGroup& g, const KeyChunk& c) {
  static_assert(kMostRows == 3, "one case for each number of rows");
  if (g.rows == 1) return rows_step<1>(g, c);
  if (g.rows == 2) return rows_step<2>(g, c);
  rows_step<3>(g, c);
}

// Zero times a number is zero unless it is infinite or NaN.
bool all_finite(const float* x, int64_t n) {
  vf sum[4] = {vset(0.0f), vset(0.0f), vset(0.0f), vset(0.0f)};
  int64_t i = 0;
  for (; i + 4 * kVf <= n; i += 4 * kVf) {
    for (int u = 0; u < 4; ++u) sum[u] = vfma(vload(x + i + u * kVf), vset(0.0f), sum[u]);
  }
  float rest = vsum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; i < n; ++i) rest += x[i] * 0.0f;
  return rest == 0.0f;
}

}  // namespace
}  // namespace zs

#define ZS_ATTENTION(isa)                                                                                                \
  namespace zs {                                                                                                         \
  extern const AttentionMicro attention_##isa = {kLanes, lanes_begin, lanes_chunk, lanes_finish, row_chunk, all_finite}; \
  }
