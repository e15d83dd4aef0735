// SDDMM and masked softmax on every instruction set: all kinds of patterns against sums in double, and buffers exactly as long as
// they may be read and written.
#include <math.h>
#include <string.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "../kernels/masked_softmax/masked_softmax.h"
#include "../kernels/sddmm/sddmm.h"
#include "../kernels/sddmm/sddmm_tiles.h"
#include "../runtime/cpu.h"
#include "../runtime/numeric.h"
#include "check.h"

namespace zs::test {
namespace {

constexpr Isa kAll[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::neon};
constexpr double kU = 0x1p-24;

// A pattern that owns its arrays, and the places of its entries.
struct Held {
  Pattern p;
  std::vector<int64_t> indptr;
  std::vector<uint16_t> u16;
  std::vector<int32_t> i32;
  std::vector<int64_t> i64;
  std::vector<uint8_t> bits;
  std::vector<int64_t> row, col;
};

void sizes(Held& h, Format format, int64_t rows, int64_t cols) {
  h.p.format = format;
  h.p.rows = rows;
  h.p.cols = cols;
  h.p.entries = static_cast<int64_t>(h.row.size());
  h.p.indptr = h.indptr.data();
  h.p.bits = h.bits.data();
}

void store(Held& h, int64_t rows, int64_t cols, IndexType type) {
  sizes(h, Format::csr, rows, cols);
  h.p.index = type;
  h.u16.assign(h.col.begin(), h.col.end());
  h.i32.assign(h.col.begin(), h.col.end());
  h.i64.assign(h.col.begin(), h.col.end());
  if (type == IndexType::u16) {
    h.p.indices = h.u16.data();
  } else if (type == IndexType::i32) {
    h.p.indices = h.i32.data();
  } else {
    h.p.indices = h.i64.data();
  }
}

Held csr(int64_t rows, int64_t cols, double density, IndexType type, Random& random) {
  Held h;
  h.indptr.push_back(0);
  for (int64_t r = 0; r < rows; ++r) {
    const double here = r % 7 == 3 ? 0 : r % 11 == 5 ? 1 : density;  // empty rows and full ones
    for (int64_t c = 0; c < cols; ++c) {
      if (random.uniform() < here) {
        h.row.push_back(r);
        h.col.push_back(c);
      }
    }
    h.indptr.push_back(static_cast<int64_t>(h.row.size()));
  }
  store(h, rows, cols, type);
  return h;
}

// As masks of attention are: columns that neighbouring rows share, some of each row's own, and rows that are empty or full.
Held shared(int64_t rows, int64_t cols, double own, IndexType type, Random& random) {
  Held h;
  h.indptr.push_back(0);
  const int64_t width = std::min<int64_t>(cols, 13);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t window = r * std::max<int64_t>(0, cols - width) / rows;
    for (int64_t c = 0; c < cols; ++c) {
      const bool there = r % 23 != 9 && (r == 2 || c < 5 || (c >= window && c < window + width) || random.uniform() < own);
      if (there) {
        h.row.push_back(r);
        h.col.push_back(c);
      }
    }
    h.indptr.push_back(static_cast<int64_t>(h.row.size()));
  }
  store(h, rows, cols, type);
  return h;
}

Held bitmask(int64_t rows, int64_t cols, double density, Random& random) {
  Held h = csr(rows, cols, density, IndexType::i32, random);
  h.bits.assign(rows * ((cols + 7) / 8), 0);
  sizes(h, Format::bitmask, rows, cols);
  for (size_t e = 0; e < h.row.size(); ++e) {
    uint8_t& byte = h.bits[h.row[e] * h.p.row_bytes() + h.col[e] / 8];
    byte = static_cast<uint8_t>(byte | 1 << h.col[e] % 8);
  }
  return h;
}

Held bsr(int64_t rows, int64_t cols, int64_t r, int64_t c, double density, Random& random) {
  const Held blocks = csr(rows / r, cols / c, density, IndexType::i32, random);
  Held h;
  h.indptr = blocks.indptr;
  h.i32 = blocks.i32;
  for (size_t q = 0; q < blocks.row.size(); ++q) {
    for (int64_t i = 0; i < r * c; ++i) {
      h.row.push_back(blocks.row[q] * r + i / c);
      h.col.push_back(blocks.col[q] * c + i % c);
    }
  }
  sizes(h, Format::bsr, rows, cols);
  h.p.indices = h.i32.data();
  h.p.r = r;
  h.p.c = c;
  return h;
}

std::vector<Held> patterns(Random& random) {
  std::vector<Held> found;
  for (IndexType type : {IndexType::u16, IndexType::i32, IndexType::i64}) {
    found.push_back(csr(1, 1, 1, type, random));
    found.push_back(csr(23, 61, 0.2, type, random));
    found.push_back(csr(70, 150, 0.5, type, random));
  }
  found.push_back(csr(5, 9, 0, IndexType::i32, random));
  found.push_back(bitmask(23, 61, 0.3, random));
  found.push_back(bitmask(70, 150, 0.5, random));
  found.push_back(bsr(24, 60, 4, 4, 0.3, random));
  found.push_back(bsr(32, 21, 16, 1, 0.4, random));
  found.push_back(bsr(9, 400, 3, 40, 0.4, random));
  return found;
}

// Rows of an operand with gaps between them, NaN in the gaps: nothing there may count.
struct Operand {
  std::vector<float> values;
  std::vector<uint16_t> bits;
  std::vector<int64_t> at;
  int64_t stride = 0;

  Operand(int64_t batches, int64_t rows, int64_t depth, Random& random) : stride(depth + 3) {
    values.assign(batches * rows * stride, NAN);
    for (int64_t b = 0; b < batches; ++b) at.push_back(b * rows * stride);
    for (size_t i = 0; i < values.size(); ++i) {
      if (static_cast<int64_t>(i) % stride < depth) values[i] = bf16_to_float(float_to_bf16(random.symmetric()));
    }
    for (float v : values) bits.push_back(float_to_bf16(v));
    values.resize(values.size() - 3);  // the last row ends where its values end
    bits.resize(values.size());
    values.shrink_to_fit();
    bits.shrink_to_fit();
  }
  const void* data(ValueType type) const {
    return type == ValueType::f32 ? static_cast<const void*>(values.data()) : bits.data();
  }
};

std::string name_of(const Held& h, int64_t depth, ValueType type) {
  return "format " + std::to_string(static_cast<int>(h.p.format)) + ", " + std::to_string(h.p.rows) + " x " +
         std::to_string(h.p.cols) + ", depth " + std::to_string(depth) + ", type " + std::to_string(static_cast<int>(type));
}

SddmmArgs args_of(const Held& h, const Operand& a, const Operand& b, int64_t depth, ValueType type) {
  SddmmArgs args;
  args.pattern = h.p;
  args.type = type;
  args.depth = depth;
  args.batches = static_cast<int64_t>(a.at.size());
  args.a = a.data(type);
  args.a_at = a.at.data();
  args.lda = a.stride;
  args.b = b.data(type);
  args.b_at = b.at.data();
  args.ldb = b.stride;
  return args;
}

// Values of the entries, which `args` takes, with an alpha, where it is `scaled`.
std::vector<float> scale(SddmmArgs& args, const Held& h, bool scaled, Random& random) {
  std::vector<float> factors(h.row.size());
  for (float& f : factors) f = random.symmetric();
  args.alpha = scaled ? 0.75f : 1.0f;
  args.values = scaled ? factors.data() : nullptr;
  return factors;
}

void check_sddmm(const Held& h, int64_t depth, ValueType type, bool scaled, Random& random) {
  const int64_t batches = 2;
  const Operand a(batches, h.p.rows, depth, random), b(batches, h.p.cols, depth, random);
  SddmmArgs args = args_of(h, a, b, depth, type);
  const std::vector<float> factors = scale(args, h, scaled, random);
  for (Isa isa : kAll) {
    if (!isa_usable(isa)) continue;
    Floats out(batches * h.p.entries, NAN, 1);
    args.out = out.data();
    bool right = run_sddmm(isa, args, Pool::get());
    for (int64_t i = 0; i < batches * h.p.entries; ++i) {
      const int64_t e = i % h.p.entries, batch = i / h.p.entries;
      const float* x = a.values.data() + a.at[batch] + h.row[e] * a.stride;
      const float* y = b.values.data() + b.at[batch] + h.col[e] * b.stride;
      double sum = 0, size = 0;
      for (int64_t k = 0; k < depth; ++k) {
        sum += static_cast<double>(x[k]) * y[k];
        size += fabs(static_cast<double>(x[k]) * y[k]);
      }
      const double factor = scaled ? 0.75 * factors[e] : 1.0;
      right = right && fabs(out[i] - factor * sum) <= (static_cast<double>(depth) + 3) * kU * fabs(factor) * size;
    }
    check(right, isa, "sddmm " + name_of(h, depth, type));
  }
}

// The records of `h` against the pattern itself, on which they were made: the same bits.
void check_tiles(const Held& h, int64_t depth, ValueType type, bool scaled, Random& random) {
  const std::unique_ptr<const SddmmTiles> tiles = find_tiles(h.p, Pool::get());
  check(tiles != nullptr, "tiles of " + name_of(h, depth, type));
  if (!tiles) return;
  const Operand a(2, h.p.rows, depth, random), b(2, h.p.cols, depth, random);
  SddmmArgs args = args_of(h, a, b, depth, type);
  const std::vector<float> factors = scale(args, h, scaled, random);
  for (Isa isa : kAll) {
    if (!isa_usable(isa)) continue;
    Floats wanted(2 * h.p.entries, NAN, 1), found(2 * h.p.entries, NAN, 3);
    args.tiles = nullptr;
    args.out = wanted.data();
    bool right = run_sddmm(isa, args, Pool::get());
    args.tiles = tiles.get();
    args.pattern.indices = nullptr;  // not read
    args.pattern.indptr = nullptr;
    args.out = found.data();
    right = run_sddmm(isa, args, Pool::get()) && right;
    args.pattern = h.p;
    right = right && !memcmp(wanted.data(), found.data(), static_cast<size_t>(wanted.size()) * sizeof(float));
    check(right, isa, "sddmm in tiles, " + name_of(h, depth, type));
  }
}

void check_softmax(const Held& h, bool biased, Random& random) {
  const int64_t batches = 2, entries = h.p.entries;
  std::vector<float> scores(batches * entries), bias(entries);
  for (float& s : scores) s = 4 * random.symmetric();
  for (float& s : bias) s = random.symmetric();
  SoftmaxArgs args;
  args.pattern = h.p;
  args.batches = batches;
  args.scores = scores.data();
  args.bias = biased ? bias.data() : nullptr;
  args.scale = -1.5f;
  std::vector<double> wanted(batches * entries), sums(batches * h.p.rows);
  for (int64_t i = 0; i < batches * entries; ++i) {
    const int64_t e = i % entries;
    wanted[i] = exp(-1.5 * scores[i] + (biased ? bias[e] : 0.0f));
    sums[i / entries * h.p.rows + h.row[e]] += wanted[i];
  }
  for (Isa isa : kAll) {
    if (!isa_usable(isa)) continue;
    Floats out(batches * entries, NAN, 1);
    args.out = out.data();
    bool right = run_masked_softmax(isa, args, Pool::get());
    for (int64_t i = 0; i < batches * entries; ++i) {
      const double w = wanted[i] / sums[i / entries * h.p.rows + h.row[i % entries]];
      // Exponents are at most 7 in size and 14 apart: off by 2 x 7 + 14 units each, those of the sum as well; the rest is the sum.
      right = right && fabs(out[i] - w) <= w * kU * (2 * 28 + 8 + static_cast<double>(h.p.cols));
    }
    check(right, isa, "masked_softmax " + name_of(h, 0, ValueType::f32));
  }
}

}  // namespace

ZS_TEST(sddmm_of_every_pattern) {
  Random random(7000);
  for (const Held& h : patterns(random)) {
    for (int64_t depth : {1, 3, 4, 7, 8, 9, 16, 31, 32, 33, 64, 130, 1030}) {
      for (ValueType type : {ValueType::f32, ValueType::bf16}) {
        if (sampled()) check_sddmm(h, depth, type, depth % 2, random);
      }
    }
  }
}

ZS_TEST(sddmm_in_tiles) {
  Random random(7050);
  std::vector<Held> held;
  for (IndexType type : {IndexType::u16, IndexType::i32, IndexType::i64}) held.push_back(shared(63, 90, 0.04, type, random));
  held.push_back(shared(130, 200, 0.02, IndexType::i32, random));
  held.push_back(shared(4, 4, 0, IndexType::u16, random));  // nothing but one tile
  held.push_back(shared(13, 4, 0, IndexType::u16, random));  // and one row more than three groups
  for (const Held& h : held) {
    for (int64_t depth = 1; depth <= 70; ++depth) {
      for (ValueType type : {ValueType::f32, ValueType::bf16}) {
        if (sampled()) check_tiles(h, depth, type, depth % 2, random);
      }
    }
    for (int64_t depth : {96, 128, 515}) check_tiles(h, depth, ValueType::f32, false, random);
  }
  Held split;  // two entries, a tile, two entries: what is left are the first and last of eight entries, but not eight
  split.row = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
  split.col = {0, 1, 10, 11, 12, 13, 20, 21, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13};
  split.indptr = {0, 8, 12, 16, 20};
  store(split, 4, 22, IndexType::i32);
  check_tiles(split, 16, ValueType::f32, false, random);
  const Held wide = shared(8, 70000, 1, IndexType::i32, random);  // columns of 32 bits in records
  check_tiles(wide, 5, ValueType::f32, true, random);
}

ZS_TEST(patterns_without_tiles) {
  Random random(7060);
  const auto none = [](const Held& h) { return find_tiles(h.p, Pool::get()) == nullptr; };
  check(none(csr(300, 400, 0.02, IndexType::i32, random)), "tiles where rows share nothing");
  check(none(csr(5, 9, 0, IndexType::i32, random)), "tiles of no entries");
  check(none(bitmask(23, 61, 0.9, random)), "tiles of a bitmask");
  check(none(bsr(24, 60, 4, 4, 0.9, random)), "tiles of blocks");
}

ZS_TEST(tiles_of_damaged_patterns) {
  Random random(7070);
  const Held whole = shared(63, 90, 0.04, IndexType::i32, random);
  const auto none = [](Held h) {
    h.p.indptr = h.indptr.data();
    h.p.indices = h.i32.data();
    return find_tiles(h.p, Pool::get()) == nullptr;
  };
  check(!none(whole), "no tiles of a whole pattern");
  for (size_t r : {0, 1, 7, 40, 63}) {
    for (int64_t bad : {int64_t{-1}, whole.p.entries + 1, int64_t{1} << 40}) {
      Held h = whole;
      h.indptr[r] = bad;
      check(none(h), "an offset of " + std::to_string(bad) + " in row " + std::to_string(r));
    }
  }
  for (size_t e = 0; e < whole.i32.size(); e += 7) {
    for (int32_t bad : {-1, 90, 1 << 30}) {
      Held h = whole;
      h.i32[e] = bad;
      check(none(h), "a column of " + std::to_string(bad) + " at " + std::to_string(e));
    }
  }
}

ZS_TEST(masked_softmax_of_every_pattern) {
  Random random(7100);
  for (const Held& h : patterns(random)) {
    check_softmax(h, false, random);
    check_softmax(h, true, random);
  }
}

ZS_TEST(bits_that_do_not_fit_the_entries) {
  Random random(7200);
  Held h = bitmask(9, 40, 0.3, random);
  ++h.p.entries;
  const Operand a(1, 9, 8, random), b(1, 40, 8, random);
  Floats out(h.p.entries, -2.0f, 0), scores(h.p.entries, 1.0f, 0);
  SddmmArgs args = args_of(h, a, b, 8, ValueType::f32);
  args.out = out.data();
  SoftmaxArgs soft;
  soft.pattern = h.p;
  soft.batches = 1;
  soft.scores = scores.data();
  soft.out = out.data();
  for (Isa isa : kAll) {
    if (!isa_usable(isa)) continue;
    check(!run_sddmm(isa, args, Pool::get()), isa, "sddmm takes a bitmask with a bit too few");
    check(!run_masked_softmax(isa, soft, Pool::get()), isa, "masked_softmax takes a bitmask with a bit too few");
    check(std::all_of(out.data(), out.data() + out.size(), [](float v) { return v == -2.0f; }), isa, "and writes");
  }
}

}  // namespace zs::test
