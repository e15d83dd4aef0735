// One row's entries times rows of x, for gspmm.inl and gat.inl: a strip of up to kMostVectors vectors stays in registers while
// the entries pass.
//
// Rows of x lie anywhere, so a graph that is larger than the caches is bound by misses: the row of an entry some entries ahead
// is asked for, all of its cache lines, also across the ends of rows, since indices are in order.
#pragma once

#include <stdint.h>

#include "../../runtime/vecmath.inl"
#include "gspmm.h"

namespace zs {
namespace {

constexpr int kMostVectors = 8;  // AVX2 has 16 registers: 8 sums, the weight, and what is loaded
constexpr int64_t kLine = 16;    // floats of a cache line

struct SumOf {
  static vf start() { return vset(0.0f); }
  static vf join(vf sum, vf v) { return sum + v; }
  static vf join(vf sum, vf w, vf v) { return vfma(w, v, sum); }
};
// A NaN is taken, and stays.
struct MaxOf {
  static vf start() { return vset(-__builtin_inff()); }
  static vf join(vf most, vf v) { return vselect((v > most) | (v != v), v, most); }
  static vf join(vf most, vf w, vf v) { return join(most, w * v); }
};
struct MinOf {
  static vf start() { return vset(__builtin_inff()); }
  static vf join(vf least, vf v) { return vselect((v < least) | (v != v), v, least); }
  static vf join(vf least, vf w, vf v) { return join(least, w * v); }
};

// What a strip is asked to look up before it is needed.
struct Ahead {
  int64_t entries;  // how far ahead; 0: nothing
  int64_t first, size;  // floats of the row of x
  int64_t end;  // entries there are
};

template <class Index> struct Edges {
  const Index* indices;
  const float* x;
  const float* x_end;
  int64_t row_size;
  const float* row(int64_t entry) const { return x + static_cast<int64_t>(indices[entry]) * row_size; }
  // Always inlined: to GCC a function that does nothing but ask has no effect, and it drops the calls.
  __attribute__((always_inline)) void ask(int64_t entry, const Ahead& ahead) const {
    if (entry + ahead.entries >= ahead.end) return;
    const float* p = row(entry + ahead.entries) + ahead.first;
    for (int64_t i = 0; i < ahead.size; i += kLine) __builtin_prefetch(p + i);
    __builtin_prefetch(p + ahead.size - 1);
  }
};

// sums[v] = the reduction over [first, last) of w[e] * x[row of e][at + v * kVf ...]; the last vector begins at `tail`, so that
// it may overlap the one before it. Weights are `step` floats apart, that of `first` comes first.
template <class Op, int N, bool kWeighted, class Index>
static inline void strip(const Edges<Index>& edges, int64_t first, int64_t last, const float* weights, int64_t step, int64_t at,
                         int64_t tail, const Ahead& ahead, vf* sums) {
  vf sum[N];
  for (int v = 0; v < N; ++v) sum[v] = Op::start();
  for (int64_t e = first; e < last; ++e) {
    if (ahead.entries) edges.ask(e, ahead);
    const float* p = edges.row(e);
    if constexpr (kWeighted) {
      const vf w = vset(weights[(e - first) * step]);
      for (int v = 0; v < N - 1; ++v) sum[v] = Op::join(sum[v], w, vload(p + at + v * kVf));
      sum[N - 1] = Op::join(sum[N - 1], w, vload(p + tail));
    } else {
      for (int v = 0; v < N - 1; ++v) sum[v] = Op::join(sum[v], vload(p + at + v * kVf));
      sum[N - 1] = Op::join(sum[N - 1], vload(p + tail));
    }
  }
  for (int v = 0; v < N; ++v) sums[v] = sum[v];
}

// Fewer features than a vector has lanes: what is behind them is read too, but not beyond the end of x, and never written.
template <class Op, bool kWeighted, class Index>
static inline vf narrow(const Edges<Index>& edges, int64_t first, int64_t last, const float* weights, int64_t step, int64_t at,
                        int64_t features, const Ahead& ahead) {
  vf sum = Op::start();
  for (int64_t e = first; e < last; ++e) {
    if (ahead.entries) edges.ask(e, ahead);
    const float* p = edges.row(e) + at;
    const vf v = edges.x_end - p >= kVf ? vload(p) : vload_part(p, features);
    if constexpr (kWeighted) {
      sum = Op::join(sum, vset(weights[(e - first) * step]), v);
    } else {
      sum = Op::join(sum, v);
    }
  }
  return sum;
}

// The features of one head, from float `at` of a row of x on: finish(vector) of each strip goes to y. `ahead` is for the first
// strip; with `own`, each strip asks for what it reads itself; with `past`, y is written past the caches.
template <class Op, bool kWeighted, class Index, class Finish>
static inline void head(const Edges<Index>& edges, int64_t first, int64_t last, const float* weights, int64_t step, int64_t at,
                        int64_t features, Ahead ahead, bool own, bool past, float* y, const Finish& finish) {
  if (features < kVf) {
    const vf sum = narrow<Op, kWeighted>(edges, first, last, weights, step, at, features, ahead);
    vstore_part(y, finish(sum), features);
    return;
  }
  const int64_t vectors = (features + kVf - 1) / kVf;
  for (int64_t done = 0; done < vectors; done += kMostVectors) {
    const int64_t n = vectors - done < kMostVectors ? vectors - done : kMostVectors;
    const int64_t from = done * kVf, last_vector = (done + n) * kVf > features ? features - kVf : (done + n - 1) * kVf;
    if (own) {
      ahead.first = at + from;
      ahead.size = last_vector + kVf - from;
    }
    vf sums[kMostVectors];
    const auto run = [&]<int N>() {
      strip<Op, N, kWeighted>(edges, first, last, weights, step, at + from, at + last_vector, ahead, sums);
      if (past) {
        for (int v = 0; v < N; ++v) vstream(y + from + v * kVf, finish(sums[v]));
        return;
      }
      for (int v = 0; v < N - 1; ++v) vstore(y + from + v * kVf, finish(sums[v]));
      vstore(y + last_vector, finish(sums[N - 1]));
    };
    switch (n) {
      case 1: run.template operator()<1>(); break;
      case 2: run.template operator()<2>(); break;
      case 3: run.template operator()<3>(); break;
      case 4: run.template operator()<4>(); break;
      case 5: run.template operator()<5>(); break;
      case 6: run.template operator()<6>(); break;
      case 7: run.template operator()<7>(); break;
      default: run.template operator()<8>();
    }
    if (!own) ahead.entries = 0;
  }
}

// Rows of more entries than this are walked once a strip with what the strip itself needs asked for: their x would have left
// L1 before the second strip.
constexpr int64_t kLongRow = 48;

}  // namespace
}  // namespace zs
