// Sparse weights times x, both in fixed point of 16 bits: twice the lanes of float32 in a vector.
//
// A token of x becomes codes q = round(x / sx), sx = max|x| / 32767. The weights of a row in a block of n stored columns become
// w' = round(w / sw) with sw = (sum of |w|) / (32767 - n), so that the sizes of all w' add to 32767 - n / 2 at most. A product is
// (q w' + 2^14) >> 15, rounded by half at most, so a sum of n of them stays within 16 bits whatever x is, and no sum has to be
// widened before the block ends. Then it is scaled and added in float32: y += 32768 sw sx * sum.
//
// What that costs: half a unit for each product, half for each weight and each x, in all n + 1/2 units of 32768 sw sx, which is
// |max x| times the sum of |w| over 32767 / (n + 1/2). At 77 entries that is at worst what int8 for x costs, and typically,
// where halves cancel, a seventh of it.
//
// A token with NaN or infinity in it gives NaN in every row: it has no scale. So does a row of weights with such.
#include <math.h>

#include <vector>

#include "blocks.h"
#include "fixed.h"
#include "lane_codes.h"
#include "source.h"

namespace zs {
namespace {

constexpr int kUnit = 32767;  // the largest code
constexpr int64_t kTaskRows = 256;

struct FixedMatrix : Packed {
  int64_t col_block = 0, col_blocks = 0;
  RowBlocks blocks;
  std::vector<int64_t> starts;  // [row block][column block] first entry, and the end
  std::vector<uint16_t> ids, counts;  // [row block][column block][row], rows by falling count: the loop's branch is predicted
  std::vector<float> scales;  // the same
  Buffer offsets, codes;  // of 16 bits

  int64_t bytes() const override {
    return static_cast<int64_t>(8 * starts.size() + 2 * (ids.size() + counts.size()) + 4 * scales.size()) + offsets.bytes() +
           codes.bytes();
  }
  int64_t directory(int64_t rb, int64_t kb) const {
    return blocks.begin(rb) * col_blocks + kb * (blocks.end(rb) - blocks.begin(rb));
  }
  FixedCell cell(int64_t rb, int64_t kb) const {
    const int64_t at = directory(rb, kb), first = starts[rb * col_blocks + kb];
    return {blocks.end(rb) - blocks.begin(rb),
            ids.data() + at,
            counts.data() + at,
            scales.data() + at,
            reinterpret_cast<const uint16_t*>(offsets.data()) + first,
            reinterpret_cast<const int16_t*>(codes.data()) + first};
  }
};

// Blocks of nearly equal width whose columns of x, 64 lanes each, leave a quarter of L1 for the rest; half of it is 6 % slower.
int64_t column_block(int64_t cols) {
  const int64_t most = std::clamp<int64_t>(cpu().l1d_bytes * 3 / 4 / (kPanel * 2), 64, 256);
  const int64_t blocks = std::max<int64_t>(1, (cols + most - 1) / most);
  return std::max<int64_t>(1, (cols + blocks - 1) / blocks);
}

// The scale of a row's weights in a block, and their codes. Weights so small that the scale would be subnormal count as zero.
float round_weights(const float* weights, int64_t n, int16_t* codes) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += fabs(static_cast<double>(weights[i]));
  const double scale = sum / static_cast<double>(kUnit - n);
  const bool usable = isfinite(sum) && scale > 0x1p-110;
  for (int64_t i = 0; i < n; ++i) codes[i] = usable ? static_cast<int16_t>(lrint(weights[i] / scale)) : int16_t{0};
  if (!isfinite(sum)) return NAN;
  return usable ? static_cast<float>(scale * 32768) : 0.0f;
}

struct Part {
  int64_t first, count;  // of a row's entries, those in a block of columns
};

void fill_block(FixedMatrix& a, const RowReader& reader, const std::vector<Part>& parts, int64_t rb) {
  const int64_t begin = a.blocks.begin(rb), end = a.blocks.end(rb), rows = end - begin;
  std::vector<int32_t> cols;
  std::vector<float> values;
  std::vector<uint16_t> order(rows);
  std::vector<int64_t> place(rows * a.col_blocks), slot(rows * a.col_blocks);
  uint16_t* offsets = reinterpret_cast<uint16_t*>(a.offsets.data());
  for (int64_t kb = 0; kb < a.col_blocks; ++kb) {
    const auto count = [&](int64_t r) { return parts[(begin + r) * a.col_blocks + kb].count; };
    for (int64_t r = 0; r < rows; ++r) order[r] = static_cast<uint16_t>(r);
    std::stable_sort(order.begin(), order.end(), [&](uint16_t l, uint16_t r) { return count(l) > count(r); });
    int64_t at = a.starts[rb * a.col_blocks + kb];
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t to = a.directory(rb, kb) + i, r = order[i];
      a.ids[to] = order[i];
      a.counts[to] = static_cast<uint16_t>(count(r));
      place[r * a.col_blocks + kb] = at;
      slot[r * a.col_blocks + kb] = to;
      at += count(r);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    reader.read(begin + r, cols, values);
    for (int64_t kb = 0; kb < a.col_blocks; ++kb) {
      const Part& part = parts[(begin + r) * a.col_blocks + kb];
      const int64_t at = place[r * a.col_blocks + kb];
      for (int64_t i = 0; i < part.count; ++i) {
        offsets[at + i] = static_cast<uint16_t>((cols[part.first + i] - kb * a.col_block) * kPanel * 2);
      }
      int16_t* codes = reinterpret_cast<int16_t*>(a.codes.data()) + at;
      a.scales[slot[r * a.col_blocks + kb]] = round_weights(values.data() + part.first, part.count, codes);
    }
  }
}

}  // namespace

const FixedMicro& fixed_of([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2 || isa == Isa::avxvnni) return fixed_avx2;
  if (isa == Isa::avx512) return fixed_avx512;
#elif defined(__aarch64__)
  if (isa == Isa::neon) return fixed_neon;
#endif
  return fixed_scalar;
}

std::unique_ptr<Packed> pack_fixed(const Source& source, Format, ValueType, Isa) {
  auto a = std::make_unique<FixedMatrix>();
  a->rows = source.rows;
  a->cols = source.cols;
  a->col_block = column_block(source.cols);
  a->col_blocks = (source.cols + a->col_block - 1) / a->col_block;
  a->blocks = RowBlocks(source.rows, kTaskRows, 1);
  const RowReader reader(source);
  std::vector<Part> parts(a->rows * a->col_blocks);
  Pool::get().parallel(a->blocks.count, [&](int64_t rb, int) {
    std::vector<int32_t> cols;
    for (int64_t r = a->blocks.begin(rb); r < a->blocks.end(rb); ++r) {
      const int64_t n = reader.columns(r, cols);
      int64_t i = 0;
      for (int64_t kb = 0; kb < a->col_blocks; ++kb) {
        const int64_t first = i;
        while (i < n && cols[i] < (kb + 1) * a->col_block) ++i;
        parts[r * a->col_blocks + kb] = {first, i - first};
      }
    }
  });
  int64_t entries = 0;
  for (int64_t rb = 0; rb < a->blocks.count; ++rb) {
    for (int64_t kb = 0; kb < a->col_blocks; ++kb) {
      a->starts.push_back(entries);
      for (int64_t r = a->blocks.begin(rb); r < a->blocks.end(rb); ++r) entries += parts[r * a->col_blocks + kb].count;
    }
  }
  a->starts.push_back(entries);
  const int64_t cells = a->rows * a->col_blocks;
  a->ids.resize(cells);
  a->counts.resize(cells);
  a->scales.resize(cells);
  a->offsets = Buffer(2 * entries);
  a->codes = Buffer(2 * entries);
  Pool::get().parallel(a->blocks.count, [&](int64_t rb, int) { fill_block(*a, reader, parts, rb); });
  return a;
}

void run_fixed(const Packed& packed, const float* x, int64_t lanes, Output y, const Epilogue& e, Pool& pool) {
  const auto& a = static_cast<const FixedMatrix&>(packed);
  const Isa isa = a.kernel->isa;
  const FixedMicro& micro = fixed_of(isa);
  const Finish finish = isa == Isa::scalar ? finish_scalar : micro_of(isa).finish;
  const LaneQuantiser how{kUnit, 0x1p-110f, micro.largest, micro.quantise};
  const LaneCodes& kept = codes_of_lanes(how, x, a.cols, (a.cols + 1) / 2, lanes, e.same_x, pool);
  const int64_t panels = panel_count(lanes);
  pool.parallel(a.blocks.count * panels, [&](int64_t task, int) {
    const int64_t rb = task / panels, p = task % panels, begin = a.blocks.begin(rb);
    const int64_t width = panel_width(lanes, p);
    const YTile tile = tile_of(y, e.residual, a.rows, begin, p, width);
    const int16_t* codes = kept.panel(p);
    for (int64_t kb = 0; kb < a.col_blocks; ++kb) {
      const float* lane_scales = kb + 1 == a.col_blocks ? kept.scales.data() + p * kPanel : nullptr;
      micro.cell(a.cell(rb, kb), codes + kb * a.col_block * kPanel, width, lane_scales, tile.y, tile.ldy, kb == 0);
    }
    finish_tile(finish, tile, begin, a.blocks.end(rb) - begin, width, e);
  });
}

}  // namespace zs
