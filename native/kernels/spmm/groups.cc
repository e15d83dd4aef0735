// Matrices of integer codes, dense, bitmask or N of 16, times x quantised to 8 bits: integer sums, one scale a row or a group of columns.
//
// A token of x becomes codes = round(x / s), s = max|x| / 127, so that |codes| <= 127. Sums of codes are exact; each block of columns
// is scaled and added in float32. A token with NaN or infinity in it gives NaN in every row: it has no scale.
//
// Four rows are a tile (groups.h), read from front to back for up to four tokens at a time; the tokens of a panel stay in L2. Of a
// bitmask each row is read by itself.
#include <math.h>

#include <vector>

#include "blocks.h"
#include "fixed.h"
#include "groups.h"
#include "lane_codes.h"
#include "source.h"

namespace zs {
namespace {

constexpr int64_t kMostBlock = 65536;  // columns whose products of codes, 127 x 127 at most, are sure to fit 32 bits
// Features a task quantises at a time: all of one token, whose few microseconds are less than waking the threads twice.
int64_t x_block(int64_t lanes) { return lanes == 1 ? 16384 : 256; }

struct GroupMatrix : Packed {
  ValueType type = ValueType::i8;
  bool dense = false;
  int quarters = 0;
  int64_t tiles = 0, steps = 0, steps_a_block = 0, blocks = 0;
  int64_t chunk = 1;  // bitmask: groups whose codes follow each other; the next ones begin a byte
  Buffer codes;
  std::vector<uint16_t> scales;  // [tile][block][4], float16
  Buffer masks;  // bitmask: [row][step][4]
  std::vector<int64_t> starts;  // bitmask: first byte of each row's codes, and the end; scales are [row][group]

  int64_t code_bytes() const { return type == ValueType::i4 ? 16 : 32; }
  int64_t quarter_bytes() const { return (dense ? 0 : 16) + code_bytes(); }
  int64_t tile_bytes() const { return steps * quarters * quarter_bytes(); }
  int64_t bytes() const override {
    return codes.bytes() + masks.bytes() + static_cast<int64_t>(2 * scales.size() + 8 * starts.size());
  }
  bool bits() const { return !starts.empty(); }
  int64_t scales_a_row() const { return rows ? static_cast<int64_t>(scales.size()) / rows : 0; }  // of a bitmask
  GroupTile tile(int64_t index) const {
    return {codes.data() + index * tile_bytes(), steps, steps_a_block, quarters, dense, scales.data() + index * blocks * 4};
  }
  GroupRow row(int64_t r) const {
    return {masks.data() + r * steps * 4,       codes.data() + starts[r], steps, steps_a_block,
            scales.data() + r * scales_a_row(), scales_a_row() == 1};
  }
};

constexpr float kUnit = 127, kLeast = 0x1p-119f;  // as LaneQuantiser has them

float scale_of(float most) { return !isfinite(most) ? NAN : most < kLeast ? 0.0f : most / kUnit; }

const GroupMicro& groups_of(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) return groups_avx2;
#if defined(ZS_HAVE_AVXVNNI)
  if (isa == Isa::avxvnni) return groups_avxvnni;
#endif
  if (isa == Isa::avx512vnni) return groups_avx512vnni;
#elif defined(__aarch64__)
  if (isa == Isa::neon) return groups_neon;
  if (isa == Isa::neondot) return groups_neondot;
#endif
  return groups_scalar;
}

// Puts the code of one entry, and its position in its group, where the tile wants them.
void put(const GroupMatrix& a, uint8_t* tile, int64_t row, int64_t step, int64_t half, int64_t slot, int64_t position,
         int8_t code) {
  const int64_t byte = 16 * half + 4 * row + slot % 4;
  uint8_t* quarter = tile + (step * a.quarters + slot / 4) * a.quarter_bytes();
  const auto nibble = [byte](uint8_t* at, int64_t value) {
    at[byte / 2] = static_cast<uint8_t>(at[byte / 2] | (value & 15) << (byte % 2 * 4));
  };
  if (!a.dense) {
    nibble(quarter, position);
    quarter += 16;
  }
  if (a.type == ValueType::i4) {
    nibble(quarter, code);
  } else {
    quarter[byte] = static_cast<uint8_t>(code);
  }
}

void fill_row(GroupMatrix& a, const Source& source, const RowReader& reader, int64_t r, std::vector<int32_t>& cols) {
  const int64_t tile = r / kTileRows, row = r % kTileRows;
  uint8_t* out = a.codes.data() + tile * a.tile_bytes();
  const int8_t* codes = static_cast<const int8_t*>(source.data) + reader.first(r);
  const int64_t n = reader.columns(r, cols), block_cols = a.steps_a_block * kPair;
  int64_t group = -1, slot = 0;
  for (int64_t i = 0; i < n; ++i, ++slot) {
    if (cols[i] / kGroup != group) {
      group = cols[i] / kGroup;
      slot = 0;
    }
    put(a, out, row, group / 2, group % 2, slot, cols[i] % kGroup, codes[i]);
  }
  const int64_t groups = source.scale_group ? (a.cols + source.scale_group - 1) / source.scale_group : 1;
  for (int64_t b = 0; b < a.blocks; ++b) {
    const int64_t at = source.scale_group ? b * block_cols / source.scale_group : 0;
    a.scales[(tile * a.blocks + b) * 4 + row] = source.scales[r * groups + at];
  }
}

// x of all tokens as bytes [token][K rounded up to a step], and the scale of each token.
struct Quantised {
  int64_t stride = 0;
  std::vector<int8_t> codes;
  std::vector<float> scales;
};

// Codes of `n` values `step` floats apart. Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the low
// bits. One lane has a loop of its own because that one vectorises.
void quantise(const float* x, int64_t step, int64_t n, float inverse, int8_t* out) {
  constexpr float kMagic = 12582912.0f;
  const auto code = [inverse](float v) { return static_cast<int8_t>(float_to_bits(v * inverse + kMagic) & 255); };
  if (step == 1) {
    for (int64_t i = 0; i < n; ++i) out[i] = code(x[i]);
    return;
  }
  for (int64_t i = 0; i < n; ++i) out[i] = code(x[i * step]);
}

// The largest |x| of each lane of a panel; NaN where there is a NaN. One lane by its bits, whose order is that of the numbers, with
// NaN above all of them, because that vectorises.
void largest(const float* x, int64_t width, int64_t features, float* most) {
  if (width == 1) {
    uint32_t bits = 0;
    for (int64_t f = 0; f < features; ++f) bits = std::max(bits, float_to_bits(x[f]) & 0x7fffffffu);
    *most = bits_to_float(bits);
    return;
  }
  for (int64_t f = 0; f < features; ++f) {
    for (int64_t t = 0; t < width; ++t) {
      const float size = fabsf(x[f * width + t]);
      most[t] = size > most[t] || size != size ? size : most[t];  // a NaN is taken, and stays
    }
  }
}

const Quantised& quantise_x(const float* x, int64_t cols, int64_t lanes, Pool& pool) {
  thread_local Quantised q;
  const int64_t panels = panel_count(lanes), block = x_block(lanes);
  const int64_t blocks = std::max<int64_t>(1, (cols + block - 1) / block);
  q.stride = (cols + kPair - 1) / kPair * kPair;
  q.codes.resize(lanes * q.stride + kPair);
  q.scales.resize(panels * kPanel);
  std::vector<float> most(panels * blocks * kPanel, 0.0f);
  Quantised& out = q;
  pool.parallel(panels * blocks, [&](int64_t task, int) {
    const int64_t p = task / blocks, f0 = task % blocks * block, width = panel_width(lanes, p);
    largest(x + p * kPanel * cols + f0 * width, width, std::min(cols - f0, block), &most[task * kPanel]);
  });
  for (int64_t p = 0; p < panels; ++p) {
    for (int64_t t = 0; t < kPanel; ++t) {
      float size = 0;
      for (int64_t b = 0; b < blocks; ++b) {
        const float here = most[(p * blocks + b) * kPanel + t];
        size = here > size || here != here ? here : size;
      }
      out.scales[p * kPanel + t] = scale_of(size);
    }
  }
  pool.parallel(panels * blocks, [&](int64_t task, int) {
    const int64_t p = task / blocks, f0 = task % blocks * block, width = panel_width(lanes, p);
    const int64_t f1 = std::min(cols, f0 + block), valid = std::min(kPanel, lanes - p * kPanel);
    for (int64_t t = 0; t < valid; ++t) {
      const float scale = out.scales[p * kPanel + t];
      int8_t* row = out.codes.data() + (p * kPanel + t) * out.stride;
      quantise(x + p * kPanel * cols + f0 * width + t, width, f1 - f0, scale > 0 ? 1.0f / scale : 0.0f, row + f0);
      if (f1 == cols) memset(row + cols, 0, out.stride - cols);
    }
  });
  return out;
}

uint32_t mask_at(const GroupMatrix& a, int64_t row, int64_t step) {
  uint32_t mask;
  memcpy(&mask, a.masks.data() + (row * a.steps + step) * 4, 4);
  return mask;
}

// Calls body(codes, bytes) for each chunk of a row.
template <class Body> void each_chunk(const GroupMatrix& a, int64_t row, Body&& body) {
  for (int64_t g = 0; g < 2 * a.steps; g += a.chunk) {
    int64_t n = 0;
    for (int64_t h = g; h < std::min(2 * a.steps, g + a.chunk); ++h) {
      n += __builtin_popcount(mask_at(a, row, h / 2) >> (h % 2 * 16) & 0xffff);
    }
    body(n, a.type == ValueType::i4 ? (n + 1) / 2 : n);
  }
}

void pack_bits(GroupMatrix& a, const Source& source, const RowReader& reader, Isa isa) {
  const int64_t bytes = (a.cols + 7) / 8, groups = source.scale_group ? a.blocks : 1;
  a.chunk = groups_of(isa).chunk;
  a.masks = Buffer(a.rows * a.steps * 4);
  memset(a.masks.data(), 0, a.masks.bytes());
  a.starts.assign(1, 0);
  for (int64_t r = 0; r < a.rows; ++r) {
    memcpy(a.masks.data() + r * a.steps * 4, source.bits + r * bytes, bytes);
    int64_t size = 0;
    each_chunk(a, r, [&size](int64_t, int64_t taken) { size += taken; });
    a.starts.push_back(a.starts.back() + size);
  }
  a.scales.assign(source.scales, source.scales + a.rows * groups);
  a.codes = Buffer(a.starts.back());
  memset(a.codes.data(), 0, a.codes.bytes());
  Pool::get().parallel(a.tiles, [&](int64_t tile, int) {
    for (int64_t r = tile * kTileRows; r < std::min(a.rows, (tile + 1) * kTileRows); ++r) {
      const int8_t* from = static_cast<const int8_t*>(source.data) + reader.first(r);
      uint8_t* out = a.codes.data() + a.starts[r];
      each_chunk(a, r, [&](int64_t n, int64_t taken) {
        const bool four = a.type == ValueType::i4;
        for (int64_t i = 0; i < n; ++i) {
          uint8_t& byte = out[four ? i / 2 : i];
          byte = static_cast<uint8_t>(four ? byte | (from[i] & 15) << (i % 2 * 4) : from[i]);
        }
        from += n;
        out += taken;
      });
    }
  });
}

// Four rows from `row` on, in 16 bits.
void widen_rows(const GroupMatrix& a, const ManyMicro& micro, int64_t row, int16_t* out) {
  const bool four = a.type == ValueType::i4;
  if (!a.bits()) return (four ? micro.widen_i4 : micro.widen_i8)(a.tile(row / kTileRows), out);
  if (a.rows - row < kTileRows) memset(out, 0, a.steps * kPair * kTileRows * 2);
  for (int64_t i = 0; i < std::min(kTileRows, a.rows - row); ++i) {
    (four ? micro.widen_row_i4 : micro.widen_row_i8)(a.row(row + i), out + 2 * i);
  }
}

// Rows are widened once for several panels of x, as many as fit beside x into L2.
void run_many(const GroupMatrix& a, const ManyMicro& micro, const float* x, int64_t lanes, Output y, const Epilogue& e,
              Pool& pool) {
  constexpr int64_t kWidenedBytes = 128 << 10;
  const LaneQuantiser how{kUnit, kLeast, fixed_of(a.kernel->isa).largest, micro.quantise};
  const Finish finish = micro_of(a.kernel->isa).finish;
  const int64_t pairs = a.steps * kPair / 2, tile_codes = kTileRows * 2 * pairs;
  const LaneCodes& q = codes_of_lanes(how, x, a.cols, pairs, lanes, e.same_x, pool);
  const int64_t most_tiles = std::clamp(kWidenedBytes / 2 / std::max<int64_t>(1, tile_codes), int64_t{2}, int64_t{32});
  const RowBlocks blocks(a.rows, most_tiles * kTileRows, kTileRows);
  const int64_t panels = panel_count(lanes), group = panels_a_task(panels, blocks.count, pool.available(), 8);
  const int64_t groups = (panels + group - 1) / group;
  const int64_t row_stride = a.bits() ? a.scales_a_row() : 1, block_stride = !a.bits() ? 4 : row_stride == 1 ? 0 : 1;
  pool.parallel(blocks.count * groups, [&](int64_t task, int worker) {
    const int64_t rb = task / groups, begin = blocks.begin(rb), end = blocks.end(rb);
    const int64_t p0 = task % groups * group, p1 = std::min(panels, p0 + group);
    int16_t* widened = reinterpret_cast<int16_t*>(pool.scratch(worker, blocks.size / kTileRows * tile_codes * 2));
    const auto tile_at = [&](int64_t r) { return widened + (r - begin) / kTileRows * tile_codes; };
    for (int64_t r = begin; r < end; r += kTileRows) widen_rows(a, micro, r, tile_at(r));
    for (int64_t p = p0; p < p1; ++p) {
      const int64_t width = panel_width(lanes, p);
      const YTile tile = tile_of(y, e.residual, a.rows, begin, p, width);
      for (int64_t lane = 0; lane < width; lane += kStrip) {
        for (int64_t r = begin; r < end; r += kTileRows) {
          const ManyTile view{tile_at(r),
                              pairs,
                              a.steps_a_block * kPair / 2,
                              std::min(kTileRows, end - r),
                              a.bits() ? a.row(r).scales : a.tile(r / kTileRows).scales,
                              row_stride,
                              block_stride};
          micro.strip(view, q.panel(p) + lane * 2 * pairs, std::min(kStrip, width - lane), q.scales.data() + p * kPanel + lane,
                      tile.y + (r - begin) * tile.ldy + lane, tile.ldy);
        }
      }
      finish_tile(finish, tile, begin, end - begin, width, e);
    }
  });
}

}  // namespace

std::unique_ptr<Packed> pack_groups(const Source& source, Format format, ValueType type, Isa isa) {
  if (source.format != format || source.type != type || source.zeros) return nullptr;
  if (format == Format::nm && kGroup % source.c) return nullptr;
  auto a = std::make_unique<GroupMatrix>();
  a->rows = source.rows;
  a->cols = source.cols;
  a->type = type;
  a->dense = format == Format::dense;
  if (format != Format::bitmask) a->quarters = a->dense ? 4 : static_cast<int>((source.r * kGroup / source.c + 3) / 4);
  a->tiles = (source.rows + kTileRows - 1) / kTileRows;
  a->steps = (source.cols + kPair - 1) / kPair;
  a->steps_a_block = (source.scale_group ? source.scale_group : kMostBlock) / kPair;
  a->blocks = (a->steps + a->steps_a_block - 1) / a->steps_a_block;
  const RowReader reader(source);
  if (format == Format::bitmask) {
    pack_bits(*a, source, reader, isa);
    return a;
  }
  a->codes = Buffer(a->tiles * a->tile_bytes());
  memset(a->codes.data(), 0, a->codes.bytes());
  a->scales.assign(a->tiles * a->blocks * 4, 0);
  Pool::get().parallel(a->tiles, [&](int64_t tile, int) {
    std::vector<int32_t> cols;
    for (int64_t r = tile * kTileRows; r < std::min(a->rows, (tile + 1) * kTileRows); ++r) {
      fill_row(*a, source, reader, r, cols);
    }
  });
  return a;
}

void run_groups(const Packed& packed, const float* x, int64_t lanes, Output y, const Epilogue& e, Pool& pool) {
  const auto& a = static_cast<const GroupMatrix&>(packed);
  const GroupMicro& micro = groups_of(a.kernel->isa);
  if (micro.many && lanes >= kLaneUnit) return run_many(a, *micro.many, x, lanes, y, e, pool);
  const bool four = a.type == ValueType::i4;
  const Quantised& q = quantise_x(x, a.cols, lanes, pool);
  const auto finish = a.kernel->isa == Isa::scalar ? finish_scalar : micro_of(a.kernel->isa).finish;
  const RowBlocks blocks(a.rows, std::max<int64_t>(kTileRows, a.rows / (4 * pool.available())), kTileRows);
  const int64_t panels = panel_count(lanes);
  pool.parallel(blocks.count * panels, [&](int64_t task, int) {
    const int64_t rb = task / panels, begin = blocks.begin(rb), end = blocks.end(rb), p = task % panels;
    const int64_t width = panel_width(lanes, p), valid = std::min(kPanel, lanes - p * kPanel);
    const YTile tile = tile_of(y, e.residual, a.rows, begin, p, width);
    const int8_t* xs = q.codes.data() + p * kPanel * q.stride;
    float sums[kPanel * kTileRows];
    for (int64_t r = begin; r < end && a.bits(); ++r) {
      (four ? micro.row_i4 : micro.row_i8)(a.row(r), xs, q.stride, valid, sums);
      float* out = tile.y + (r - begin) * tile.ldy;
      for (int64_t t = 0; t < valid; ++t) out[t] = sums[t] * q.scales[p * kPanel + t];
      for (int64_t t = valid; t < width; ++t) out[t] = 0;
    }
    for (int64_t r = begin; r < end && !a.bits(); r += kTileRows) {
      (four ? micro.tile_i4 : micro.tile_i8)(a.tile(r / kTileRows), xs, q.stride, valid, sums);
      for (int64_t i = 0; i < std::min(kTileRows, end - r); ++i) {
        float* out = tile.y + (r - begin + i) * tile.ldy;
        for (int64_t t = 0; t < valid; ++t) out[t] = sums[4 * t + i] * q.scales[p * kPanel + t];
        for (int64_t t = valid; t < width; ++t) out[t] = 0;
      }
    }
    finish_tile(finish, tile, begin, end - begin, width, e);
  });
}

}  // namespace zs
