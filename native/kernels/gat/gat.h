// Attention over the edges of a graph with additive scores, and its pieces (gat.cc drives, gat.inl computes). C headers only.
//
//   s[e, h] = leaky_relu(left[i, h] + right[j, h]),   e the entry (i, j)
//   y[i, h, :] = sum over stored j of row i of softmax_j(s[e, h]) * x[j, h, :]
//
// All arrays are row-major, none overlaps y or out. A row without entries gives zeros.
#pragma once

#include "../gspmm/gspmm.h"

namespace zs {

struct Gat {
  Graph graph;
  const float* x;      // [cols][heads][features]
  const float* left;   // [rows][heads]
  const float* right;  // [cols][heads]
  float slope;         // of leaky_relu below 0
  float* y;            // [rows][heads][features]
  int64_t heads, features;
  int64_t ahead;  // as in Gspmm
};

// Scores of the entries: out[e, h] = softmax over the row of scores[e, h], or left[i, h] + right[j, h].
struct EdgeScores {
  Graph graph;
  const float* scores;  // [entries][heads]; softmax only
  const float* left;
  const float* right;
  float* out;  // [entries][heads]
  int64_t heads;
};

struct GatMicro {
  // `scratch` holds heads * features floats.
  void (*rows)(const Gat&, int64_t begin, int64_t end, float* scratch);
  // A part of one row: most[h] the largest score, sum[h] = sum of e^(s - most), y = the same sum of e^(s - most) * x.
  void (*part)(const Gat&, int64_t row, int64_t first, int64_t last, float* y, float* most, float* sum, float* scratch);
  void (*softmax)(const EdgeScores&, int64_t begin, int64_t end);
  // A part of one row: out = e^(s - most), most and sum as above.
  void (*softmax_part)(const EdgeScores&, int64_t first, int64_t last, float* most, float* sum);
  void (*add)(const EdgeScores&, int64_t begin, int64_t end);
  void (*add_part)(const EdgeScores&, int64_t row, int64_t first, int64_t last);
};

extern const GatMicro gat_scalar;
extern const GatMicro gat_avx2;
extern const GatMicro gat_avx512;
extern const GatMicro gat_neon;

}  // namespace zs
