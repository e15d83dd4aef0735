// Kernels of integer codes: N of 16 and dense, int8 and int4, one scale a row or a group of columns, every instruction set. The
// reference multiplies the dequantised weights by x as it is; what quantising x may cost is part of the bound.
#include "../runtime/cpu.h"
#include "runs.h"

namespace zs::test {
namespace {

// A matrix whose values are codes times scales, exactly, and the arrays that say so.
struct Codes {
  Matrix matrix;
  std::vector<int8_t> data;
  std::vector<uint8_t> positions;  // of a bitmask its bits
  std::vector<uint16_t> scales;
  Source source{};
};

void quantise(Codes& c, Format format, ValueType type, int64_t group, int64_t n, int64_t m, uint64_t seed) {
  Random random(seed);
  const int64_t rows = c.matrix.rows, cols = c.matrix.cols, groups = group ? (cols + group - 1) / group : 1;
  const int64_t most = type == ValueType::i4 ? 7 : 127;
  for (int64_t i = 0; i < rows * groups; ++i)
    c.scales.push_back(float_to_f16(0.001f + 0.01f * static_cast<float>(random.uniform())));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < cols; ++k) {
      if (format != Format::dense && !c.matrix.has(r, k)) continue;
      int64_t code = random.below(2 * most + 1) - most;
      if (random.below(4) == 0) code = random.below(2) ? most : -most;  // the ends, where sums are largest
      if (type == ValueType::i4 && random.below(16) == 0) code = -8;
      c.data.push_back(static_cast<int8_t>(code));
      c.positions.push_back(static_cast<uint8_t>(m ? k % m : 0));
      c.matrix.values[r * cols + k] = static_cast<float>(code) * f16_to_float(c.scales[r * groups + (group ? k / group : 0)]);
      c.matrix.stored[r * cols + k] = 1;
    }
  }
  if (format == Format::bitmask) {
    const int64_t bytes = (cols + 7) / 8;
    c.positions.assign(rows * bytes, 0);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = 0; k < cols; ++k) {
        uint8_t& byte = c.positions[r * bytes + k / 8];
        if (c.matrix.has(r, k)) byte = static_cast<uint8_t>(byte | 1 << k % 8);
      }
    }
  }
  Source& s = c.source;
  s.format = format;
  s.type = type;
  s.rows = rows;
  s.cols = cols;
  s.r = n;
  s.c = m;
  s.data = c.data.data();
  s.bits = c.positions.data();
  s.scales = c.scales.data();
  s.scale_group = group;
}

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

void sweep(Codes& c, const std::vector<int64_t>& lane_counts, uint64_t seed) {
  for (int64_t lanes : lane_counts) {
    if (!sampled()) continue;
    Inputs in = random_inputs(c.matrix, lanes, seed + static_cast<uint64_t>(lanes));
    Random random(seed + 77);
    in.activation = random.below(2) ? Activation::gelu : Activation::none;
    if (random.below(2)) in.bias.assign(c.matrix.rows, 0.25f);
    if (random.below(2)) in.residual.assign(c.matrix.rows * lanes, -0.5f);
    Reference want = reference(c.matrix, ValueType::f32, false, in);
    allow_for_x(want, c.matrix, in);
    for (const Kernel& kernel : kernels()) {
      if (!isa_usable(kernel.isa) || kernel.type != c.source.type || kernel.format != c.source.format) continue;
      const auto packed = kernel.pack(c.source);
      const std::string what = std::string(kernel.name) + ", " + c.matrix.what + ", scales for " +
                               std::to_string(c.source.scale_group) + " columns, " + std::to_string(lanes) + " lanes: ";
      const bool taken =
          kernel.x == ValueType::i8 || !c.source.scale_group;  // those that multiply in floats have one scale a row
      check((packed != nullptr) == taken, kernel.isa, what + (packed ? "is packed" : "is refused"));
      if (!packed) continue;
      packed->rows = c.matrix.rows;
      packed->cols = c.matrix.cols;
      packed->kernel = &kernel;
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
            Codes c;
            c.matrix = random_nm(rows, cols, nm.first, nm.second, ++seed);
            quantise(c, Format::nm, type, group, nm.first, nm.second, seed);
            sweep(c, rows == 70 && cols == 272 ? kLanes : std::vector<int64_t>{1, 5, 66}, seed);
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
        Codes c;
        c.matrix = random_matrix(shape.first, shape.second, 1.0, ++seed);
        quantise(c, Format::dense, type, group, 0, 0, seed);
        sweep(c, kLanes, seed);
      }
    }
  }
}

ZS_TEST(bitmasks_of_codes) {
  uint64_t seed = 4500;
  for (double density : {0.0, 0.05, 0.5, 0.9, 1.0}) {
    for (ValueType type : {ValueType::i8, ValueType::i4}) {
      for (int64_t group : {0, 32, 128}) {
        for (const auto& shape : {std::pair<int64_t, int64_t>{1, 1}, {7, 31}, {5, 33}, {70, 300}}) {
          Codes c;
          c.matrix = random_matrix(shape.first, shape.second, density, ++seed);
          quantise(c, Format::bitmask, type, group, 0, 0, seed);
          sweep(c, shape.first == 70 ? kLanes : std::vector<int64_t>{1, 5, 66}, seed);
        }
      }
    }
  }
}

ZS_TEST(codes_of_long_rows) {
  // Past what 32 bits hold of products of codes: all of them at their largest.
  Codes c;
  c.matrix = random_matrix(3, 140000, 1.0, 5000);
  quantise(c, Format::dense, ValueType::i8, 0, 0, 0, 5000);
  for (int8_t& code : c.data) code = 127;
  for (int64_t i = 0; i < 3 * 140000; ++i) c.matrix.values[i] = 127 * f16_to_float(c.scales[i / 140000]);
  Inputs in = random_inputs(c.matrix, 2, 5000);
  for (float& v : in.x) v = 1.0f;
  Reference want = reference(c.matrix, ValueType::f32, false, in);
  for (const Kernel& kernel : kernels()) {
    if (!isa_usable(kernel.isa) || kernel.type != ValueType::i8 || kernel.format != Format::dense) continue;
    const auto packed = packed_by(kernel, Held{.source = c.source});
    const std::string wrong = difference(run(*packed, in, Layout::panels), want);
    check(wrong.empty(), kernel.isa, std::string(kernel.name) + " overflows: " + wrong);
  }
}

ZS_TEST(codes_of_what_cannot_be_quantised) {
  Codes c;
  c.matrix = random_nm(6, 64, 8, 16, 6000);
  quantise(c, Format::nm, ValueType::i8, 0, 8, 16, 6000);
  Inputs in = random_inputs(c.matrix, 9, 6000);
  in.x[3 * 9 + 2] = NAN;
  in.x[4 * 9 + 7] = INFINITY;
  in.x[5 * 9 + 8] = 3.402823e38f;  // large, and finite: its results may overflow, but none is NaN
  for (int64_t k = 0; k < 64; ++k) in.x[k * 9 + 5] = 0;
  for (const Kernel& kernel : kernels()) {
    if (!isa_usable(kernel.isa) || kernel.type != ValueType::i8 || kernel.format != Format::nm) continue;
    const auto packed = packed_by(kernel, Held{.source = c.source});
    const Result got = run(*packed, in, Layout::panels);
    for (int64_t r = 0; r < 6; ++r) {
      for (int64_t t = 0; t < 9; ++t) {
        const float y = got.y[r * 9 + t];
        const bool right = t == 2 || t == 7 ? isnan(y) : t == 5 ? y == 0 : t == 8 ? !isnan(y) : isfinite(y);
        check(right, kernel.isa, std::string(kernel.name) + " lane " + std::to_string(t) + " is " + std::to_string(y));
      }
    }
  }
  c.source.zeros = c.data.data();
  for (const Kernel& kernel : kernels()) {
    if (!isa_usable(kernel.isa) || kernel.x != ValueType::i8) continue;
    check(kernel.pack(c.source) == nullptr, kernel.isa, std::string(kernel.name) + " takes zero points");
  }
}

}  // namespace zs::test
