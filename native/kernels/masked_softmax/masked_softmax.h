// Softmax over the entries of each row of a pattern: P[i, j] = e^(s S[i, j] + b[i, j] - m_i) / z_i. README.md has the maths.
#pragma once

#include <stdint.h>

#include "../../runtime/pool.h"
#include "../pattern.h"

namespace zs {

struct SoftmaxArgs {
  Pattern pattern;
  int64_t batches = 0;
  const float* scores = nullptr;  // [batches][entries]
  const float* bias = nullptr;    // null, or of batch n: bias + n * bias_stride
  int64_t bias_stride = 0;        // entries, or 0 where all batches share it
  float scale = 1.0f;
  float* out = nullptr;  // [batches][entries], not overlapping the others
};

// False where a bitmask has another number of bits than entries; nothing is written then.
bool run_masked_softmax(Isa isa, const SoftmaxArgs& args, Pool& pool);

// What is compiled for each instruction set (masked_softmax.inl): one row of n entries that follow each other; bias or null. The
// result may lie where the scores or the bias do.
struct SoftmaxMicro {
  void (*row)(const float* scores, const float* bias, float scale, int64_t n, float* out);
};

extern const SoftmaxMicro masked_softmax_scalar;
extern const SoftmaxMicro masked_softmax_avx2;
extern const SoftmaxMicro masked_softmax_avx512;
extern const SoftmaxMicro masked_softmax_neon;

}  // namespace zs
