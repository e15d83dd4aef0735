// Kernels of fixed point: CSR, every instruction set, every lane count, and what would overflow 16 bits if scales were wrong.
#include <memory>

#include "../executor/program.h"
#include "../runtime/cpu.h"
#include "runs.h"

namespace zs::test {
namespace {

// What fixed point may cost (testing/bounds.py derives it): n + 0.6 units a block, here for the largest block there is.
void allow_for_fixed(Reference& want, const Matrix& matrix, const Inputs& in) {
  for (int64_t t = 0; t < in.lanes; ++t) {
    double largest = 0;
    for (int64_t k = 0; k < matrix.cols; ++k) {
      const double size = fabs(in.x[k * in.lanes + t]);
      if (size > largest) largest = size;
    }
    for (int64_t r = 0; r < matrix.rows; ++r) {
      double size = 0, entries = 0;
      for (int64_t k = 0; k < matrix.cols; ++k) {
        if (!matrix.has(r, k)) continue;
        size += fabs(matrix.at(r, k));
        ++entries;
      }
      const double n = entries < 256 ? entries : 256;
      const double share = (n + 0.6) * 32768 / (32767 * (32767 - n)) + 40 * kU;
      want.bound[r * in.lanes + t] += 1.13 * share * size * largest;
    }
  }
}

template <class Body> void each_fixed(const Held& held, Body&& body) {
  int64_t found = 0;
  for (const Kernel& kernel : kernels()) {
    if (kernel.x != XType::i16 || kernel.type != ValueType::f32 || !isa_usable(kernel.isa)) continue;
    const auto packed = packed_by(kernel, held);
    check(packed != nullptr, kernel.isa, std::string(kernel.name) + " does not pack");
    if (packed) body(kernel, *packed);
    ++found;
  }
  check(found > 0, "there is no kernel of fixed point");
}

void sweep(const Matrix& matrix, const std::vector<int64_t>& lane_counts, uint64_t seed) {
  const Held held = hold(matrix, Format::csr, ValueType::f32);
  for (int64_t lanes : lane_counts) {
    if (!sampled()) continue;
    Inputs in = random_inputs(matrix, lanes, seed + static_cast<uint64_t>(lanes));
    Random random(seed + 5);
    in.activation = random.below(2) ? Activation::gelu : Activation::none;
    if (random.below(2)) in.bias.assign(matrix.rows, 0.25f);
    if (random.below(2)) in.residual.assign(matrix.rows * lanes, -0.5f);
    Reference want = reference(matrix, ValueType::f32, false, in);
    allow_for_fixed(want, matrix, in);
    each_fixed(held, [&](const Kernel& kernel, const Packed& packed) {
      for (Layout layout : {Layout::panels, Layout::padded}) {
        if (layout != Layout::panels && lanes == 1) continue;
        const std::string wrong = difference(run(packed, in, layout), want);
        check(wrong.empty(), kernel.isa,
              std::string(kernel.name) + ", " + matrix.what + ", " + std::to_string(lanes) + " lanes: " + wrong);
      }
    });
  }
}

const std::vector<int64_t> kLanes = {1, 2, 7, 8, 9, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 100, 130};

}  // namespace

ZS_TEST(fixed_point) {
  uint64_t seed = 7000;
  for (double density : {0.0, 0.03, 0.2, 0.5, 1.0}) {
    for (const auto& shape :
         {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {17, 65}, {33, 191}, {40, 193}, {300, 257}, {20, 1100}}) {
      const Matrix m = random_matrix(shape.first, shape.second, density, ++seed);
      sweep(m, shape.first == 40 ? kLanes : std::vector<int64_t>{1, 5, 66}, seed);
    }
  }
}

ZS_TEST(fixed_point_does_not_overflow) {
  // All weights and all of x as large as they get, and of one sign: the sum of a block is as near to 2^15 as it can be.
  for (int64_t cols : {1, 2, 100, 192, 256, 600}) {
    Matrix m = random_matrix(5, cols, 1.0, 7500);
    for (int64_t i = 0; i < 5 * cols; ++i) m.values[i] = i / cols % 2 ? -3.0f : 3.0f;
    Inputs in = random_inputs(m, 66, 7500);
    for (size_t i = 0; i < in.x.size(); ++i) in.x[i] = i % 2 ? -7.0f : 7.0f;
    Reference want = reference(m, ValueType::f32, false, in);
    allow_for_fixed(want, m, in);
    const Held held = hold(m, Format::csr, ValueType::f32);
    each_fixed(held, [&](const Kernel& kernel, const Packed& packed) {
      const std::string wrong = difference(run(packed, in, Layout::panels), want);
      check(wrong.empty(), kernel.isa, std::string(kernel.name) + " with " + std::to_string(cols) + " columns: " + wrong);
    });
  }
}

ZS_TEST(fixed_point_of_what_has_no_scale) {
  Matrix m = random_matrix(6, 64, 0.5, 7600);
  for (int64_t k = 0; k < 64; ++k) m.stored[4 * 64 + k] = 0;  // an empty row
  for (int64_t k = 0; k < 64; ++k) m.values[5 * 64 + k] = 1e-40f;
  const Held held = hold(m, Format::csr, ValueType::f32);
  Inputs in = random_inputs(m, 9, 7600);
  in.x[3 * 9 + 2] = NAN;
  in.x[4 * 9 + 7] = INFINITY;
  for (int64_t k = 0; k < 64; ++k) in.x[k * 9 + 5] = k % 2 ? 1e-42f : 0;
  each_fixed(held, [&](const Kernel& kernel, const Packed& packed) {
    const Result got = run(packed, in, Layout::panels);
    for (int64_t r = 0; r < 6; ++r) {
      for (int64_t t = 0; t < 9; ++t) {
        const float y = got.y[r * 9 + t];
        const bool right = t == 2 || t == 7 ? isnan(y) : t == 5 || r >= 4 ? y == 0 : isfinite(y);
        check(
            right, kernel.isa,
            std::string(kernel.name) + " row " + std::to_string(r) + " lane " + std::to_string(t) + " is " + std::to_string(y));
      }
    }
  });
}

// Products of one x share its codes, and must not once something else wrote to the buffer.
ZS_TEST(codes_of_x_are_shared_until_it_changes) {
  const int64_t features = 70, rows = 40, entries = 11;
  const Held held = hold(random_matrix(rows, features, 0.4, 7600), Format::csr, ValueType::f32);
  const Matrix matrix = quantised(random_matrix(rows, features, 1.0, 7601), ValueType::i8, 0, false, 7601);  // holds the scales
  const Held other = hold(matrix, Format::dense, ValueType::i8);
  std::vector<float> tables[2];
  for (std::vector<float>& table : tables) {
    Random random(7602 + (&table - tables));
    for (int64_t i = 0; i < entries * features; ++i) table.push_back(random.symmetric());
  }
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 100; ++i) ids.push_back(i * 7 % static_cast<int32_t>(entries));
  const int64_t offsets[] = {0, 100};
  Batch batch;
  batch.ids = ids.data();
  batch.tokens = 100;
  batch.offsets = offsets;
  batch.sequences = 1;
  for (const Kernel& kernel : kernels()) {
    const bool fixed = kernel.x == XType::i16 && kernel.type == ValueType::f32;
    const bool codes = kernel.x == XType::i8 && kernel.format == Format::dense && kernel.type == ValueType::i8;
    if ((!fixed && !codes) || !isa_usable(kernel.isa)) continue;
    const std::shared_ptr<Packed> packed = packed_by(kernel, fixed ? held : other);
    Program program;
    program.buffers = {features, rows, rows, rows};
    for (int b = 0; b < 4; ++b) program.slices.push_back({b, 0, program.buffers[b]});
    const auto embed = [&](const std::vector<float>& table) {
      Step step;
      step.op = Op::embed;
      step.out = 0;
      step.table = table.data();
      step.entries = entries;
      program.steps.push_back(step);
    };
    const auto multiply = [&](int out) {
      Step step;
      step.op = Op::linear;
      step.in = 0;
      step.out = out;
      step.variants = {{INT64_MAX, packed}};
      program.steps.push_back(step);
    };
    embed(tables[0]);
    multiply(1);
    multiply(2);
    embed(tables[1]);
    multiply(3);
    const std::string wrong = program.check();
    check(wrong.empty(), kernel.isa, std::string(kernel.name) + ": " + wrong);
    std::vector<std::vector<float>> together(3, std::vector<float>(rows * 100)), alone = together;
    program.run(batch, {1, 2, 3}, {together[0].data(), together[1].data(), together[2].data()}, nullptr, true);
    for (int i = 0; i < 3; ++i) program.run(batch, {i + 1}, {alone[i].data()}, nullptr, true);
    check(together == alone, kernel.isa, std::string(kernel.name) + " takes old codes for a new x");
    check(together[0] == together[1] && together[1] != together[2], kernel.isa,
          std::string(kernel.name) + ": x or its change is lost");
  }
}

}  // namespace zs::test
