// Attention of one new token over a cache. The query heads that share a key head go together, so that keys and values, which
// come from memory, are read once. Scores: vectors along the keys, [head_dim][64] a block. Output: vectors along head_dim.

namespace zs {
namespace {

constexpr int kTokenVectors = 4;
constexpr int kTokenSpan = kTokenVectors * kVf;  // divides kPanel

// s[q][key] = sum over d of query[q][d] * k[d][key], keys of one span.
template <int nq> static void token_scores(const float* query, const float* k, int64_t head_dim, float* s, int64_t s_stride) {
  vf sum[nq][kTokenVectors];
  for (int i = 0; i < nq; ++i) {
    for (int v = 0; v < kTokenVectors; ++v) sum[i][v] = vset(0.0f);
  }
  for (int64_t d = 0; d < head_dim; ++d) {
    for (int v = 0; v < kTokenVectors; ++v) {
      const vf x = vload(k + d * kPanel + v * kVf);
      for (int i = 0; i < nq; ++i) sum[i][v] = vfma(vset(query[i * head_dim + d]), x, sum[i][v]);
    }
  }
  for (int i = 0; i < nq; ++i) {
    for (int v = 0; v < kTokenVectors; ++v) vstore(s + i * s_stride + v * kVf, sum[i][v]);
  }
}

// o[q][d] += sum over keys of p[q][key] * v[key][d], nv vectors of d.
template <int nq, int nv>
static void token_values(const float* p, int64_t p_stride, const float* v, int64_t head_dim, int64_t keys, float* o,
                         int64_t o_stride) {
  vf sum[nq][nv];
  for (int i = 0; i < nq; ++i) {
    for (int u = 0; u < nv; ++u) sum[i][u] = vload(o + i * o_stride + u * kVf);
  }
  for (int64_t j = 0; j < keys; ++j) {
    for (int u = 0; u < nv; ++u) {
      const vf x = vload(v + j * head_dim + u * kVf);
      for (int i = 0; i < nq; ++i) sum[i][u] = vfma(vset(p[i * p_stride + j]), x, sum[i][u]);
    }
  }
  for (int i = 0; i < nq; ++i) {
    for (int u = 0; u < nv; ++u) vstore(o + i * o_stride + u * kVf, sum[i][u]);
  }
}

template <int nq>
static void token_values_all(const float* p, int64_t p_stride, const float* v, int64_t head_dim, int64_t keys, float* o,
                             int64_t o_stride) {
  int64_t d = 0;
  for (; d + 4 * kVf <= head_dim; d += 4 * kVf) token_values<nq, 4>(p, p_stride, v + d, head_dim, keys, o + d, o_stride);
  for (; d + kVf <= head_dim; d += kVf) token_values<nq, 1>(p, p_stride, v + d, head_dim, keys, o + d, o_stride);
  for (; d < head_dim; ++d) {
    for (int i = 0; i < nq; ++i) {
      for (int64_t j = 0; j < keys; ++j) o[i * o_stride + d] += p[i * p_stride + j] * v[j * head_dim + d];
    }
  }
}

// Scores of one query to e^(s - max); the padding becomes zero.
static void token_softmax(float* s, int64_t keys, float* max_out, float* sum_out) {
  const int64_t padded = (keys + kPanel - 1) / kPanel * kPanel;
  for (int64_t j = keys; j < padded; ++j) s[j] = -__builtin_inff();
  vf top = vload(s), sum = vset(0.0f);
  for (int64_t j = kVf; j < padded; j += kVf) top = vmax(vload(s + j), top);
  float most = top[0];
  for (int i = 1; i < kVf; ++i) most = top[i] > most ? top[i] : most;
  for (int64_t j = 0; j < padded; j += kVf) {
    const vf p = vexp_below(vload(s + j) - vset(most));
    sum += p;
    vstore(s + j, p);
  }
  *max_out = most;
  *sum_out = vsum(sum);
}

void attend_token(const AttentionArgs& a, const Sequence& s, int64_t kv_head, int64_t key0, int64_t key1, float* partial,
                  float* scratch) {
  const int64_t group = a.heads / a.kv_heads;
  const int64_t n = a.head_dim, keys = key1 - key0;
  const int64_t stride = (keys + kPanel - 1) / kPanel * kPanel;
  const CacheHead cache = cache_head(a, s, kv_head);
  const float* k = cache.k + key0 * n;  // key0 is a multiple of kPanel
  const float* v = cache.v + key0 * n;
  float* scores = scratch;
  float* query = scores + group * stride;
  const int64_t width = panel_width(a.lanes, s.first / kPanel);
  const float* q = view_at(a.q, s.first / kPanel, width, kv_head * group * n) + s.first % kPanel;
  for (int64_t i = 0; i < group * n; ++i) query[i] = q[i * width] * a.scale;
  for (int64_t j = 0; j < keys; j += kTokenSpan) {
    const float* at = k + j / kPanel * kPanel * n + j % kPanel;
    int64_t i = 0;
    for (; group - i >= 3; i += 3) token_scores<3>(query + i * n, at, n, scores + i * stride + j, stride);
    if (group - i == 2) token_scores<2>(query + i * n, at, n, scores + i * stride + j, stride);
    if (group - i == 1) token_scores<1>(query + i * n, at, n, scores + i * stride + j, stride);
  }
  for (int64_t i = 0; i < group; ++i) {
    float* p = partial + i * (n + 2);
    token_softmax(scores + i * stride, keys, p, p + 1);
    for (int64_t d = 0; d < n; ++d) p[2 + d] = 0;
  }
  for (int64_t j = 0; j < keys; j += kPanel) {
    const int64_t count = min_of(kPanel, keys - j);
    int64_t i = 0;
    float* o = partial + 2;
    for (; group - i >= 3; i += 3) {
      token_values_all<3>(scores + i * stride + j, stride, v + j * n, n, count, o + i * (n + 2), n + 2);
    }
    if (group - i == 2) token_values_all<2>(scores + i * stride + j, stride, v + j * n, n, count, o + i * (n + 2), n + 2);
    if (group - i == 1) token_values_all<1>(scores + i * stride + j, stride, v + j * n, n, count, o + i * (n + 2), n + 2);
  }
}

void append(const AttentionArgs& a, const Sequence& s, int64_t kv_head) {
  const CacheHead cache = cache_head(a, s, kv_head);
  const int64_t n = a.head_dim;
  for (int64_t t = 0; t < s.length;) {
    const int64_t lane = s.first + t, at = s.past + t;
    const int64_t run = min_of(s.length - t, min_of(kPanel - lane % kPanel, kPanel - at % kPanel));
    const int64_t width = panel_width(a.lanes, lane / kPanel);
    const float* k = view_at(a.k, lane / kPanel, width, kv_head * n) + lane % kPanel;
    const float* v = view_at(a.v, lane / kPanel, width, kv_head * n) + lane % kPanel;
    float* k_out = cache.k + at / kPanel * kPanel * n + at % kPanel;
    for (int64_t d = 0; d < n; ++d) {
      for (int64_t i = 0; i < run; ++i) k_out[d * kPanel + i] = k[d * width + i];
    }
    for (int64_t i = 0; i < run; ++i) {
      for (int64_t d = 0; d < n; ++d) cache.v[(at + i) * n + d] = v[d * width + i];
    }
    t += run;
  }
}

}  // namespace
}  // namespace zs
