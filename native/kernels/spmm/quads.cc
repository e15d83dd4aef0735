// Dense matrices, and block-sparse ones whose blocks have a multiple of four rows. Rows go in fours, entry after entry
// [column][4]: one vector of X serves four rows, and twelve accumulators hide the latency; of one vector of lanes two quads go
// together, for four sums would wait for each other. Panels are cut into even strips (24 lanes at most in AVX2; 32 are 16 and
// 16), and a strip goes through all quads of a task before the next. The columns of a dense matrix that fill three quarters of
// L1 are copied together for it: as they lie in a panel, rows are 256 bytes apart and share half of the sets, and fewer would
// fit (12 % of the time on Zen 3). A sparse one takes X from where it lies, as many columns as hold about 160 stored ones, so that beginning and
// ending a quad costs little; copied too, it was no faster at 40 % of the columns and slower below.
#include <vector>

#include "blocks.h"
#include "source.h"

namespace zs {
namespace {

constexpr int64_t kQuadRows = 128;  // rows a task takes at a time
constexpr int64_t kQuadCols = 128;  // stored columns a block, about, of a sparse matrix

struct QuadMatrix : Packed {
  ValueType type = ValueType::f32;
  bool indexed = false;
  int64_t col_block = 0, col_blocks = 0, quads = 0;
  std::vector<int64_t> starts;  // indexed: [quad][column block] first column of the list; then the end
  std::vector<uint16_t> indices;  // indexed: column inside the block
  Buffer values;  // [quad][column][4]

  int64_t bytes() const override { return static_cast<int64_t>(starts.size() * 8 + 2 * indices.size()) + values.bytes(); }
  int64_t start(int64_t quad, int64_t kb) const {
    return indexed ? starts[quad * col_blocks + kb] : quad * cols + kb * col_block;
  }
  int64_t stop(int64_t quad, int64_t kb) const {
    return indexed ? starts[quad * col_blocks + kb + 1] : quad * cols + std::min(cols, (kb + 1) * col_block);
  }
};

// Columns that hold about kQuadCols and a quarter stored ones; indices have 16 bits.
int64_t wide_block(const Source& s) {
  const double stored = static_cast<double>(s.indptr[s.rows / s.r]) * static_cast<double>(s.r * s.c);
  const double all = static_cast<double>(s.rows) * static_cast<double>(s.cols);
  const double wanted = 1.25 * static_cast<double>(kQuadCols) * all / std::max(1.0, stored);
  return static_cast<int64_t>(std::clamp(wanted, static_cast<double>(kQuadCols), 32768.0)) / kQuadCols * kQuadCols;
}

// Columns of a strip of lanes that fill three quarters of L1.
int64_t l1_block(int64_t lanes) { return std::clamp<int64_t>(cpu().l1d_bytes * 3 / 4 / (lanes * 4), 64, 512) / 8 * 8; }

// Lanes of a strip where a panel is cut as evenly as eights allow: 32 lanes as 16 and 16, not as 24 and 8.
int64_t even_strip(int64_t width, int64_t most) {
  const int64_t strips = (width + most - 1) / most;
  return ((width + strips - 1) / strips + 7) / 8 * 8;
}

// Columns of the quad's blocks in order: with four rows a quad never straddles two block rows.
void list_columns(QuadMatrix& a, const Source& s) {
  const int64_t quads_a_block_row = s.r / 4;
  for (int64_t q = 0; q < a.quads; ++q) {
    const int64_t block_row = q / quads_a_block_row;
    int64_t b = s.indptr[block_row];
    int64_t j = 0;
    for (int64_t kb = 0; kb < a.col_blocks; ++kb) {
      a.starts.push_back(static_cast<int64_t>(a.indices.size()));
      while (b < s.indptr[block_row + 1] && s.indices[b] * s.c + j < (kb + 1) * a.col_block) {
        a.indices.push_back(static_cast<uint16_t>(s.indices[b] * s.c + j - kb * a.col_block));
        if (++j == s.c) {
          j = 0;
          ++b;
        }
      }
    }
  }
  a.starts.push_back(static_cast<int64_t>(a.indices.size()));
  a.indices.resize(a.indices.size() + kAhead, 0);
}

// A dense matrix in its own type, quad by quad: values move without being read.
template <class T> void interleave(QuadMatrix& a, const T* data) {
  T* out = reinterpret_cast<T*>(a.values.data());
  Pool::get().parallel(a.quads, [&](int64_t q, int) {
    const int64_t rows = std::min<int64_t>(4, a.rows - 4 * q);
    T* quad = out + 4 * q * a.cols;
    const T* row = data + 4 * q * a.cols;
    for (int64_t c = 0; rows == 4 && c < a.cols; ++c) {
      for (int64_t r = 0; r < 4; ++r) quad[4 * c + r] = row[r * a.cols + c];
    }
    for (int64_t c = 0; rows < 4 && c < a.cols; ++c) {
      for (int64_t r = 0; r < 4; ++r) quad[4 * c + r] = r < rows ? row[r * a.cols + c] : T{0};
    }
  });
}

void fill(QuadMatrix& a, const Source& source) {
  if (source.format == Format::dense && source.type == a.type) {
    if (a.type == ValueType::f32) return interleave(a, static_cast<const float*>(source.data));
    return interleave(a, static_cast<const uint16_t*>(source.data));
  }
  const RowReader reader(source);
  memset(a.values.data(), 0, a.values.bytes());
  Pool::get().parallel(a.quads, [&](int64_t q, int) {
    std::vector<int32_t> cols;
    std::vector<float> values;
    for (int64_t r = 4 * q; r < std::min(a.rows, 4 * q + 4); ++r) {
      const int64_t n = reader.read(r, cols, values);
      // A dense matrix may come from a sparse source; an indexed one has the reader's columns, in order.
      for (int64_t i = 0; i < n; ++i) {
        const int64_t at = a.indexed ? a.start(q, 0) + i : q * a.cols + cols[i];
        store_values(a.values.data(), a.type, 4 * at + r % 4, &values[i], 1);
      }
    }
  });
}

void run_one_lane(const QuadMatrix& a, const Micro& micro, const float* x, float* y, const Epilogue& e, Pool& pool) {
  constexpr int64_t kQuadsATask = 16;
  const int64_t tasks = (a.quads + kQuadsATask - 1) / kQuadsATask;
  pool.parallel(tasks, [&](int64_t task, int) {
    const int64_t end = std::min(a.quads, (task + 1) * kQuadsATask), begin_row = task * kQuadsATask * 4;
    for (int64_t q = task * kQuadsATask; q < end; ++q) {
      float sums[4] = {0, 0, 0, 0};
      // An unindexed quad is one run of columns; an indexed one has a list for each block of columns.
      const int64_t lists = a.indexed ? a.col_blocks : 1;
      for (int64_t kb = 0; kb < lists; ++kb) {
        const int64_t start = a.start(q, kb), n = (a.indexed ? a.stop(q, kb) : start + a.cols) - start;
        micro.quad_one(a.values.data() + 4 * start * value_bytes(a.type), a.type,
                       a.indexed ? a.indices.data() + start : nullptr, n, x + kb * a.col_block, sums);
      }
      for (int64_t r = 4 * q; r < std::min(a.rows, 4 * q + 4); ++r) y[r] = sums[r % 4];
    }
    const int64_t rows = std::min(a.rows, 4 * end) - begin_row;
    finish_tile(micro.finish, tile_of({y, 0}, e.residual, a.rows, begin_row, 0, 1), begin_row, rows, 1, e);
  });
}

// Dense, two to four lanes of the one panel there is: little more than reading the values. Columns go in blocks, so that L1
// holds those of x while all rows of a task pass.
void run_few_lanes(const QuadMatrix& a, const Micro& micro, const float* x, int64_t lanes, Output y, const Epilogue& e,
                   Pool& pool) {
  constexpr int64_t kQuadsATask = 16, kColumns = 512, kSums = 4 * kFewLanes;
  const int64_t width = panel_width(lanes, 0), bytes = value_bytes(a.type);
  pool.parallel((a.quads + kQuadsATask - 1) / kQuadsATask, [&](int64_t task, int) {
    const int64_t begin = task * kQuadsATask, end = std::min(a.quads, begin + kQuadsATask);
    float sums[(kQuadsATask + 1) * kSums] = {0};  // an odd last quad goes with itself; its second sums are nobody's
    for (int64_t k = 0; k < a.cols; k += kColumns) {
      const int64_t n = std::min(kColumns, a.cols - k);
      for (int64_t q = begin; q < end; q += 2) {
        const uint8_t* values = a.values.data() + 4 * (q * a.cols + k) * bytes;
        const uint8_t* next = q + 1 < end ? values + 4 * a.cols * bytes : values;
        micro.quads_few(values, next, a.type, n, x + k * width, width, sums + (q - begin) * kSums);
      }
    }
    const int64_t row = 4 * begin, rows = std::min(a.rows, 4 * end) - row;
    const YTile tile = tile_of(y, e.residual, a.rows, row, 0, width);
    for (int64_t r = 0; r < rows; ++r) {
      const float* own = sums + r / 4 * kSums + r % 4;
      for (int64_t t = 0; t < width; ++t) tile.y[r * tile.ldy + t] = t < kFewLanes ? own[4 * t] : 0.0f;
    }
    finish_tile(micro.finish, tile, row, rows, width, e);
  });
}

// The same for two to eight lanes, with vectors of sixteen floats.
void run_turned(const QuadMatrix& a, const Micro& micro, const float* x, int64_t lanes, Output y, const Epilogue& e,
                Pool& pool) {
  constexpr int64_t kLanes = kLaneUnit, kColumns = 4096, kMostRows = 256;
  constexpr int64_t kAlone = 16384;  // values that one thread multiplies in 2 us, as long as waking another may take
  const RowBlocks blocks(a.rows, kMostRows, 8);
  const int64_t bytes = 4 * value_bytes(a.type);
  const auto body = [&](int64_t task, int worker) {
    const int64_t begin = blocks.begin(task), end = blocks.end(task);
    const YTile tile = tile_of(y, e.residual, a.rows, begin, 0, kLanes);
    float* turned = pool.scratch(worker, (kColumns + 3) * kLanes * sizeof(float));
    float last[8 * kLanes];  // where fewer than eight rows are left
    int64_t k = 0;
    do {
      const int64_t n = std::min(kColumns, a.cols - k);
      micro.turn(x + k * kLanes, n, turned);
      for (int64_t r = begin; r < end; r += 8) {
        const uint8_t* values = a.values.data() + (r / 4 * a.cols + k) * bytes;
        const bool whole = r + 8 <= end;
        const uint8_t* next = r + 4 < end ? values + a.cols * bytes : values;
        micro.quads_turned(values, next, a.type, n, turned, lanes, whole ? tile.y + (r - begin) * tile.ldy : last,
                           whole ? tile.ldy : kLanes, k == 0);
      }
      k += kColumns;
    } while (k < a.cols);
    for (int64_t r = end - (end - begin) % 8; r < end; ++r) {
      memcpy(tile.y + (r - begin) * tile.ldy, last + (r - begin) % 8 * kLanes, kLanes * sizeof(float));
    }
    finish_tile(micro.finish, tile, begin, end - begin, kLanes, e);
  };
  pool.parallel(blocks.count, body, a.rows * a.cols <= kAlone);
}

}  // namespace

std::unique_ptr<Packed> pack_quads(const Source& source, Format format, ValueType type, Isa isa) {
  if (format == Format::bsr && (source.format != Format::bsr || source.r % 4 != 0)) return nullptr;
  auto a = std::make_unique<QuadMatrix>();
  a->rows = source.rows;
  a->cols = source.cols;
  a->type = type;
  a->indexed = format == Format::bsr;
  a->col_block = a->indexed ? wide_block(source) : l1_block(micro_of(isa).quad_lanes);
  a->col_blocks = (source.cols + a->col_block - 1) / a->col_block;
  a->quads = (source.rows + 3) / 4;
  if (a->indexed) {
    list_columns(*a, source);
    a->values = Buffer(a->starts.back() * 4 * value_bytes(type));
  } else {
    a->values = Buffer(a->quads * 4 * source.cols * value_bytes(type));
  }
  fill(*a, source);
  return a;
}

void run_quads(const Packed& packed, const float* x, int64_t lanes, Output y, const Epilogue& e, Pool& pool) {
  const auto& a = static_cast<const QuadMatrix&>(packed);
  const Micro& micro = micro_of(a.kernel->isa);
  if (lanes == 1) return run_one_lane(a, micro, x, y.data, e, pool);
  if (lanes <= kLaneUnit && !a.indexed && micro.turn) return run_turned(a, micro, x, lanes, y, e, pool);
  if (lanes <= kFewLanes && !a.indexed) return run_few_lanes(a, micro, x, lanes, y, e, pool);
  const RowBlocks blocks(a.rows, kQuadRows, 4);
  const int64_t panels = panel_count(lanes);
  const int64_t group = a.type == ValueType::f32 ? 1 : panels_a_task(panels, blocks.count, pool.available(), 8);
  const int64_t groups = (panels + group - 1) / group;
  const int64_t widened_floats = a.type == ValueType::f32 ? 0 : blocks.size * a.col_block;
  const int64_t copied_floats = a.indexed ? 0 : a.col_block * micro.quad_lanes;
  pool.parallel(blocks.count * groups, [&](int64_t task, int worker) {
    const int64_t rb = task / groups, begin = blocks.begin(rb), end = blocks.end(rb);
    const int64_t p0 = task % groups * group, p1 = std::min(panels, p0 + group);
    float* copied = pool.scratch(worker, (copied_floats + widened_floats) * sizeof(float));
    float* room = widened_floats ? copied + copied_floats : nullptr;
    const float* quad_values[kQuadRows / 4];
    for (int64_t kb = 0; kb < std::max<int64_t>(1, a.col_blocks); ++kb) {
      float* widened = room;
      for (int64_t r = begin; r < end; r += 4) {
        const int64_t start = a.col_blocks ? 4 * a.start(r / 4, kb) : 0;
        const int64_t n = a.col_blocks ? 4 * a.stop(r / 4, kb) - start : 0;
        if (room) {
          micro.widen(a.values.data() + 2 * start, a.type, n, widened);
          quad_values[(r - begin) / 4] = widened;
          widened += n;
        } else {
          quad_values[(r - begin) / 4] = reinterpret_cast<const float*>(a.values.data()) + start;
        }
      }
      for (int64_t p = p0; p < p1; ++p) {
        const int64_t width = panel_width(lanes, p);
        const int64_t first = kb * a.col_block;
        const float* xs = x + p * kPanel * a.cols + first * width;
        const int64_t vector = micro.vector_lanes;
        // Rows that are no whole vectors begin in the middle of lines: the copy's do not.
        const bool copies = copied_floats && (width > micro.quad_lanes || (width > vector && width % vector));
        const int64_t most = even_strip(width, micro.quad_lanes);
        for (int64_t lane = 0; lane < width; lane += most) {
          const int64_t strip = std::min(most, width - lane);
          const int64_t stride = copies ? (strip + vector - 1) / vector * vector : width;
          const bool twos = !a.indexed && strip <= micro.two_quads_lanes;
          if (copies) copy_rows(xs + lane, width, std::min(a.cols - first, a.col_block), strip, copied, stride);
          for (int64_t r = begin; r < end; r += 4) {
            const YTile tile = tile_of(y, e.residual, a.rows, r, p, width);
            const int64_t start = a.col_blocks ? a.start(r / 4, kb) : 0;
            const int64_t n = a.col_blocks ? a.stop(r / 4, kb) - start : 0;
            if (twos && r + 8 <= std::min(end, a.rows)) {
              const float* const* two = quad_values + (r - begin) / 4;
              micro.two_quads(two[0], two[1], n, copies ? copied : xs + lane, stride, strip, tile.y + lane, tile.ldy, kb == 0);
              r += 4;
              continue;
            }
            micro.quad(quad_values[(r - begin) / 4], a.indexed ? a.indices.data() + start : nullptr, n,
                       copies ? copied : xs + lane, stride, strip, tile.y + lane, tile.ldy, std::min<int64_t>(4, a.rows - r),
                       kb == 0);
          }
        }
      }
    }
    for (int64_t p = p0; p < p1; ++p) {
      const int64_t width = panel_width(lanes, p);
      finish_tile(micro.finish, tile_of(y, e.residual, a.rows, begin, p, width), begin, end - begin, width, e);
    }
  });
}

}  // namespace zs
