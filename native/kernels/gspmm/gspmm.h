// Sums over the edges of a graph (gspmm.cc drives, gspmm.inl adds). C headers only.
//
//   y[i, h, :] = reduce over stored j of row i of w[e, h] * x[j, h, :],   e the entry (i, j); w = 1 where there are no weights
//
// A graph is CSR: row i holds the entries indptr[i] to indptr[i + 1], indices are 2, 4 or 8 bytes each. x, y and w are row-major,
// y overlaps nothing. Rows without entries give zeros. Nothing is aligned or padded.
#pragma once

#include <stdint.h>

namespace zs {

enum class Reduce : int32_t { sum = 0, mean = 1, max = 2, min = 3 };

struct Graph {
  int64_t rows, cols;
  const int64_t* indptr;
  const void* indices;
  int index_bytes;
};

struct Gspmm {
  Graph graph;
  const float* x;
  const float* weights;  // [entries][heads], or null
  float* y;
  int64_t heads, features;  // of each head
  Reduce reduce;
  // What follows, run_gspmm sets.
  int64_t ahead = 0;  // entries that x is asked for before it is needed; 0: never
  bool past = false;  // y is written past the caches: it is aligned to lines, as each head of a row is
  int64_t stride = 0;  // floats from a row to the next, of x and of y: all heads, where heads and features are a panel of them
  int64_t weight_step = 0;  // floats from the weights of an entry to those of the next
};

static inline int64_t row_length(const Graph& graph, int64_t row) { return graph.indptr[row + 1] - graph.indptr[row]; }
static inline int64_t row_size(const Gspmm& a) { return a.heads * a.features; }  // floats of a row of x that are read

struct GspmmMicro {
  void (*rows)(const Gspmm&, int64_t begin, int64_t end);
  // A part of one row: y[heads][features] = its reduction, a mean still being a sum. At least one entry.
  void (*part)(const Gspmm&, int64_t first, int64_t last, float* y);
};

extern const GspmmMicro gspmm_scalar;
extern const GspmmMicro gspmm_avx2;
extern const GspmmMicro gspmm_avx512;
extern const GspmmMicro gspmm_neon;

}  // namespace zs
