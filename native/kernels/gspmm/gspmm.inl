// The inner loop of gspmm.cc, compiled once per instruction set.
#include <stdint.h>
#include <string.h>

#include "edges.inl"

namespace zs {
namespace {

template <class Op, bool kWeighted, class Index>
static inline void row_of(const Gspmm& a, const Edges<Index>& edges, int64_t first, int64_t last, int64_t end, float divisor,
                          bool past, float* y) {
  const bool own = last - first > kLongRow;
  const vf by = vset(divisor);
  for (int64_t h = 0; h < a.heads; ++h) {
    const int64_t at = h * a.features;
    Ahead ahead{a.ahead, own ? at : 0, own ? a.features : row_size(a), end};
    if (!own && h) ahead.entries = 0;
    const float* weights = kWeighted ? a.weights + first * a.weight_step + h : nullptr;
    if (divisor == 1.0f) {
      head<Op, kWeighted>(edges, first, last, weights, a.weight_step, at, a.features, ahead, own, past, y + at,
                          [](vf v) { return v; });
    } else {
      head<Op, kWeighted>(edges, first, last, weights, a.weight_step, at, a.features, ahead, own, past, y + at,
                          [by](vf v) { return v / by; });
    }
  }
}

template <class Index> Edges<Index> edges_of(const Gspmm& a) {
  const float* end = a.graph.cols ? a.x + (a.graph.cols - 1) * a.stride + row_size(a) : a.x;
  return {static_cast<const Index*>(a.graph.indices), a.x, end, a.stride};
}

// Rows of one head of N whole vectors, without what other shapes have to ask at each row: of a graph with seven entries a row it
// was a fifth of the time.
template <class Op, int N, bool kWeighted, class Index> void rows_whole(const Gspmm& a, int64_t begin, int64_t end) {
  const Edges<Index> edges = edges_of<Index>(a);
  const int64_t* indptr = a.graph.indptr;
  const bool mean = a.reduce == Reduce::mean;
  const Ahead ahead{a.ahead, 0, N * kVf, indptr[end]};
  for (int64_t r = begin; r < end; ++r) {
    const int64_t first = indptr[r], last = indptr[r + 1];
    vf sums[N] = {};
    if (first < last) {
      const float* weights = kWeighted ? a.weights + first * a.weight_step : nullptr;
      strip<Op, N, kWeighted>(edges, first, last, weights, a.weight_step, 0, (N - 1) * kVf, ahead, sums);
      if (mean) {
        const vf by = vset(static_cast<float>(last - first));
        for (int v = 0; v < N; ++v) sums[v] = sums[v] / by;
      }
    }
    float* y = a.y + r * a.stride;
    if (a.past) {
      for (int v = 0; v < N; ++v) vstream(y + v * kVf, sums[v]);
    } else {
      for (int v = 0; v < N; ++v) vstore(y + v * kVf, sums[v]);
    }
  }
  if (a.past) vdone();
}

template <class Op, bool kWeighted, class Index> void rows_as(const Gspmm& a, int64_t begin, int64_t end) {
  if (a.heads == 1 && a.features == 8 * kVf) return rows_whole<Op, 8, kWeighted, Index>(a, begin, end);
  if (a.heads == 1 && a.features == 4 * kVf) return rows_whole<Op, 4, kWeighted, Index>(a, begin, end);
  const Edges<Index> edges = edges_of<Index>(a);
  const int64_t* indptr = a.graph.indptr;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t first = indptr[r], last = indptr[r + 1];
    float* y = a.y + r * a.stride;
    if (first == last) {
      if (a.past) {
        for (int64_t f = 0; f < row_size(a); f += kVf) vstream(y + f, vf{});
      } else {
        memset(y, 0, static_cast<size_t>(row_size(a)) * sizeof(float));
      }
      continue;
    }
    const float divisor = a.reduce == Reduce::mean ? static_cast<float>(last - first) : 1.0f;
    row_of<Op, kWeighted>(a, edges, first, last, indptr[end], divisor, a.past, y);
  }
  if (a.past) vdone();
}

template <class Op, bool kWeighted, class Index> void part_as(const Gspmm& a, int64_t first, int64_t last, float* y) {
  row_of<Op, kWeighted>(a, edges_of<Index>(a), first, last, last, 1.0f, false, y);
}

// Calls f with the reduction, whether there are weights, and the type of the indices.
template <class F> void for_kind(const Gspmm& a, const F& f) {
  const auto indexed = [&]<class Op, bool kWeighted>() {
    if (a.graph.index_bytes == 2) return f.template operator()<Op, kWeighted, uint16_t>();
    if (a.graph.index_bytes == 4) return f.template operator()<Op, kWeighted, int32_t>();
    f.template operator()<Op, kWeighted, int64_t>();
  };
  const auto weighted = [&]<class Op>() {
    if (a.weights) return indexed.template operator()<Op, true>();
    indexed.template operator()<Op, false>();
  };
  if (a.reduce == Reduce::max) return weighted.template operator()<MaxOf>();
  if (a.reduce == Reduce::min) return weighted.template operator()<MinOf>();
  weighted.template operator()<SumOf>();
}

void rows(const Gspmm& a, int64_t begin, int64_t end) {
  for_kind(a, [&]<class Op, bool kWeighted, class Index>() { rows_as<Op, kWeighted, Index>(a, begin, end); });
}

void part(const Gspmm& a, int64_t first, int64_t last, float* y) {
  for_kind(a, [&]<class Op, bool kWeighted, class Index>() { part_as<Op, kWeighted, Index>(a, first, last, y); });
}

}  // namespace
}  // namespace zs
