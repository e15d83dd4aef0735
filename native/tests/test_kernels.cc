// Every kernel of the table that can run here, against the float64 reference and within the error bound: shapes around
// every tile, all densities, lanes with and without padding, panels and row-major output, bias, activation, residual.
#include <string.h>

#include <memory>

#include "../runtime/cpu.h"
#include "runs.h"
#include "tiles_emulated.h"

namespace zs::test {
namespace {

std::string label(const Kernel& kernel, const Matrix& matrix, const Held& held, const Inputs& in, Layout layout) {
  static const char* const names[] = {"", ", row-major", ", rows as they are", ", tokens as they are"};
  return std::string(kernel.name) + ", " + matrix.what + " from " + format_name(held.source.format) + " " +
         type_name(held.source.type) + ", " + std::to_string(in.lanes) + " lanes" + names[static_cast<int>(layout)] +
         (in.bias.empty() ? "" : ", bias") + (in.residual.empty() ? "" : ", residual") + ", activation " +
         std::to_string(static_cast<int>(in.activation)) + ": ";
}

// What a kernel promises to pack: scalar ones, csr, bitmask and dense take every format, the others their own. Codes are for kernels
// of their type; those for one lane have one scale a row.
bool takes(const Kernel& kernel, const Source& source) {
  if (is_code(kernel.type) != is_code(source.type)) return false;
  if (is_code(kernel.type) && kernel.type != source.type) return false;
  const std::string name = kernel.name;
  if (is_code(kernel.type) && name.ends_with("_n1") && (source.scale_group || source.zeros)) return false;
  if (kernel.isa == Isa::scalar) return true;
  if (kernel.format == Format::nm) return source.format == Format::nm;
  if (kernel.format == Format::bsr) return source.format == Format::bsr && source.r % 4 == 0;
  return true;
}

// Those of the table, and tiles without their instructions.
const std::vector<Kernel>& all_kernels() {
  static const std::vector<Kernel> all = [] {
    std::vector<Kernel> found = kernels();
    found.insert(found.end(), emulated_tiles().begin(), emulated_tiles().end());
    return found;
  }();
  return all;
}

// Every kernel that runs here and takes this matrix, packed. One that takes it and does not pack, or packs what it should
// refuse, is a failure. Kernels of integer sums and of fixed point are the affair of test_groups.cc and test_fixed.cc.
template <class Body> void each_packed(const Held& held, const Matrix& matrix, Body&& body) {
  for (const Kernel& kernel : all_kernels()) {
    if (!isa_usable(kernel.isa) || kernel.x == XType::i16) continue;
    if (kernel.x == XType::i8 && is_code(held.source.type)) continue;
    const auto packed = packed_by(kernel, held);
    const bool right = (packed != nullptr) == takes(kernel, held.source);
    check(right, kernel.isa,
          std::string(kernel.name) + (packed ? " packs " : " refuses ") + matrix.what + " from " +
              format_name(held.source.format));
    if (packed) body(kernel, *packed);
  }
}

// The reference of a kernel's own value type, and of x as it rounds it, made once per type.
class References {
 public:
  References(const Matrix& matrix, const Inputs& in) : matrix_(matrix), in_(in), rounded_(in) {
    for (float& v : rounded_.x) {
      const float near = rounded(v, ValueType::bf16);
      v = isfinite(near) ? near : v;
    }
  }
  const Reference& of(const Kernel& kernel) { return of(kernel, kernel.format == Format::dense); }
  const Reference& of(const Kernel& kernel, bool dense) {
    const bool round = kernel.x == XType::bf16;
    auto& slot = made_[static_cast<int>(kernel.type)][dense][round];
    if (!slot) slot = std::make_unique<Reference>(reference(matrix_, kernel.type, dense, round ? rounded_ : in_));
    return *slot;
  }

 private:
  const Matrix& matrix_;
  const Inputs& in_;
  Inputs rounded_;
  std::unique_ptr<Reference> made_[5][2][2];
};

// A matrix as it is handed to kernels.
struct Form {
  Matrix matrix;
  Held held;
  Form(Matrix m, Format format, ValueType type, int64_t r, int64_t c) : matrix(std::move(m)) {
    held = hold(matrix, format, type, r, c);
  }
  Form(const Form&) = delete;  // what is held points into the matrix
};

constexpr int64_t kGroups[] = {0, 32, 64, 128};

// Numbers, and codes of 8 and of 4 bits at the same places; whose scales and zero points the seed decides.
template <class Body> void each_form(const Matrix& matrix, Format format, int64_t r, int64_t c, uint64_t seed, Body&& body) {
  body(Form(matrix, format, ValueType::f32, r, c));
  for (ValueType type : {ValueType::i8, ValueType::i4}) {
    const uint64_t kind = seed + (type == ValueType::i4 ? 3 : 0);
    body(Form(quantised(matrix, type, kGroups[kind % 4], kind / 4 % 2, seed), format, type, r, c));
  }
}

void sweep_form(const Matrix& matrix, const Held& held, const std::vector<int64_t>& lane_counts, uint64_t seed) {
  for (int64_t lanes : lane_counts) {
    if (!sampled()) continue;
    Inputs in = random_inputs(matrix, lanes, seed + static_cast<uint64_t>(lanes));
    Random random(seed * 31 + static_cast<uint64_t>(lanes));
    in.activation = static_cast<Activation>(random.below(6));
    if (random.below(2)) in.bias.resize(matrix.rows);
    if (random.below(2)) in.residual.resize(matrix.rows * lanes);
    for (float& v : in.bias) v = random.symmetric();
    for (float& v : in.residual) v = random.symmetric();
    References references(matrix, in);
    each_packed(held, matrix, [&](const Kernel& kernel, const Packed& packed) {
      for (Layout layout : {Layout::panels, Layout::padded, Layout::rows, Layout::tokens}) {
        if (layout != Layout::panels && lanes == 1) continue;  // one lane is all of them
        if (layout > Layout::padded && !kernel.run.any_layout()) continue;
        const Reference& want = references.of(kernel);
        const std::string wrong = difference(run(packed, in, layout), want);
        check(wrong.empty(), kernel.isa, label(kernel, matrix, held, in, layout) + wrong);
      }
    });
  }
}

// One matrix, some lanes, every kernel that takes it: from CSR unless said otherwise.
void sweep(const Matrix& matrix, const std::vector<int64_t>& lane_counts, uint64_t seed, Format format = Format::csr,
           int64_t r = 0, int64_t c = 0) {
  each_form(matrix, format, r, c, seed, [&](const Form& form) { sweep_form(form.matrix, form.held, lane_counts, seed); });
}

const std::vector<int64_t> kLanes = {1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 100, 128, 130};

}  // namespace

ZS_TEST(kernel_table_is_consistent) {
  for (const Kernel& kernel : kernels()) {
    const std::string name = std::string("spmm_") + format_name(kernel.format) + "_" + type_name(kernel.type) +
                             (kernel.x == XType::i8    ? "_i32acc_"
                              : kernel.x == XType::i16 ? "_i16acc_"
                                                       : "_") +
                             isa_name(kernel.isa);
    const std::string tile = std::string(kernel.name).compare(0, name.size(), name) ? "?" : kernel.name + name.size();
    check(tile.empty() || tile.rfind("_n", 0) == 0, std::string(kernel.name) + " is not named by its format, type and isa");
    check(find_kernel(kernel.name) == &kernel, std::string(kernel.name) + " stands in the table twice");
    check(kernel.doc && strlen(kernel.doc) > 5, std::string(kernel.name) + " has no doc");
  }
  check(find_kernel("spmm_csr_f32_abacus") == nullptr, "a kernel is found that nobody wrote");
}

ZS_TEST(kernel_selected_isa_has_kernels) {
  // A processor whose instruction set nothing was written for would silently run scalar code.
  for (Isa isa : cpu().found) {
    if (!isa_usable(isa)) continue;
    int64_t count = 0;
    for (const Kernel& kernel : kernels()) count += kernel.isa == isa;
    check(count > 0, isa, std::string(isa_name(isa)) + " is found here and has no kernel");
    printf("  %s: %lld kernels\n", isa_name(isa), static_cast<long long>(count));
  }
}

ZS_TEST(kernel_shapes) {
  const int64_t shapes[][2] = {{1, 1},   {1, 40},  {40, 1},  {7, 9},   {8, 8},  {9, 17},
                               {16, 15}, {17, 33}, {31, 64}, {64, 63}, {65, 65}};
  uint64_t seed = 1;
  for (const auto& shape : shapes) {
    for (double density : {0.0, 0.1, 0.5, 1.0}) sweep(random_matrix(shape[0], shape[1], density, ++seed), kLanes, seed);
  }
}

ZS_TEST(kernel_blocking) {
  // Past every block of columns and rows, where carrying a sum from block to block goes wrong first.
  uint64_t seed = 1000;
  for (const auto& shape : {std::pair<int64_t, int64_t>{130, 300}, {300, 1100}, {33, 2049}}) {
    for (double density : {0.02, 0.2, 0.6}) {
      sweep(random_matrix(shape.first, shape.second, density, ++seed), {1, 8, 32, 65, 136}, seed);
    }
  }
}

ZS_TEST(kernel_blocks_and_groups) {
  uint64_t seed = 2000;
  for (const auto& block : {std::pair<int64_t, int64_t>{4, 1}, {4, 4}, {8, 3}, {16, 1}, {8, 32}, {1, 4}, {6, 2}}) {
    for (double density : {0.0, 0.2, 1.0}) {
      const int64_t rows = block.first * 11, cols = block.second * 13;
      sweep(random_blocks(rows, cols, block.first, block.second, density, ++seed), kLanes, seed, Format::bsr, block.first,
            block.second);
    }
    sweep(random_blocks(block.first * 40, block.second * 400, block.first, block.second, 0.2, ++seed), {1, 9, 136}, seed,
          Format::bsr, block.first, block.second);
  }
  for (const auto& group : {std::pair<int64_t, int64_t>{2, 4}, {1, 2}, {1, 4}, {4, 8}, {3, 7}, {8, 16}, {16, 16}, {5, 32}}) {
    for (int64_t rows : {1, 13, 70}) {
      sweep(random_nm(rows, group.second * 9, group.first, group.second, ++seed), kLanes, seed, Format::nm, group.first,
            group.second);
    }
    sweep(random_nm(130, group.second * 140, group.first, group.second, ++seed), {1, 9, 136}, seed, Format::nm, group.first,
          group.second);
  }
}

ZS_TEST(kernel_wide) {
  // Columns beyond 16 bits.
  sweep(random_matrix(5, 70000, 0.01, 7), {1, 9}, 7);
}

ZS_TEST(kernel_uneven_rows) {
  Matrix m = random_matrix(70, 200, 0.05, 11);
  m.what = "uneven rows";
  for (int64_t c = 0; c < m.cols; ++c) {
    m.values[3 * m.cols + c] = 0.5f - static_cast<float>(c % 7) / 8;
    m.stored[3 * m.cols + c] = 1;
    for (int64_t empty : {0, 4, 5, 6, 7, 8, 69}) m.stored[empty * m.cols + c] = 0, m.values[empty * m.cols + c] = 0;
  }
  sweep(m, kLanes, 11);
}

ZS_TEST(kernel_every_activation) {
  const Matrix m = random_matrix(24, 40, 0.4, 13);
  for (int activation = 0; activation < 6; ++activation) {
    Inputs in = random_inputs(m, 40, 13);
    for (float& v : in.x) v *= 12;  // far into both tails
    in.activation = static_cast<Activation>(activation);
    References references(m, in);
    const Held held = hold(m, Format::csr, ValueType::f32);
    each_packed(held, m, [&](const Kernel& kernel, const Packed& packed) {
      const std::string wrong = difference(run(packed, in, Layout::panels), references.of(kernel));
      check(wrong.empty(), kernel.isa, label(kernel, m, held, in, Layout::panels) + wrong);
    });
  }
}

ZS_TEST(kernel_nan_and_inf_stay_in_their_lane) {
  const Matrix sample = random_matrix(20, 30, 0.3, 17);
  for (float poison : {NAN, INFINITY}) {
    Inputs in = random_inputs(sample, 24, 17);
    in.x[4 * in.lanes + 5] = poison;
    in.x[29 * in.lanes + 23] = poison;
    each_form(sample, Format::csr, 0, 0, 17, [&](const Form& form) {
      const Matrix& m = form.matrix;
      References references(m, in);
      each_packed(form.held, m, [&](const Kernel& kernel, const Packed& packed) {
        const Result got = run(packed, in, Layout::panels);
        Reference want = references.of(kernel, false);
        // A dense kernel may or may not multiply the poison by the zeros of its matrix: there only the other lanes count.
        for (int64_t r = 0; kernel.format == Format::dense && r < m.rows; ++r) {
          for (int64_t t : {int64_t{5}, int64_t{23}}) want.value[r * in.lanes + t] = got.y[r * in.lanes + t];
        }
        const std::string wrong = difference(got, want);
        check(wrong.empty(), kernel.isa, label(kernel, m, form.held, in, Layout::panels) + wrong);
      });
    });
  }
}

ZS_TEST(kernel_threads_do_not_change_the_result) {
  const Matrix sample = random_matrix(150, 190, 0.3, 19);
  each_form(sample, Format::csr, 0, 0, 19, [&](const Form& form) {
    for (int64_t lanes : {1, 20, 130}) {
      const Inputs in = random_inputs(sample, lanes, 19);
      each_packed(form.held, form.matrix, [&](const Kernel& kernel, const Packed& packed) {
        Pool::get().resize(1);
        const Result alone = run(packed, in, Layout::panels);
        for (int threads : {2, 5}) {
          Pool::get().resize(threads);
          const Result together = run(packed, in, Layout::panels);
          check(memcmp(alone.y.data(), together.y.data(), alone.y.size() * sizeof(float)) == 0, kernel.isa,
                label(kernel, form.matrix, form.held, in, Layout::panels) + "changes with " + std::to_string(threads) +
                    " threads");
        }
      });
    }
  });
  Pool::get().resize(0);
}

ZS_TEST(packing_from_every_format_and_type) {
  struct Pair {
    Matrix matrix;
    Format format;
    int64_t r, c;
  };
  std::vector<Pair> pairs;
  for (Format format : {Format::csr, Format::bitmask, Format::dense})
    pairs.push_back({random_matrix(37, 83, 0.4, 23), format, 0, 0});
  for (auto [r, c] : {std::pair<int64_t, int64_t>{1, 4}, {4, 1}, {4, 4}, {16, 1}, {8, 32}}) {
    pairs.push_back({random_blocks(48, 96, r, c, 0.3, 29), Format::bsr, r, c});
  }
  for (auto [n, m] : {std::pair<int64_t, int64_t>{2, 4}, {1, 4}, {4, 8}, {8, 16}, {4, 4}}) {
    pairs.push_back({random_nm(33, 96, n, m, 31), Format::nm, n, m});
  }
  for (int64_t height : {1, 4, 100}) pairs.push_back({random_matrix(37, 83, 0.2, 43), Format::sell, height, 0});
  pairs.push_back({random_matrix(37, 83, 0.2, 47), Format::ell, 0, 0});
  pairs.push_back({random_matrix(9, 20, 0.0, 53), Format::ell, 0, 0});
  for (auto [n, m] : {std::pair<int64_t, int64_t>{2, 8}, {1, 4}, {4, 16}, {4, 4}}) {
    pairs.push_back({random_nm(33, 96, n, m, 59), Format::vnm, n, m});
  }
  for (const Pair& pair : pairs) {
    for (ValueType type : {ValueType::f32, ValueType::bf16, ValueType::f16, ValueType::i8, ValueType::i4}) {
      // What the source holds: rounded once to its type, once more to the kernel's.
      Matrix seen = is_code(type) ? quantised(pair.matrix, type, 32, pair.format != Format::dense, 61) : pair.matrix;
      for (float& v : seen.values) v = rounded(v, type);
      const Held held = hold(seen, pair.format, type, pair.r, pair.c);
      for (int64_t lanes : {1, 24}) {
        if (!sampled()) continue;
        const Inputs in = random_inputs(seen, lanes, 37);
        References references(seen, in);
        each_packed(held, seen, [&](const Kernel& kernel, const Packed& packed) {
          const std::string wrong = difference(run(packed, in, Layout::panels), references.of(kernel));
          check(wrong.empty(), kernel.isa, label(kernel, seen, held, in, Layout::panels) + wrong);
        });
      }
    }
  }
}

ZS_TEST(packing_keeps_every_16_bit_value) {
  // One entry a row times 1: what comes out is the value as the kernel decodes it, to the bit.
  for (ValueType type : {ValueType::bf16, ValueType::f16}) {
    Matrix m{65536 / 8, 8, std::vector<float>(65536), std::vector<uint8_t>(65536, 0), "every 16-bit value"};
    for (uint32_t h = 0; h < 65536; ++h) {
      const float v =
          type == ValueType::bf16 ? bf16_to_float(static_cast<uint16_t>(h)) : f16_to_float(static_cast<uint16_t>(h));
      if (!isfinite(v)) continue;
      m.values[h] = v;
      m.stored[h] = 1;
    }
    const Held held = hold(m, Format::csr, type);
    Inputs in;
    in.lanes = 8;  // lane c picks column c
    in.x.assign(64, 0);
    for (int64_t c = 0; c < 8; ++c) in.x[c * 8 + c] = 1;
    each_packed(held, m, [&](const Kernel& kernel, const Packed& packed) {
      if (kernel.type != type) return;
      const Result got = run(packed, in, Layout::panels);
      int64_t wrong = 0;
      for (int64_t i = 0; i < 65536; ++i) {
        const bool flushed = kernel.x == XType::bf16 && fabsf(m.values[i]) < 0x1p-126f;  // tiles know no subnormals
        wrong += got.y[i] != (flushed ? 0.0f : m.values[i]);
      }
      check(wrong == 0, kernel.isa, std::string(kernel.name) + " changes " + std::to_string(wrong) + " 16-bit values");
    });
  }
}

ZS_TEST(codes_mean_what_they_mean_to_the_bit) {
  // Lane c picks column c. Every group of a row of 300 has its own scale and zero point, and blocks end inside of groups.
  for (ValueType type : {ValueType::i8, ValueType::i4}) {
    for (int64_t group : kGroups) {
      for (bool zeros : {false, true}) {
        const Form form(quantised(random_matrix(40, 300, 0.5, 71), type, group, zeros, 71), Format::csr, type, 0, 0);
        Inputs in;
        in.lanes = 300;
        in.x.assign(300 * 300, 0);
        for (int64_t c = 0; c < 300; ++c) in.x[c * 300 + c] = 1;
        each_packed(form.held, form.matrix, [&](const Kernel& kernel, const Packed& packed) {
          const Result got = run(packed, in, Layout::panels);
          int64_t wrong = 0;
          for (int64_t i = 0; i < 40 * 300; ++i) wrong += got.y[i] != form.matrix.values[i];
          check(wrong == 0, kernel.isa,
                label(kernel, form.matrix, form.held, in, Layout::panels) + std::to_string(wrong) + " changed");
        });
      }
    }
  }
}

ZS_TEST(codes_with_scales_that_cells_do_not_take) {
  const Matrix m = quantised(random_matrix(9, 200, 0.5, 73), ValueType::i8, 96, false, 73);
  const Held held = hold(m, Format::csr, ValueType::i8);
  for (const Kernel& kernel : kernels()) {
    if (!isa_usable(kernel.isa) || kernel.type != ValueType::i8 || kernel.x == XType::i8 || kernel.isa == Isa::scalar) continue;
    check(packed_by(kernel, held) == nullptr, kernel.isa, std::string(kernel.name) + " takes a scale for 96 columns");
  }
}

ZS_TEST(packing_counts_its_bytes) {
  each_form(random_matrix(64, 128, 0.5, 41), Format::csr, 0, 0, 41, [&](const Form& form) {
    const Matrix& m = form.matrix;
    const int64_t nnz = form.held.indptr.back();
    each_packed(form.held, m, [&](const Kernel& kernel, const Packed& packed) {
      const int64_t values = stored_bytes(kernel.type, kernel.format == Format::dense ? m.rows * m.cols : nnz);
      const int64_t scales = static_cast<int64_t>(2 * m.scales.size() + m.zeros.size());
      check(packed.bytes() >= values + scales, kernel.isa,
            std::string(kernel.name) + " counts fewer bytes than its values have");
    });
  });
}

}  // namespace zs::test
