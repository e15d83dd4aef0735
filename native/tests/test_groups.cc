// Kernels of integer sums: N of 16 and dense, int8 and int4, one scale a row or a group of columns, every instruction set. The
// reference multiplies the dequantised weights by x as it is; what quantising x may cost is part of the bound.
#include "../runtime/cpu.h"
#include "runs.h"

namespace zs::test {
namespace {

// Half a code of x in every term, and the rounding of the code's scale (testing/bounds.py derives it).
void allow_for_x(Reference& want, const Matrix& matrix, const Inputs& in) {
  for (int64_t t = 0; t < in.lanes; ++t) {
    double largest = 0;
    for (int64_t k = 0; k < matrix.cols; ++k) {  // not fmax: a compiler for Arm (GCC 12) fails to vectorise it
      const double size = fabs(in.x[k * in.lanes + t]);
      if (size > largest) largest = size;
    }
    for (int64_t r = 0; r < matrix.rows; ++r) {
      double size = 0;
      for (int64_t k = 0; k < matrix.cols; ++k) size += fabs(matrix.at(r, k));
      want.bound[r * in.lanes + t] += 1.13 * size * largest / 127 * (0.5 + 127 * 4 * kU);
    }
  }
}

bool runs(const Kernel& kernel, Format format, ValueType type) {
  return kernel.x == XType::i8 && isa_usable(kernel.isa) && kernel.type == type && kernel.format == format;
}

void sweep(const Matrix& matrix, const Held& held, const std::vector<int64_t>& lane_counts, uint64_t seed) {
  for (int64_t lanes : lane_counts) {
    if (!sampled()) continue;
    Inputs in = random_inputs(matrix, lanes, seed + static_cast<uint64_t>(lanes));
    Random random(seed + 77);
    in.activation = random.below(2) ? Activation::gelu : Activation::none;
    if (random.below(2)) in.bias.assign(matrix.rows, 0.25f);
    if (random.below(2)) in.residual.assign(matrix.rows * lanes, -0.5f);
    Reference want = reference(matrix, ValueType::f32, false, in);
    allow_for_x(want, matrix, in);
    for (const Kernel& kernel : kernels()) {
      if (!runs(kernel, held.source.format, held.source.type)) continue;
      const auto packed = packed_by(kernel, held);
      const std::string what = std::string(kernel.name) + ", " + matrix.what + ", " + std::to_string(lanes) + " lanes: ";
      check(packed != nullptr, kernel.isa, what + "is refused");
      if (!packed) continue;
      for (Layout layout : {Layout::panels, Layout::padded}) {
        if (layout != Layout::panels && lanes == 1) continue;
        const std::string wrong = difference(run(*packed, in, layout), want);
        check(wrong.empty(), kernel.isa, what + wrong);
      }
    }
  }
}

const std::vector<int64_t> kLanes = {1, 2, 3, 4, 5, 8, 9, 33, 64, 65, 130};

}  // namespace

ZS_TEST(groups_of_codes) {
  uint64_t seed = 3000;
  for (const auto& nm :
       {std::pair<int64_t, int64_t>{8, 16}, {4, 16}, {1, 16}, {3, 16}, {9, 16}, {13, 16}, {16, 16}, {2, 4}, {1, 2}, {4, 8}}) {
    for (ValueType type : {ValueType::i8, ValueType::i4}) {
      for (int64_t group : {0, 32, 64, 128}) {
        for (int64_t rows : {1, 7, 70}) {
          for (int64_t cols : {16, 48, 272}) {
            ++seed;
            const Matrix m = quantised(random_nm(rows, cols, nm.first, nm.second, seed), type, group, false, seed);
            const Held held = hold(m, Format::nm, type, nm.first, nm.second);
            sweep(m, held, rows == 70 && cols == 272 ? kLanes : std::vector<int64_t>{1, 5, 66}, seed);
          }
        }
      }
    }
  }
}

ZS_TEST(dense_codes) {
  uint64_t seed = 4000;
  for (ValueType type : {ValueType::i8, ValueType::i4}) {
    for (int64_t group : {0, 32, 128}) {
      for (const auto& shape : {std::pair<int64_t, int64_t>{1, 1}, {5, 17}, {33, 100}, {64, 300}}) {
        ++seed;
        const Matrix m = quantised(random_matrix(shape.first, shape.second, 1.0, seed), type, group, false, seed);
        sweep(m, hold(m, Format::dense, type), kLanes, seed);
      }
    }
  }
}

ZS_TEST(bitmasks_of_codes) {
  uint64_t seed = 4500;
  for (double density : {0.0, 0.05, 0.5, 0.9, 1.0}) {
    for (ValueType type : {ValueType::i8, ValueType::i4}) {
      for (int64_t group : {0, 32, 96, 128}) {
        for (const auto& shape : {std::pair<int64_t, int64_t>{1, 1}, {7, 31}, {5, 33}, {70, 300}}) {
          ++seed;
          const Matrix m = quantised(random_matrix(shape.first, shape.second, density, seed), type, group, false, seed);
          const Held held = hold(m, Format::bitmask, type);
          sweep(m, held, shape.first == 70 ? kLanes : std::vector<int64_t>{1, 5, 66}, seed);
        }
      }
    }
  }
}

ZS_TEST(codes_of_long_rows) {
  // Past what 32 bits hold of products of codes: all of them at their largest.
  Matrix m = quantised(random_matrix(3, 140000, 1.0, 5000), ValueType::i8, 0, false, 5000);
  for (int8_t& code : m.codes) code = 127;
  for (int64_t i = 0; i < 3 * 140000; ++i) m.values[i] = 127 * f16_to_float(m.scales[i / 140000]);
  const Held held = hold(m, Format::dense, ValueType::i8);
  Inputs in = random_inputs(m, 2, 5000);
  for (float& v : in.x) v = 1.0f;
  Reference want = reference(m, ValueType::f32, false, in);
  for (const Kernel& kernel : kernels()) {
    if (!runs(kernel, Format::dense, ValueType::i8)) continue;
    const auto packed = packed_by(kernel, held);
    const std::string wrong = difference(run(*packed, in, Layout::panels), want);
    check(wrong.empty(), kernel.isa, std::string(kernel.name) + " overflows: " + wrong);
  }
}

ZS_TEST(codes_of_what_cannot_be_quantised) {
  const Matrix m = quantised(random_nm(6, 64, 8, 16, 6000), ValueType::i8, 0, false, 6000);
  Held held = hold(m, Format::nm, ValueType::i8, 8, 16);
  Inputs in = random_inputs(m, 9, 6000);
  in.x[3 * 9 + 2] = NAN;
  in.x[4 * 9 + 7] = INFINITY;
  in.x[5 * 9 + 8] = 3.402823e38f;  // large, and finite: its results may overflow, but none is NaN
  for (int64_t k = 0; k < 64; ++k) in.x[k * 9 + 5] = 0;
  for (const Kernel& kernel : kernels()) {
    if (!runs(kernel, Format::nm, ValueType::i8)) continue;
    const auto packed = packed_by(kernel, held);
    const Result got = run(*packed, in, Layout::panels);
    for (int64_t r = 0; r < 6; ++r) {
      for (int64_t t = 0; t < 9; ++t) {
        const float y = got.y[r * 9 + t];
        const bool right = t == 2 || t == 7 ? isnan(y) : t == 5 ? y == 0 : t == 8 ? !isnan(y) : isfinite(y);
        check(right, kernel.isa, std::string(kernel.name) + " lane " + std::to_string(t) + " is " + std::to_string(y));
      }
    }
  }
  held.source.zeros = held.codes.data();
  for (const Kernel& kernel : kernels()) {
    if (!isa_usable(kernel.isa) || kernel.x != XType::i8) continue;
    check(kernel.pack(held.source) == nullptr, kernel.isa, std::string(kernel.name) + " takes zero points");
  }
}

}  // namespace zs::test
