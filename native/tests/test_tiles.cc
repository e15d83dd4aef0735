// Tiles of bfloat16, emulated, and with AMX where there is one: what the tests of all kernels do not reach.
#include <thread>

#include "../runtime/cpu.h"
#include "runs.h"
#include "tiles_emulated.h"

namespace zs::test {
namespace {

// The kernels of tiles that can run here.
std::vector<const Kernel*> tiles() {
  std::vector<const Kernel*> found;
  for (const Kernel& kernel : emulated_tiles()) found.push_back(&kernel);
  for (const Kernel& kernel : kernels()) {
    if (kernel.x == XType::bf16 && isa_usable(kernel.isa)) found.push_back(&kernel);
  }
  return found;
}

void compare(const Kernel& kernel, const Matrix& m, const Held& held, const Inputs& in, const Reference& want,
             const std::string& what) {
  const auto packed = packed_by(kernel, held);
  const std::string wrong = difference(run(*packed, in, Layout::panels), want);
  check(wrong.empty(), kernel.isa, std::string(kernel.name) + ", " + m.what + ", " + what + wrong);
}

__attribute__((noinline)) void litter() {
  volatile float junk[1 << 14];
  for (volatile float& v : junk) v = NAN;
}

}  // namespace

ZS_TEST(tiles_past_every_block) {
  // More than one task of rows, block of columns and group of panels, and one past the end of each; x that fits the second
  // cache, and x that does not.
  const struct {
    int64_t rows, cols, lanes;
    double density;
  } shapes[] = {{129, 513, 64, 0.5}, {257, 1100, 130, 0.1}, {40, 300, 577, 0.9},
                {16, 512, 512, 1.0}, {32, 1056, 520, 0.02}, {97, 1600, 577, 0.3}};
  for (const auto& s : shapes) {
    const Matrix m = random_matrix(s.rows, s.cols, s.density, 91);
    const Held held = hold(m, Format::csr, ValueType::f32);
    Inputs in = random_inputs(m, s.lanes, 92);
    for (float& v : in.x) v = rounded(v, ValueType::bf16);
    in.bias.assign(m.rows, 0.5f);
    for (const Kernel* kernel : tiles()) {
      const Reference want = reference(m, ValueType::bf16, kernel->format == Format::dense, in);
      compare(*kernel, m, held, in, want, std::to_string(s.lanes) + " lanes: ");
    }
  }
  check(tile_misuses() == 0, "tiles are used where they have no shape");
}

ZS_TEST(tiles_round_x_to_nearest_even) {
  // One entry of 1 a row: Y is the rounded X, to the bit.
  const int64_t n = 1 << 12;
  Matrix m{1, 1, {1.0f}, {1}, "a single one"};
  const Held held = hold(m, Format::csr, ValueType::f32);
  Inputs in = random_inputs(m, n, 5);
  Random random(6);
  for (float& v : in.x) {
    const auto bits = static_cast<uint32_t>(random.bits());
    v = bits_to_float(random.below(4) ? bits : (bits & 0xffff0000u) | 0x8000u);  // a quarter of them: half-way between two
    if (!isfinite(v) || fabsf(v) < 0x1p-125f || fabsf(v) > 3e38f) v = 1.00390625f;
  }
  for (const Kernel* kernel : tiles()) {
    const auto packed = packed_by(*kernel, held);
    const Result got = run(*packed, in, Layout::panels);
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; ++i) wrong += got.y[i] != bf16_to_float(float_to_bf16(in.x[i]));
    check(wrong == 0, kernel->isa, std::string(kernel->name) + " rounds " + std::to_string(wrong) + " values otherwise");
  }
}

ZS_TEST(tiles_take_what_bfloat16_cannot_hold) {
  // A finite x that rounds to infinity stays as it is, in its own panel; an infinite one meets stored entries alone.
  Matrix m = random_matrix(37, 70, 0.3, 7);
  for (float& v : m.values) v *= 0.25f;  // so that results stay finite
  const Held held = hold(m, Format::csr, ValueType::f32);
  for (const float big : {3.4028e38f, -3.3961776e38f, INFINITY, NAN}) {
    Inputs in = random_inputs(m, 130, 8);
    for (float& v : in.x) v = rounded(v, ValueType::bf16);
    in.x[69 * in.lanes + 70] = big;
    for (const Kernel* kernel : tiles()) {
      const Reference want = reference(m, ValueType::bf16, kernel->format == Format::dense, in);
      compare(*kernel, m, held, in, want, "x of " + std::to_string(big) + ": ");
    }
  }
}

ZS_TEST(tiles_of_no_columns_are_zeros) {
  const Matrix m{20, 0, {}, {}, "no columns"};
  const Held held = hold(m, Format::csr, ValueType::f32);
  Inputs in;
  in.lanes = 24;
  in.bias.assign(20, 0.25f);
  for (const Kernel* kernel : tiles()) {
    const auto packed = packed_by(*kernel, held);
    Result got;
    std::thread([&] {  // one that has no room for x from an earlier call, and no zeros on its stack
      litter();
      got = run(*packed, in, Layout::panels);
    })
        .join();
    for (float y : got.y) check(y == 0.25f, kernel->isa, std::string(kernel->name) + " of nothing");
  }
}

ZS_TEST(tiles_of_a_mask_are_small) {
  const Matrix m = random_matrix(256, 512, 0.5, 9);
  const Held held = hold(m, Format::csr, ValueType::f32);
  const int64_t nnz = held.indptr.back(), dense = 2 * m.rows * m.cols;
  const auto whole = packed_by(emulated_tiles()[0], held), masked = packed_by(emulated_tiles()[1], held);
  check(whole->bytes() >= dense && whole->bytes() < dense + 1024, "a dense matrix takes two bytes a place");
  check(masked->bytes() >= 2 * nnz + dense / 16 && masked->bytes() < 2 * nnz + dense / 16 + 1024,
        "a bitmask takes two bytes an entry and a bit a place");
}

}  // namespace zs::test
