// Dense matrices and bitmasks in bfloat16, by tiles of 16 rows and 32 columns: Y = act(A X + bias) + residual with x rounded to
// bfloat16 as well, products exact, sums in float32. Made for AMX, whose dense product is three to four times that of float32: below
// 90 % zeros no kernel that multiplies entry by entry can be faster, so a bitmask is expanded to tiles and saves its memory alone.
//
// Layout: A in runs of 16 rows. Dense: [run][step of 32 columns][16][32]. Bitmask: 32 bits a row and step, in the same order, and
// behind each other the values that have a bit. X: [panel][16 lanes][step][pair of columns][16][2], made once a call.
//
// A task has up to 128 rows and 512 lanes. It takes 512 columns at a time: of A's tiles, 32 rows by 512 columns (32 KiB)
// are in L1 while the lanes pass by; of x's, 512 columns by 512 lanes (512 KiB) in L2 while the rows do. Where all of x is in L2
// anyway, 32 rows go through all columns before the next 32, and A is read as it lies. Y is the accumulator between
// blocks of columns, where it has whole tiles, else a copy of its corner.
//
// A panel of X with NaN or infinity in it, or with what rounding would make infinite, is multiplied entry by entry: a tile
// multiplies zeros too. What bfloat16 cannot hold then stays as it is. The tile products take subnormal values, and subnormal
// products and sums, as zero.
#include <math.h>

#include <vector>

#include "blocks.h"
#include "source.h"
#include "tiles.h"

namespace zs {
namespace {

constexpr int64_t kTaskRows = 128;
constexpr int64_t kTaskPanels = 8;
constexpr int64_t kBlockSteps = 16;  // steps of columns at a time
constexpr int64_t kRoundSteps = 8;  // steps of columns that a task rounds
constexpr int64_t kRuns = kPanel / kSquare;  // of 16 lanes in a panel

struct TileMatrix : Packed {
  bool masked = false;
  int64_t runs = 0, steps = 0;
  Buffer values;
  std::vector<uint32_t> masks;  // [run][step][16]
  std::vector<int64_t> starts;  // [run], where its values begin; and the end

  uint16_t* at(int64_t value) const { return reinterpret_cast<uint16_t*>(values.data()) + value; }
  const uint32_t* masks_of(int64_t run, int64_t step) const { return masks.data() + (run * steps + step) * kSquare; }
  int64_t bytes() const override { return values.bytes() + static_cast<int64_t>(4 * masks.size() + 8 * starts.size()); }
};

int64_t count_of(uint32_t mask) { return count_word(mask); }

// Calls body(row in the run, columns, values, how many) for each row of a run.
template <class Body> void each_row(const TileMatrix& a, const RowReader& reader, int64_t run, const Body& body) {
  std::vector<int32_t> cols;
  std::vector<float> values;
  for (int64_t r = 0; r < std::min(kSquare, a.rows - run * kSquare); ++r) {
    const int64_t n = reader.read(run * kSquare + r, cols, values);
    body(r, cols, values, n);
  }
}

void fill_dense(TileMatrix& a, const RowReader& reader) {
  a.values = Buffer(a.runs * a.steps * kTileBytes);
  memset(a.values.data(), 0, a.values.bytes());
  Pool::get().parallel(a.runs, [&](int64_t run, int) {
    each_row(a, reader, run, [&](int64_t r, const auto& cols, const auto& values, int64_t n) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t tile = run * a.steps + cols[i] / kDeep;
        *a.at(tile * kTileValues + r * kDeep + cols[i] % kDeep) = float_to_bf16(values[i]);
      }
    });
  });
}

void fill_masked(TileMatrix& a, const RowReader& reader) {
  a.masks.assign(a.runs * a.steps * kSquare, 0);
  a.starts.assign(a.runs + 1, 0);
  for (int64_t r = 0; r < a.rows; ++r) a.starts[r / kSquare + 1] += reader.count(r);
  for (int64_t run = 0; run < a.runs; ++run) a.starts[run + 1] += a.starts[run];
  a.values = Buffer(2 * a.starts[a.runs]);
  Pool::get().parallel(a.runs, [&](int64_t run, int) {
    uint32_t* masks = a.masks.data() + run * a.steps * kSquare;
    each_row(a, reader, run, [&](int64_t r, const auto& cols, const auto&, int64_t n) {
      for (int64_t i = 0; i < n; ++i) masks[cols[i] / kDeep * kSquare + r] |= 1u << cols[i] % kDeep;
    });
    std::vector<int64_t> next(a.steps * kSquare);  // where the next value of a row of a tile goes
    int64_t place = a.starts[run];
    for (int64_t i = 0; i < a.steps * kSquare; ++i) {
      next[i] = place;
      place += count_of(masks[i]);
    }
    each_row(a, reader, run, [&](int64_t r, const auto& cols, const auto& values, int64_t n) {
      for (int64_t i = 0; i < n; ++i) *a.at(next[cols[i] / kDeep * kSquare + r]++) = float_to_bf16(values[i]);
    });
  });
}

// X of all panels in tiles, and which panels are fit for them. Kept per calling thread so that repeated calls do not allocate.
struct RoundedX {
  Buffer tiles;
  std::vector<uint8_t> fit;  // [panel]

  const uint16_t* run(int64_t panel, int64_t run, int64_t steps) const {
    return reinterpret_cast<const uint16_t*>(tiles.data()) + (panel * kRuns + run) * steps * kTileValues;
  }
};

const RoundedX& round_all(const TileMicro& micro, const float* x, int64_t cols, int64_t lanes, Pool& pool) {
  thread_local RoundedX made;
  RoundedX& out = made;
  const int64_t steps = (cols + kDeep - 1) / kDeep, panels = panel_count(lanes);
  const int64_t blocks = (steps + kRoundSteps - 1) / kRoundSteps, bytes = panels * kRuns * steps * kTileBytes;
  if (!out.tiles.data() || out.tiles.bytes() < bytes) out.tiles = Buffer(bytes);  // of no columns, too: null is no run
  std::vector<uint8_t> fit(panels * blocks);
  pool.parallel(panels * blocks, [&](int64_t task, int) {
    const int64_t p = task / blocks, s0 = task % blocks * kRoundSteps, c0 = s0 * kDeep, width = panel_width(lanes, p);
    uint16_t* to = reinterpret_cast<uint16_t*>(out.tiles.data()) + (p * kRuns * steps + s0) * kTileValues;
    const int64_t count = std::min(cols - c0, kRoundSteps * kDeep);
    fit[task] = micro.round_x(x + p * kPanel * cols + c0 * width, width, count, to, steps * kTileValues);
  });
  out.fit.assign(panels, 1);
  for (int64_t task = 0; task < panels * blocks; ++task) out.fit[task / blocks] &= fit[task];
  return out;
}

// Rows begin to end of one panel, stored entries alone; x is rounded where that leaves it finite.
void multiply_entries(const TileMatrix& a, int64_t begin, int64_t end, const float* x, int64_t width, const YTile& tile) {
  const auto add = [&](int64_t row, int64_t col, uint16_t value) {
    if (row >= end || col >= a.cols) return;
    float* y = tile.y + (row - begin) * tile.ldy;
    for (int64_t t = 0; t < width; ++t) {
      const float given = x[col * width + t], near = bf16_to_float(float_to_bf16(given));
      y[t] += bf16_to_float(value) * (isfinite(near) ? near : given);
    }
  };
  for (int64_t r = begin; r < end; ++r) memset(tile.y + (r - begin) * tile.ldy, 0, static_cast<size_t>(4 * width));
  for (int64_t run = begin / kSquare; run * kSquare < end; ++run) {
    const uint16_t* value = a.at(a.masked ? a.starts[run] : run * a.steps * kTileValues);
    for (int64_t i = 0; i < a.steps * kSquare; ++i) {
      const uint32_t mask = a.masked ? a.masks_of(run, 0)[i] : 0xffffffffu;
      for (int64_t bit = 0; bit < kDeep; ++bit) {
        if (mask >> bit & 1) add(run * kSquare + i % kSquare, i / kSquare * kDeep + bit, *value++);
      }
    }
  }
}

// Y of a block that ends inside a tile is put together here, and its part of the matrix copied.
struct Corner {
  float at[2 * kSquare][2 * kSquare];

  void read(const YTile& tile, int64_t rows, int64_t lanes) {
    for (int64_t r = 0; r < rows; ++r) memcpy(at[r], tile.y + r * tile.ldy, static_cast<size_t>(4 * lanes));
  }
  void write(const YTile& tile, int64_t rows, int64_t lanes) const {
    for (int64_t r = 0; r < rows; ++r) memcpy(tile.y + r * tile.ldy, at[r], static_cast<size_t>(4 * lanes));
  }
};

// One task: rows begin to end, panels p0 to p1.
class Task {
 public:
  Task(const TileMatrix& a, const TileMicro& micro, const RoundedX& x, int64_t begin, int64_t end, int64_t p0, int64_t p1)
      : a_(a), micro_(micro), x_(x), begin_(begin), end_(end), p0_(p0), p1_(p1) {
    for (int64_t run = 0; a.masked && begin + run * kSquare < end; ++run) next_[run] = a.at(a.starts[begin / kSquare + run]);
  }

  // `room`: as many bytes as two runs of kBlockSteps tiles. y_of(panel) is Y of the first row.
  template <class YOf> void multiply(int64_t lanes, uint16_t* room, const YOf& y_of) {
    micro_.begin();
    const int64_t x_bytes = (p1_ - p0_) * kRuns * a_.steps * kTileBytes;
    const int64_t rows = 2 * x_bytes <= cpu().l2_bytes ? 2 * kSquare : kTaskRows;
    for (int64_t row = begin_; row < end_; row += rows) multiply_rows(row, std::min(end_, row + rows), lanes, room, y_of);
    micro_.end();
  }

 private:
  template <class YOf> void multiply_rows(int64_t begin, int64_t end, int64_t lanes, uint16_t* room, const YOf& y_of) {
    const int64_t blocks = std::max<int64_t>(1, (a_.steps + kBlockSteps - 1) / kBlockSteps);
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t s0 = a_.steps * block / blocks, s1 = a_.steps * (block + 1) / blocks;
      for (int64_t row = begin; row < end; row += 2 * kSquare) {
        TileBlock b{};
        b.steps = s1 - s0;
        b.first = block == 0;
        find_rows(b, row, s0, room);
        for (int64_t p = p0_; p < p1_; ++p) {
          if (x_.fit[p]) multiply_panel(b, row, p, panel_width(lanes, p), s0, y_of(p));
        }
      }
    }
  }

  void find_rows(TileBlock& b, int64_t row, int64_t step, uint16_t* room) {
    for (int64_t i = 0; i < 2 && row + i * kSquare < end_; ++i) {
      const int64_t run = row / kSquare + i;
      b.a[i] = a_.masked ? room + i * kBlockSteps * kTileValues : a_.at((run * a_.steps + step) * kTileValues);
      if (!a_.masked) continue;
      b.masks[i] = a_.masks_of(run, step);
      b.values[i] = next_[run - begin_ / kSquare];
    }
  }

  void multiply_panel(TileBlock& b, int64_t row, int64_t p, int64_t width, int64_t step, YTile whole) {
    const int64_t rows = std::min(2 * kSquare, end_ - row);
    for (int64_t t = 0; t < width; t += 2 * kSquare) {
      const int64_t lanes = std::min(2 * kSquare, width - t);
      b.x[0] = x_.run(p, t / kSquare, a_.steps) + step * kTileValues;
      b.x[1] = lanes > kSquare ? x_.run(p, t / kSquare + 1, a_.steps) + step * kTileValues : nullptr;
      const YTile tile{whole.y + (row - begin_) * whole.ldy + t, nullptr, whole.ldy};
      const bool inside = rows % kSquare == 0 && lanes % kSquare == 0;
      Corner corner;
      if (!inside && !b.first) corner.read(tile, rows, lanes);
      b.y = inside ? tile.y : corner.at[0];
      b.ldy = inside ? tile.ldy : 2 * kSquare;
      micro_.multiply(b);
      if (!inside) corner.write(tile, rows, lanes);
      for (int64_t i = 0; i < 2 && b.masks[i]; ++i) {  // expanded now: the lanes to come find the tiles in place
        next_[(row - begin_) / kSquare + i] = b.values[i];
        b.masks[i] = nullptr;
      }
    }
  }

  const TileMatrix& a_;
  const TileMicro& micro_;
  const RoundedX& x_;
  int64_t begin_, end_, p0_, p1_;
  const uint16_t* next_[kTaskRows / kSquare] = {};  // by run: the values of the next block of columns
};

}  // namespace

std::unique_ptr<Packed> pack_tiles(const Source& source, Format format, ValueType, Isa) {
  auto a = std::make_unique<TileMatrix>();
  a->rows = source.rows;
  a->cols = source.cols;
  a->masked = format == Format::bitmask;
  a->runs = (source.rows + kSquare - 1) / kSquare;
  a->steps = (source.cols + kDeep - 1) / kDeep;
  const RowReader reader(source);
  if (a->masked) {
    fill_masked(*a, reader);
  } else {
    fill_dense(*a, reader);
  }
  return a;
}

void run_tiles_by(const TileMicro& micro, Finish finish, const Packed& packed, const float* x, int64_t lanes, Output y,
                  const Epilogue& e, Pool& pool) {
  const auto& a = static_cast<const TileMatrix&>(packed);
  const RoundedX& rounded = round_all(micro, x, a.cols, lanes, pool);
  const RowBlocks blocks(a.rows, kTaskRows, 2 * kSquare);
  // Every task expands its rows once, so it takes all lanes, unless threads would go without or x not fit L2.
  const int64_t panels = panel_count(lanes), fewest = std::max<int64_t>(1, (panels + kTaskPanels - 1) / kTaskPanels);
  const int64_t wanted = (2 * pool.available() + blocks.count - 1) / std::max<int64_t>(1, blocks.count);
  const int64_t groups = std::clamp(wanted, fewest, std::max<int64_t>(1, panels));
  const int64_t group = (panels + groups - 1) / groups;
  pool.parallel(blocks.count * groups, [&](int64_t index, int worker) {
    const int64_t rb = index / groups, begin = blocks.begin(rb), end = blocks.end(rb);
    const int64_t p0 = std::min(panels, index % groups * group), p1 = std::min(panels, p0 + group);
    const auto y_of = [&](int64_t p) { return tile_of(y, e.residual, a.rows, begin, p, panel_width(lanes, p)); };
    uint16_t* room = reinterpret_cast<uint16_t*>(pool.scratch(worker, 2 * kBlockSteps * kTileBytes));
    Task(a, micro, rounded, begin, end, p0, p1).multiply(lanes, room, y_of);
    for (int64_t p = p0; p < p1; ++p) {
      const int64_t width = panel_width(lanes, p);
      if (!rounded.fit[p]) multiply_entries(a, begin, end, x + p * kPanel * a.cols, width, y_of(p));
      finish_tile(finish, y_of(p), begin, end - begin, width, e);
    }
  });
}

#if defined(ZS_HAVE_AMX)
void run_tiles(const Packed& packed, const float* x, int64_t lanes, Output y, const Epilogue& e, Pool& pool) {
  run_tiles_by(tiles_amx, micro_of(packed.kernel->isa).finish, packed, x, lanes, y, e, pool);
}
#endif

}  // namespace zs
