// The inner loops of gat.cc, compiled once per instruction set.
//
// A row's entries go by blocks of kBlock: their scores, the exponentials of these, a vector at a time, then the rows of x times
// them, as for gspmm. Most rows are one block, and their weights are divided by the sum before x is touched, so that y is
// written once. Longer rows keep the largest score so far, and shrink what they have when a larger one comes.
#include <stdint.h>
#include <string.h>

#include "../gspmm/edges.inl"
#include "gat.h"

namespace zs {
namespace {

constexpr int64_t kBlock = kLongRow;
static_assert(kBlock % kVf == 0, "a block is whole vectors");

// What scores are taken relative to: the largest, or 0 where all of them are -inf (e^(-inf - -inf) would be NaN).
static inline float base_of(float most) { return most == -__builtin_inff() ? 0.0f : most; }

static inline float factor_of(float from, float to) {
  const vf e = vexp(vset(from - base_of(to)));
  return e[0];
}

// scores[0 .. n) become e^(s - base), what follows up to the next whole vector zero. Returns their sum.
static inline float exponentials(float* scores, int64_t n, float base) {
  const vf shift = vset(base);
  vf sum = vset(0.0f);
  for (int64_t i = n; i % kVf; ++i) scores[i] = -__builtin_inff();
  for (int64_t i = 0; i < n; i += kVf) {
    const vf e = vexp(vload(scores + i) - shift);
    vstore(scores + i, e);
    sum = sum + e;
  }
  return vsum(sum);
}

static inline void scale(float* values, int64_t n, float by) {
  int64_t i = 0;
  for (; i + kVf <= n; i += kVf) vstore(values + i, vload(values + i) * vset(by));
  for (; i < n; ++i) values[i] *= by;
}

template <class Index>
static inline float fill_scores(const Gat& a, const Index* indices, int64_t first, int64_t n, int64_t h, float left,
                                float* scores) {
  float most = -__builtin_inff();
  for (int64_t i = 0; i < n; ++i) {
    const float sum = left + a.right[static_cast<int64_t>(indices[first + i]) * a.heads + h];
    const float s = sum >= 0 ? sum : a.slope * sum;
    scores[i] = s;
    most = s > most ? s : most;  // a NaN is met again in the exponentials
  }
  return most;
}

// One head of the entries [first, last) of a row: y = sum of e^(s - most) x, not yet divided unless `divide`.
template <class Index>
static inline void gat_head(const Gat& a, const Edges<Index>& edges, int64_t row, int64_t h, int64_t first, int64_t last,
                            Ahead ahead, bool own, bool divide, float* y, float* most_out, float* sum_out, float* scratch) {
  alignas(64) float scores[kBlock];
  const int64_t at = h * a.features;
  const float left = a.left[row * a.heads + h];
  const auto same = [](vf v) { return v; };
  float most = -__builtin_inff(), sum = 0;
  for (int64_t b = first; b < last; b += kBlock) {
    const int64_t n = last - b < kBlock ? last - b : kBlock;
    const float here = fill_scores(a, edges.indices, b, n, h, left, scores);
    const float larger = here > most ? here : most;
    const float shrink = b == first ? 0.0f : factor_of(most, larger);
    sum = sum * shrink + exponentials(scores, n, base_of(larger));
    most = larger;
    const bool whole = last - first <= kBlock;
    if (whole && divide) scale(scores, n, 1.0f / sum);
    float* to = b == first ? y : scratch;
    head<SumOf, true>(edges, b, b + n, scores, 1, at, a.features, ahead, own, false, to, same);
    if (b != first) {
      for (int64_t f = 0; f < a.features; ++f) y[f] = y[f] * shrink + scratch[f];
    }
  }
  if (divide && last - first > kBlock) scale(y, a.features, 1.0f / sum);
  if (most_out) *most_out = most;
  if (sum_out) *sum_out = sum;
}

template <class Index>
static inline void gat_row(const Gat& a, int64_t row, int64_t first, int64_t last, int64_t end, bool divide, float* y,
                           float* most, float* sum, float* scratch) {
  const int64_t size = a.heads * a.features;
  const Edges<Index> edges{static_cast<const Index*>(a.graph.indices), a.x, a.x + a.graph.cols * size, size};
  const bool own = last - first > kBlock;
  for (int64_t h = 0; h < a.heads; ++h) {
    const int64_t at = h * a.features;
    Ahead ahead{a.ahead, own ? at : 0, own ? a.features : size, end};
    if (!own && h) ahead.entries = 0;
    gat_head(a, edges, row, h, first, last, ahead, own, divide, y + at, most ? most + h : nullptr, sum ? sum + h : nullptr,
             scratch);
  }
}

template <class Index> void rows_as(const Gat& a, int64_t begin, int64_t end, float* scratch) {
  const int64_t* indptr = a.graph.indptr;
  const int64_t size = a.heads * a.features;
  for (int64_t r = begin; r < end; ++r) {
    float* y = a.y + r * size;
    if (indptr[r] == indptr[r + 1]) {
      memset(y, 0, static_cast<size_t>(size) * sizeof(float));
      continue;
    }
    gat_row<Index>(a, r, indptr[r], indptr[r + 1], indptr[end], true, y, nullptr, nullptr, scratch);
  }
}

void rows(const Gat& a, int64_t begin, int64_t end, float* scratch) {
  if (a.graph.index_bytes == 2) return rows_as<uint16_t>(a, begin, end, scratch);
  if (a.graph.index_bytes == 4) return rows_as<int32_t>(a, begin, end, scratch);
  rows_as<int64_t>(a, begin, end, scratch);
}

void part(const Gat& a, int64_t row, int64_t first, int64_t last, float* y, float* most, float* sum, float* scratch) {
  if (a.graph.index_bytes == 2) return gat_row<uint16_t>(a, row, first, last, last, false, y, most, sum, scratch);
  if (a.graph.index_bytes == 4) return gat_row<int32_t>(a, row, first, last, last, false, y, most, sum, scratch);
  gat_row<int64_t>(a, row, first, last, last, false, y, most, sum, scratch);
}

// One head of the entries of a row: out = e^(s - most).
static inline void softmax_head(const EdgeScores& a, int64_t first, int64_t last, int64_t h, float* most_out, float* sum_out) {
  alignas(64) float block[kBlock];
  float most = -__builtin_inff(), sum = 0;
  for (int64_t e = first; e < last; ++e) {
    const float s = a.scores[e * a.heads + h];
    most = s > most ? s : most;
  }
  for (int64_t b = first; b < last; b += kBlock) {
    const int64_t n = last - b < kBlock ? last - b : kBlock;
    for (int64_t i = 0; i < n; ++i) block[i] = a.scores[(b + i) * a.heads + h];
    sum += exponentials(block, n, base_of(most));
    for (int64_t i = 0; i < n; ++i) a.out[(b + i) * a.heads + h] = block[i];
  }
  *most_out = most;
  *sum_out = sum;
}

void softmax_part(const EdgeScores& a, int64_t first, int64_t last, float* most, float* sum) {
  for (int64_t h = 0; h < a.heads; ++h) softmax_head(a, first, last, h, most + h, sum + h);
}

void softmax(const EdgeScores& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const int64_t first = a.graph.indptr[r], last = a.graph.indptr[r + 1];
    for (int64_t h = 0; first < last && h < a.heads; ++h) {
      float most, sum;
      softmax_head(a, first, last, h, &most, &sum);
      const float by = 1.0f / sum;
      for (int64_t e = first; e < last; ++e) a.out[e * a.heads + h] *= by;
    }
  }
}

template <class Index> void add_as(const EdgeScores& a, int64_t row, int64_t first, int64_t last) {
  const Index* indices = static_cast<const Index*>(a.graph.indices);
  const float* left = a.left + row * a.heads;
  for (int64_t e = first; e < last; ++e) {
    const float* right = a.right + static_cast<int64_t>(indices[e]) * a.heads;
    float* out = a.out + e * a.heads;
    for (int64_t h = 0; h < a.heads; ++h) out[h] = left[h] + right[h];
  }
}

void add_part(const EdgeScores& a, int64_t row, int64_t first, int64_t last) {
  if (a.graph.index_bytes == 2) return add_as<uint16_t>(a, row, first, last);
  if (a.graph.index_bytes == 4) return add_as<int32_t>(a, row, first, last);
  add_as<int64_t>(a, row, first, last);
}

void add(const EdgeScores& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) add_part(a, r, a.graph.indptr[r], a.graph.indptr[r + 1]);
}

}  // namespace
}  // namespace zs
