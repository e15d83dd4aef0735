// Unstructured and N:M matrices. The matrix is cut into cells: a block of rows by a block of at most 256 columns, chosen so
// that the rows of X that a cell needs (64 lanes wide) stay in L1 while its rows run over them, and the block of Y stays
// in L2. Within a cell rows are sorted by their number of entries (micro.inl says why).
//
//   csr      one byte a column index (it is inside the block) and the value; the narrow one, for at most 16 lanes, has blocks
//            of 512 columns and 16 bits an index
//   bitmask  one bit a column and the values; for panels the bits are expanded to indices, once for several panels of X
//   nm       four bits a position in the group (M <= 16; a byte above) and the values
//
// Values of 16 bits are widened to float32 the same way, and codes of 8 and 4 bits decoded (codes.inl); those of 4 bits lie two a
// byte, each cell from a byte of its own on. Directory: 2 bytes a row and cell for its place, 2 for its count
// (bitmask: 1 and 0).
#include <atomic>
#include <numeric>
#include <vector>

#include "blocks.h"
#include "source.h"

namespace zs {
namespace {

struct Cell {
  int64_t value_at;  // first entry, counted in values
  int64_t code_at;  // first byte in codes
};

// Rows of Y that a task goes through for each block of X: a quarter of L2, and some so that blocks of an odd size fit. Above that
// it reads more of Y from there than it saves in copies of X (Zen 3, 512 KiB: 1024 rows 4 % slower than 512; Emerald Rapids, 2 MiB:
// 2048 rows 3 to 18 % faster than 512).
int64_t tile_rows() { return std::clamp<int64_t>(cpu().l2_bytes / (4 * kPanel * 4), 256, 2048) + 64; }

struct CellMatrix : Packed {
  Format format = Format::csr;
  ValueType type = ValueType::f32;
  bool narrow = false;  // csr for few lanes: wide column blocks, 16 bits an index
  int64_t n = 0, m = 0;  // N:M
  int64_t col_block = 0, col_blocks = 0;
  RowBlocks blocks;
  std::vector<Cell> cells;  // [row block][column block], and the end
  std::vector<uint8_t> row_ids8;  // bitmask: [row block][column block][row]
  std::vector<uint16_t> row_ids;  // csr, nm
  std::vector<uint16_t> counts;
  Buffer codes, values;
  CodeScales scales;  // i8, i4

  int64_t bytes() const override {
    return static_cast<int64_t>(cells.size() * sizeof(Cell) + row_ids8.size() + 2 * (row_ids.size() + counts.size())) +
           codes.bytes() + values.bytes() + scales.bytes();
  }
  int64_t columns(int64_t kb) const { return std::min(cols, (kb + 1) * col_block) - kb * col_block; }
  // Directory entries before a cell: rows of earlier blocks count once a column block.
  int64_t directory(int64_t rb, int64_t kb) const {
    return blocks.begin(rb) * col_blocks + kb * (blocks.end(rb) - blocks.begin(rb));
  }
  bool expands() const { return format != Format::csr || type != ValueType::f32; }
  bool nibbles() const { return format == Format::nm && m <= 16; }
  // Bytes of codes that a row with `count` entries takes in a cell of `width` columns.
  int64_t code_bytes(int64_t count, int64_t width) const {
    if (format == Format::bitmask) return (width + 7) / 8;
    return nibbles() ? (count + 15) / 16 * 8 : narrow ? 2 * count : count;
  }
};

// Columns of a block, from the share of entries: at most what L1 holds of X at 64 lanes, less where rows are full (X shares
// L1 with the entries), more where they are nearly empty (a row's pass over Y must be worth it). See micro.inl. All blocks are
// about as wide: a last one of few columns would cost a pass over Y like the others.
int64_t column_block(double density, int64_t cols, int64_t multiple, int64_t most) {
  // 48 KiB of L1: counted as 36, 3 to 7 % faster from 50 to 95 % than counted whole (Emerald Rapids, 128 lanes).
  const int64_t l1_rows = std::clamp<int64_t>(cpu().l1d_bytes / (kPanel * 4), 64, 144);
  const int64_t wanted = density > 0.3    ? l1_rows * 3 / 4
                         : density > 0.15 ? l1_rows
                         : density > 0.07 ? l1_rows * 5 / 4
                                          : 2 * l1_rows;
  const int64_t block = std::max(std::min(wanted, most) / multiple * multiple, multiple);
  const int64_t count = std::max<int64_t>(1, (cols + block / 2) / block);
  const int64_t even = ((cols + count - 1) / count + multiple - 1) / multiple * multiple;
  return even <= most ? std::max(even, multiple) : block;
}

// As many as let 16 lanes of X fill L1, fewer where rows are full (48 KiB of L1, 16 lanes: at 50 % 768 columns take a sixth longer than 512, at
// 90 % a tenth; at 95 % a tenth less), but no fewer than 512, which are best where L1 has 32 KiB.
int64_t narrow_block(double density) {
  const int64_t all = cpu().l1d_bytes / (16 * 4);
  return std::clamp<int64_t>(density > 0.3 ? all * 2 / 3 : density > 0.07 ? all * 5 / 6 : all, 512, 1024);
}

// As many rows as have `repaid` entries, which is what loading a block of X costs little beside; at least as many blocks as
// threads.
int64_t row_block(double density, int64_t cols, int64_t most, double repaid, int64_t rows) {
  const double entries = std::max(1.0, density * static_cast<double>(cols));
  const int64_t wanted = std::clamp<int64_t>(static_cast<int64_t>(repaid / entries), 64, most);
  const int64_t shared = (rows + Pool::get().size() - 1) / Pool::get().size();
  return std::clamp<int64_t>(wanted, 16, std::max<int64_t>(16, shared));
}

void plan_blocks(CellMatrix& a, const Source& source, int64_t entries) {
  const double total = static_cast<double>(source.rows) * static_cast<double>(source.cols);
  const double density = total > 0 ? static_cast<double>(entries) / total : 0;
  int64_t multiple = a.format == Format::bitmask ? 16 : a.format == Format::nm ? a.m : 1, widest = 256;
  if (a.scales.group) {  // eight groups a cell at most, wherever the first of them begins
    const int64_t both = std::lcm(a.nibbles() ? multiple : 1, int64_t{32});
    if (both <= widest) {
      multiple = both;
    } else {
      widest = 224;
    }
  }
  a.col_block = a.narrow ? narrow_block(density) : column_block(density, source.cols, multiple, widest);
  a.col_blocks = (source.cols + a.col_block - 1) / a.col_block;
  const int64_t most = a.format == Format::bitmask ? 256 : 1024;
  a.blocks = RowBlocks(source.rows, row_block(density, a.col_block, most, a.narrow ? 32768 : 6144, source.rows), 1);
}

// Entries of each row in each column block, counted in parallel: [row][column block].
std::vector<uint16_t> count_entries(const CellMatrix& a, const Source& source, const RowReader& reader) {
  std::vector<uint16_t> count(a.rows * a.col_blocks, 0);
  Pool::get().parallel(a.blocks.count, [&](int64_t rb, int) {
    std::vector<int32_t> cols;
    for (int64_t r = a.blocks.begin(rb); r < a.blocks.end(rb); ++r) {
      uint16_t* row = &count[r * a.col_blocks];
      if (source.format == Format::bitmask && a.col_block % 8 == 0) {
        const int64_t bytes = (a.cols + 7) / 8, step = a.col_block / 8;
        for (int64_t b = 0; b < bytes; b += step) {
          row[b / step] = static_cast<uint16_t>(count_bits(source.bits + r * bytes + b, std::min(step, bytes - b)));
        }
        continue;
      }
      const int64_t n = reader.columns(r, cols);
      for (int64_t i = 0; i < n; ++i) ++row[cols[i] / a.col_block];
    }
  });
  return count;
}

// Where a row's entries of one column block go.
struct Place {
  int64_t value_at, code_at;
};

// Rows of a block by falling number of entries in a column block, equal ones in order: a counting sort.
void sort_rows(const CellMatrix& a, const std::vector<uint16_t>& count, int64_t rb, int64_t kb, std::vector<int32_t>& order) {
  const int64_t begin = a.blocks.begin(rb), end = a.blocks.end(rb);
  std::vector<int32_t> first(a.col_block + 2);  // those with more entries come first
  for (int64_t r = begin; r < end; ++r) ++first[a.col_block - count[r * a.col_blocks + kb] + 1];
  for (int64_t i = 0; i <= a.col_block; ++i) first[i + 1] += first[i];
  order.resize(end - begin);
  for (int64_t r = begin; r < end; ++r) {
    order[first[a.col_block - count[r * a.col_blocks + kb]]++] = static_cast<int32_t>(r - begin);
  }
}

// Lays out the directory and the offsets of the cells: for each row and column block where its entries go.
std::vector<Place> lay_out(CellMatrix& a, const std::vector<uint16_t>& count) {
  std::vector<Place> place(a.rows * a.col_blocks);
  const bool bits = a.format == Format::bitmask;
  if (bits) {
    a.row_ids8.resize(place.size());
  } else {
    a.row_ids.resize(place.size());
    a.counts.resize(place.size());
  }
  Place at{0, 0};
  std::vector<int32_t> order;
  for (int64_t rb = 0; rb < a.blocks.count; ++rb) {
    for (int64_t kb = 0; kb < a.col_blocks; ++kb) {
      if (a.type == ValueType::i4) at.value_at += at.value_at % 2;  // two threads must not write to one byte
      a.cells.push_back({at.value_at, at.code_at});
      sort_rows(a, count, rb, kb, order);
      int64_t slot = a.directory(rb, kb);
      for (const int32_t r : order) {
        const int64_t index = (a.blocks.begin(rb) + r) * a.col_blocks + kb;
        place[index] = at;
        if (bits) {
          a.row_ids8[slot++] = static_cast<uint8_t>(r);
        } else {
          a.counts[slot] = count[index];
          a.row_ids[slot++] = static_cast<uint16_t>(r);
        }
        at.value_at += count[index];
        at.code_at += a.code_bytes(count[index], a.columns(kb));
      }
    }
  }
  a.cells.push_back({at.value_at, at.code_at});
  a.values = Buffer(stored_bytes(a.type, at.value_at));
  a.codes = Buffer(at.code_at);
  return place;
}

// The codes of n entries of one row in one column block; cols count from the block's first column.
void store_codes(const CellMatrix& a, uint8_t* code, const int32_t* cols, int32_t first, int64_t n) {
  if (a.format == Format::bitmask) {
    for (int64_t i = 0; i < n; ++i) {
      const int32_t column = cols[i] - first;
      code[column / 8] = static_cast<uint8_t>(code[column / 8] | 1 << (column % 8));
    }
  } else if (a.nibbles()) {  // sixteen a time: low halves of eight bytes, then their high halves
    for (int64_t i = 0; i < n; ++i) {
      uint8_t& byte = code[i / 16 * 8 + i % 8];
      byte = static_cast<uint8_t>(byte | (cols[i] - first) % a.m << (i % 16 < 8 ? 0 : 4));
    }
  } else if (a.narrow) {
    for (int64_t i = 0; i < n; ++i) {
      const uint16_t scaled = static_cast<uint16_t>(8 * (cols[i] - first));
      memcpy(code + 2 * i, &scaled, 2);
    }
  } else {
    for (int64_t i = 0; i < n; ++i) code[i] = static_cast<uint8_t>(cols[i] - first);
  }
}

void fill(CellMatrix& a, const Source& source, const RowReader& reader, const std::vector<Place>& place) {
  const int64_t size = value_bytes(a.type);
  const bool as_it_is = source.type == a.type && reader.contiguous() && a.type != ValueType::i4;
  memset(a.codes.data(), 0, a.codes.bytes());
  if (a.type == ValueType::i4) memset(a.values.data(), 0, a.values.bytes());
  Pool::get().parallel(a.blocks.count, [&](int64_t rb, int) {
    std::vector<int32_t> cols;
    std::vector<float> values;
    for (int64_t r = a.blocks.begin(rb); r < a.blocks.end(rb); ++r) {
      const int64_t n = as_it_is ? reader.columns(r, cols) : reader.read(r, cols, values);
      for (int64_t i = 0, end; i < n; i = end) {
        const int64_t kb = cols[i] / a.col_block, stop = (kb + 1) * a.col_block;
        for (end = i + 1; end < n && cols[end] < stop;) ++end;
        const Place& at = place[r * a.col_blocks + kb];
        if (as_it_is) {
          memcpy(a.values.data() + at.value_at * size, static_cast<const uint8_t*>(source.data) + (reader.first(r) + i) * size,
                 (end - i) * size);
        } else {
          store_values(a.values.data(), a.type, at.value_at, &values[i], end - i);
        }
        store_codes(a, a.codes.data() + at.code_at, &cols[i], static_cast<int32_t>(kb * a.col_block), end - i);
      }
    }
  });
}

// The codes of a cell, one a byte: those of 4 bits are unpacked into `room`.
const int8_t* unpacked(const CellMatrix& a, const Micro& micro, const Cell* cell, int8_t* room) {
  const uint8_t* codes = a.values.data() + stored_bytes(a.type, cell->value_at);
  if (a.type == ValueType::i8) return reinterpret_cast<const int8_t*>(codes);
  micro.unpack_nibbles(codes, cell[1].value_at - cell->value_at, room);
  return room;
}

// Scratch for one expanded cell.
struct Expanded {
  uint16_t* row_ids = nullptr;
  uint16_t* counts = nullptr;
  uint8_t* indices = nullptr;
  float* values = nullptr;
  int8_t* unpacked = nullptr;
  uint8_t group_base[256 + 16];

  Expanded(const CellMatrix& a, float* room) {
    if (!a.expands()) return;
    const int64_t rows = (a.blocks.size + 31) / 32 * 32, most = rows * a.col_block;
    uint8_t* at = reinterpret_cast<uint8_t*>(room);
    values = reinterpret_cast<float*>(at);
    at += most * 4 + 64;
    row_ids = reinterpret_cast<uint16_t*>(at);
    counts = row_ids + rows;
    indices = at + rows * 4;
    unpacked = reinterpret_cast<int8_t*>(indices + most + 64);
    for (int64_t i = 0; i < static_cast<int64_t>(sizeof group_base); ++i) {
      group_base[i] = a.n ? static_cast<uint8_t>(std::min<int64_t>(i / a.n * a.m, 255)) : 0;
    }
  }
  static int64_t floats(const CellMatrix& a) {
    if (!a.expands()) return 0;
    const int64_t rows = (a.blocks.size + 31) / 32 * 32;
    return (rows * a.col_block * (a.type == ValueType::i4 ? 6 : 5) + rows * 4 + 256 + 63) / 64 * 16;
  }
};

CodesView view_codes(const CellMatrix& a, const int8_t* codes, int64_t rb, int64_t kb) {
  const CodeScales& s = a.scales;
  const int64_t row = a.blocks.begin(rb), column = kb * a.col_block;
  if (!s.group) return {codes, s.scale(row, 0), s.zero(row, 0), s.groups, 1, 0, 31};
  const int64_t first = column / s.group, groups = (column + a.columns(kb) - 1) / s.group - first + 1;
  return {codes,
          s.scale(row, first),
          s.zero(row, first),
          s.groups,
          groups,
          static_cast<int>(column % s.group),
          __builtin_ctzll(static_cast<uint64_t>(s.group))};
}

CellView view_cell(const CellMatrix& a, const Micro& micro, int64_t rb, int64_t kb, Expanded& room) {
  const Cell& cell = a.cells[rb * a.col_blocks + kb];
  const int64_t rows = a.blocks.end(rb) - a.blocks.begin(rb), slot = a.directory(rb, kb);
  const uint8_t* codes = a.codes.data() + cell.code_at;
  CellView view{rows, nullptr, nullptr, codes, nullptr};
  int64_t entries = 0;
  if (a.format == Format::bitmask) {
    const int64_t bytes = (a.columns(kb) + 7) / 8;
    uint8_t* out = room.indices;
    for (int64_t i = 0; i < rows; ++i) {
      uint8_t* end = micro.expand_bits(codes + i * bytes, bytes, out);
      room.row_ids[i] = a.row_ids8[slot + i];
      room.counts[i] = static_cast<uint16_t>(end - out);
      out = end;
    }
    entries = out - room.indices;
    view.row_ids = room.row_ids;
    view.counts = room.counts;
    view.indices = room.indices;
  } else {
    view.row_ids = &a.row_ids[slot];
    view.counts = &a.counts[slot];
    if (a.nibbles()) {
      uint8_t* out = room.indices;
      for (int64_t i = 0; i < rows; ++i) {
        out = micro.expand_nibbles(codes, view.counts[i], room.group_base, out);
        codes += a.code_bytes(view.counts[i], 0);
      }
      view.indices = room.indices;
    }
    if (a.type != ValueType::f32 && !is_code(a.type)) entries = std::accumulate(view.counts, view.counts + rows, int64_t{0});
  }
  const uint8_t* values = a.values.data() + stored_bytes(a.type, cell.value_at);
  if (a.type == ValueType::f32) {
    view.values = reinterpret_cast<const float*>(values);
  } else {
    if (is_code(a.type)) {
      micro.decode(view, view_codes(a, unpacked(a, micro, &cell, room.unpacked), rb, kb), room.values);
    } else {
      micro.widen(values, a.type, entries, room.values);
    }
    view.values = room.values;
  }
  return view;
}

void run_one_lane(const CellMatrix& a, const Micro& micro, const float* x, float* y, const Epilogue& e, Pool& pool) {
  Buffer room;
  const float* lane = padded_lane(x, a.cols, room);
  pool.parallel(a.blocks.count, [&](int64_t rb, int worker) {
    const int64_t begin = a.blocks.begin(rb), rows = a.blocks.end(rb) - begin;
    if (a.format == Format::bitmask) {
      const int64_t four = a.type == ValueType::i4 ? rows * a.col_block + 64 : 0;
      float* sums = pool.scratch(worker, rows * kSumLanes * sizeof(float) + four);
      int8_t* room = reinterpret_cast<int8_t*>(sums + rows * kSumLanes);
      memset(sums, 0, rows * kSumLanes * sizeof(float));
      for (int64_t kb = 0; kb < a.col_blocks; ++kb) {
        const Cell& cell = a.cells[rb * a.col_blocks + kb];
        const void* values = a.values.data() + stored_bytes(a.type, cell.value_at);
        CodesView codes{};
        if (is_code(a.type)) {
          codes = view_codes(a, unpacked(a, micro, &cell, room), rb, kb);
          values = codes.codes;
        }
        micro.bits_one(rows, &a.row_ids8[a.directory(rb, kb)], a.codes.data() + cell.code_at, (a.columns(kb) + 7) / 8, values,
                       is_code(a.type) ? ValueType::i8 : a.type, &codes, lane + kb * a.col_block, sums);
      }
      micro.sum_lanes(sums, rows, y + begin);
    } else {
      memset(y + begin, 0, rows * sizeof(float));
      Expanded expanded(a, pool.scratch(worker, Expanded::floats(a) * sizeof(float)));
      for (int64_t kb = 0; kb < a.col_blocks; ++kb) {
        const auto cell = a.narrow ? micro.cell_one_narrow : micro.cell_one;
        cell(view_cell(a, micro, rb, kb, expanded), lane + kb * a.col_block, y + begin);
      }
    }
    const YTile tile = tile_of({y, 0}, e.residual, a.rows, begin, 0, 1);
    finish_tile(micro.finish, tile, begin, rows, 1, e);
  });
}

// What a task takes: so many row blocks of so many panels, copying the blocks of X that it meets where `copies` says so.
struct Split {
  int64_t blocks, ranges, panels, groups;
  bool copies;
};

Split split_into(const CellMatrix& a, int64_t blocks, int64_t panels, int64_t all_panels, bool copies) {
  return {blocks, (a.blocks.count + blocks - 1) / blocks, panels, (all_panels + panels - 1) / panels, copies};
}

// What a call costs, in half cycles of Zen 3: for 64 lanes 10 an entry, 16 a row of Y in each cell. A row of X costs 70 where a
// task copies it for itself; all of them in panels first cost 160 each, as much again for reading what another core wrote,
// 64 for each task that meets one, and a barrier. Where expanding bounds a task, that it reads X is hidden.
struct Cost {
  int64_t panels, work, copied, moved, read, shared;  // work: of one panel; copied, moved, read: one row of X; shared: one of Y

  Cost(const CellMatrix& a, int64_t lanes, bool row_major) {
    const int64_t width = std::min(kPanel, padded_lanes(lanes)), entries = a.cells.back().value_at;
    panels = panel_count(lanes);
    work = entries * (2 + width / 8) + a.rows * a.col_blocks * (width / 4);
    copied = 6 + width;
    moved = 5 * width / 2;
    read = a.expands() ? 0 : width;
    shared = row_major ? width : 0;
  }
  // Of the thread that has most to do. Two threads that write pieces of the same rows of Y, a few hundred bytes apart, take each
  // other's lines, which the processor fetches ahead: up to half of the time on Emerald Rapids (2048 x 512, 98 %, 128 lanes).
  int64_t of(const CellMatrix& a, const Split& s, int threads) const {
    const int64_t rounds = (s.ranges * s.groups + threads - 1) / threads, count = std::max<int64_t>(1, a.blocks.count);
    const bool near = threads > 1 && s.ranges < threads && panels < 4 * threads;
    return rounds * s.panels *
           (work * s.blocks / count + (s.copies ? copied : read) * a.cols + (near ? shared * a.blocks.size * s.blocks : 0));
  }
};

constexpr int64_t kBarrier = 20000;
// A second thread gains nothing in calls of two microseconds, even when it is awake; where it sleeps waking it takes three.
constexpr int64_t kWake = 10000;

struct Choice {
  Split split;
  int64_t cost;
};

Choice split_for(const CellMatrix& a, const XView& x, const Cost& cost, int threads) {
  const int64_t usual = panels_a_task(cost.panels, a.blocks.count, threads, a.expands() ? 4 : 2);
  Choice best{split_into(a, 1, usual, cost.panels, false), 0};
  best.cost = cost.of(a, best.split, threads);
  if (!x.stride) return best;
  best.cost += cost.moved * a.cols * cost.panels / threads + (threads > 1 ? kBarrier + cost.moved * a.cols : 0);
  for (int64_t blocks = 1; blocks <= a.blocks.count; ++blocks) {
    if (blocks > 1 && (a.expands() || blocks * a.blocks.size > tile_rows())) break;
    const Split split = split_into(a, blocks, a.expands() ? usual : 1, cost.panels, true);
    const int64_t here = cost.of(a, split, threads);
    if (here < best.cost) best = {split, here};
  }
  return best;
}

void add_residual(const YTile& tile, int64_t begin, int64_t end, int64_t lanes, int64_t p, const Output& y,
                  const float* residual) {
  const int64_t valid = std::min(kPanel, lanes - p * kPanel);
  for (int64_t r = begin; r < end; ++r) {
    float* row = tile.y + (r - begin) * tile.ldy;
    for (int64_t t = 0; t < valid; ++t) {
      const int64_t lane = p * kPanel + t;
      row[t] += residual[y.token_major ? lane * y.stride + r : r * y.stride + lane];
    }
  }
}

}  // namespace

namespace {

std::unique_ptr<Packed> pack_matrix(const Source& source, Format format, ValueType type, bool narrow) {
  const int64_t scaled = source.scale_group;
  if (is_code(type) && source.type != type) return nullptr;
  if (is_code(type) && scaled && (scaled < 32 || scaled > 32768 || (scaled & (scaled - 1)))) return nullptr;  // see decode
  auto a = std::make_unique<CellMatrix>();
  a->narrow = narrow;
  a->rows = source.rows;
  a->cols = source.cols;
  a->format = format;
  a->type = type;
  if (format == Format::nm) {
    if (source.format != Format::nm) return nullptr;
    a->n = source.r;
    a->m = source.c;
  }
  if (is_code(type)) a->scales = CodeScales(source);
  const RowReader reader(source);
  int64_t entries = 0;
  for (int64_t r = 0; r < source.rows; ++r) entries += reader.count(r);
  plan_blocks(*a, source, entries);
  fill(*a, source, reader, lay_out(*a, count_entries(*a, source, reader)));
  return a;
}

}  // namespace

std::unique_ptr<Packed> pack_cells(const Source& source, Format format, ValueType type, Isa) {
  return pack_matrix(source, format, type, false);
}

std::unique_ptr<Packed> pack_narrow(const Source& source, Format format, ValueType type, Isa) {
  return pack_matrix(source, format, type, true);
}

void run_cells(const Packed& packed, const XView& given, int64_t lanes, Output y, const Epilogue& e, Pool& pool) {
  const auto& a = static_cast<const CellMatrix&>(packed);
  const Micro& micro = micro_of(a.kernel->isa);
  if (lanes == 1) return run_one_lane(a, micro, given.data, y.data, e, pool);
  const Cost cost(a, lanes, y.stride && !y.token_major);
  const Choice one = split_for(a, given, cost, 1), many = split_for(a, given, cost, pool.available());
  const bool alone = one.cost <= many.cost + kWake;
  const Split split = alone ? one.split : many.split;
  const XView x = given.stride && !split.copies ? in_panels(given, a.cols, lanes, pool) : given;
  const auto cell = a.narrow ? micro.cell_narrow : micro.cell;
  const int64_t panels = panel_count(lanes), most_rows = split.blocks * a.blocks.size;
  // A row-major Y is summed in scratch and copied when it is finished: rows a power of two apart share few sets of the
  // caches, and a tile of Y would not stay there (half the speed at 98 %, 128 lanes, Zen 3); X is copied by the block for the
  // same reason. With one or two blocks of columns there is little to stay, and a Y that the caches hold is 5 to 25 % faster
  // where it belongs (98 %); one that they do not hold is fetched faster row after row, by the copy (8 to 25 % at 1024 lanes,
  // Emerald Rapids).
  const bool held = a.rows * lanes * 4 <= cpu().l2_bytes * pool.available();
  const bool in_place = !y.stride || (a.col_blocks <= 2 && held && lanes % kLaneUnit == 0 && !y.token_major);
  const int64_t tile_floats = in_place ? 0 : most_rows * kPanel;
  const int64_t x_floats = x.stride ? (a.col_block * std::min(kPanel, padded_lanes(lanes)) + 15) / 16 * 16 : 0;
  pool.parallel(
      split.ranges * split.groups,
      [&](int64_t task, int worker) {
        const int64_t rb0 = task / split.groups * split.blocks, rb1 = std::min(a.blocks.count, rb0 + split.blocks);
        const int64_t begin = a.blocks.begin(rb0), end = a.blocks.end(rb1 - 1);
        const int64_t p0 = task % split.groups * split.panels, p1 = std::min(panels, p0 + split.panels);
        float* room = pool.scratch(worker, (Expanded::floats(a) + x_floats + split.panels * tile_floats) * sizeof(float));
        Expanded expanded(a, room);
        float* block = room + Expanded::floats(a);
        const auto tile_at = [&](int64_t p, int64_t row) {
          const int64_t width = panel_width(lanes, p);
          if (in_place) return tile_of(y, e.residual, a.rows, row, p, width);
          return YTile{block + x_floats + (p - p0) * tile_floats + (row - begin) * width, nullptr, width};
        };
        for (int64_t kb = 0; kb < a.col_blocks; ++kb) {
          CellView view;
          if (a.expands()) view = view_cell(a, micro, rb0, kb, expanded);
          for (int64_t p = p0; p < p1; ++p) {
            const int64_t width = panel_width(lanes, p), first = kb * a.col_block;
            const float* xs = x.stride ? block : x.data + p * kPanel * a.cols + first * width;
            if (x.stride) copy_in(x, first, first + a.columns(kb), lanes, p, block);
            for (int64_t rb = rb0; rb < rb1; ++rb) {
              if (!a.expands()) view = view_cell(a, micro, rb, kb, expanded);
              const YTile tile = tile_at(p, a.blocks.begin(rb));
              cell(view, xs, width, tile.y, tile.ldy, kb == 0);
            }
          }
        }
        for (int64_t p = p0; p < p1; ++p) {
          const int64_t width = panel_width(lanes, p);
          const YTile tile = tile_at(p, begin);
          if (a.col_blocks == 0) {
            for (int64_t r = 0; r < end - begin; ++r) memset(tile.y + r * tile.ldy, 0, width * sizeof(float));
          }
          finish_tile(micro.finish, tile, begin, end - begin, width, e);
          if (in_place) continue;
          if (e.residual) add_residual(tile, begin, end, lanes, p, y, e.residual);
          copy_out(tile.y, begin, end, lanes, p, y);
        }
      },
      alone);
}

}  // namespace zs
