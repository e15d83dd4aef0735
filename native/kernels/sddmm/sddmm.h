// SDDMM: S[i, j] = alpha sum over k of A[i, k] B[k, j], for the entries (i, j) of a pattern, times the pattern's values if given.
// README.md has the maths, the bound and why it is done this way.
#pragma once

#include <stdint.h>

#include "../../runtime/pool.h"
#include "../pattern.h"

namespace zs {

struct SddmmTiles;

// B is read as rows of its transpose: b[j * ldb + k]. Strides and offsets count elements. Nothing may overlap `out`.
struct SddmmArgs {
  Pattern pattern;
  const SddmmTiles* tiles = nullptr;  // what `find_tiles` made of the pattern, which is then not read; or null
  ValueType type = ValueType::f32;  // of a and b: f32 or bf16
  int64_t depth = 0;
  int64_t batches = 0;
  const void* a = nullptr;
  const int64_t* a_at = nullptr;  // [batches], where each begins
  int64_t lda = 0;
  const void* b = nullptr;
  const int64_t* b_at = nullptr;
  int64_t ldb = 0;
  float alpha = 1.0f;
  const float* values = nullptr;  // [entries] or null
  float* out = nullptr;  // [batches][entries]
};

// False where a bitmask has another number of bits than entries; nothing is written then.
bool run_sddmm(Isa isa, const SddmmArgs& args, Pool& pool);

// One row of a, and the rows of B^T that its entries name.
struct SddmmRow {
  const void* a;
  const void* b;
  int64_t ldb;
  int64_t depth;
  const void* cols;
  int64_t count;
  int64_t readable;  // columns from `cols` on that may be asked for ahead; 0: B is in a cache anyway
  float* out;
};

// One vector, and rows that follow each other: out[j * step] = x . y[j].
struct SddmmRun {
  const void* x;
  const void* y;
  int64_t ldy;
  int64_t depth;
  int64_t count;
  float* out;
  int64_t step;
};

// Entries of records (sddmm_tiles.h), of one matrix of a batch.
struct SddmmListed {
  const void* a;
  int64_t lda;
  const void* b;
  int64_t ldb;
  int64_t depth;
  const void* records;
  int64_t count;
  float alpha;
  const float* values;  // or null
  float* out;
};

// What is compiled for each instruction set (sddmm.inl).
struct SddmmMicro {
  void (*row[2][3])(const SddmmRow&);  // [f32, bf16][IndexType]
  void (*run[2])(const SddmmRun&);
  int64_t (*count)(const uint8_t* bits, int64_t bytes);
  // The columns of the set bits; returns how many.
  int64_t (*columns)(const uint8_t* bits, int64_t bytes, int32_t* out);
  void (*scale)(float* out, const float* values, float alpha, int64_t n);  // values or null
  void (*listed[3][2][2])(const SddmmListed&);  // [tiles, eights, mixed][f32, bf16][u16, i32]
};

extern const SddmmMicro sddmm_scalar;
extern const SddmmMicro sddmm_avx2;
extern const SddmmMicro sddmm_avx512;
extern const SddmmMicro sddmm_neon;

}  // namespace zs
