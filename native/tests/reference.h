// Matrices in every source format made from one dense array, and the float64 result that kernels are held against.
#pragma once

#include <math.h>

#include "../kernels/kernel.h"
#include "../runtime/numeric.h"
#include "check.h"

namespace zs::test {

constexpr double kU = 0x1p-24;  // unit roundoff of float32

double activate(double v, Activation activation);

// A matrix as values[rows][cols] with a mask of what is stored; a stored entry may be zero.
struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;
  std::vector<uint8_t> stored;
  std::string what;
  // Where values are codes times scales, exactly (`quantised`): the code of every place, and what codes mean.
  std::vector<int8_t> codes{}, zeros{};
  std::vector<uint16_t> scales{};
  int64_t group = 0;

  float at(int64_t r, int64_t c) const { return values[r * cols + c]; }
  bool has(int64_t r, int64_t c) const { return stored[r * cols + c] != 0; }
};

// Owns the arrays that a Source points to.
struct Held {
  Source source{};
  std::vector<float> f32;
  std::vector<uint16_t> f16;
  std::vector<int8_t> codes;
  std::vector<int64_t> indptr;
  std::vector<int32_t> indices, order;
  std::vector<uint8_t> bits, four;
};

Matrix random_matrix(int64_t rows, int64_t cols, double density, uint64_t seed);
Matrix random_blocks(int64_t rows, int64_t cols, int64_t r, int64_t c, double density, uint64_t seed);
Matrix random_nm(int64_t rows, int64_t cols, int64_t n, int64_t m, uint64_t seed);

// The same places with codes of a type, one scale for `group` columns (0: a row) and maybe zero points. A dense kernel takes every
// place: store all of them first.
Matrix quantised(Matrix matrix, ValueType type, int64_t group, bool zeros, uint64_t seed);

// The same entries in a format and a type; values are rounded to the type. `r`, `c`: the block, or n of m; for sell r is the
// height of a slice, and rows are stored from the last to the first. vnm has blocks of one row here. Codes want a matrix that was
// `quantised`, which the result points into.
Held hold(const Matrix& matrix, Format format, ValueType type, int64_t r = 0, int64_t c = 0);

float rounded(float value, ValueType type);
const char* format_name(Format format);
const char* type_name(ValueType type);

// Y = act(A X + bias) + residual in float64 and, beside it, how far a float32 kernel may be from it.
struct Reference {
  int64_t rows = 0, lanes = 0;
  std::vector<double> value, bound;  // [rows][lanes]
};

// What goes in beside the matrix, row-major: x[cols][lanes], bias[rows] or empty, residual[rows][lanes] or empty.
struct Inputs {
  int64_t lanes = 0;
  std::vector<float> x, bias, residual;
  Activation activation = Activation::none;
};

Inputs random_inputs(const Matrix& matrix, int64_t lanes, uint64_t seed);

// `type` is that of the stored values: the reference rounds them first. `dense`: entries that are not stored count as zeros.
Reference reference(const Matrix& matrix, ValueType type, bool dense, const Inputs& inputs);

}  // namespace zs::test
