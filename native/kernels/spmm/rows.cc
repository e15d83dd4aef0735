// CSR and bitmask for one lane: whole rows, with a byte or 16 bits a column, or one bit a column. At one lane every entry costs
// its own bytes and one fetch of x, and nothing is gained by blocks; long rows leave little but the entries themselves. Tasks
// have equal numbers of entries, so that a few heavy rows do not hold up the rest.
//
// Columns take a byte each where that is smaller. Four entries are a group: their columns count from the last one of the group
// before, so that one addition in four depends on what came before. Where the next entry is too far, and at the end of a row,
// a group is filled up with values of zero at columns that are there already or (one step of 255) between two entries. Those
// are known by a bit, because zero times infinity is not nothing. From 40 to 97 % zeros fillers are below 3 % of the entries.
//
// Listed columns beyond 65536 are cut into blocks of so many. Where a weight is not finite columns are listed for a bitmask as well:
// its loop multiplies some value by zero in lanes that have none; and they take 16 bits, with nothing filled up.
#include <atomic>
#include <vector>

#include "blocks.h"
#include "source.h"

namespace zs {
namespace {

constexpr int64_t kColumns = 65536;
constexpr int64_t kTaskEntries = 32768;

struct RowMatrix : Packed {
  ValueType type = ValueType::f32;
  int64_t col_blocks = 0;
  std::vector<int64_t> starts;  // [column block][row], and the end
  std::vector<int64_t> cuts;  // rows at which tasks begin, and the end
  std::vector<float> scales;  // [row], for codes
  int64_t mask_bytes = 0;  // a row; 0 where columns are listed
  bool steps = false;  // columns are bytes
  Buffer columns, fillers, masks, values;  // fillers: a bit an entry

  int64_t bytes() const override {
    return static_cast<int64_t>(8 * (starts.size() + cuts.size()) + 4 * scales.size()) + columns.bytes() + fillers.bytes() +
           masks.bytes() + values.bytes();
  }
};

constexpr int64_t kStepGroup = 4;
constexpr int32_t kStep = 255;

// The entries of one row in one column block as groups of bytes: out(byte, entry), entry being -1 for a filler. Returns how
// many there are.
template <class Out> int64_t cut_steps(const int32_t* cols, int64_t n, int32_t base, Out&& out) {
  int64_t i = 0, made = 0;
  while (i < n) {
    int32_t last = 0;
    for (int64_t k = 0; k < kStepGroup; ++k, ++made) {
      const bool here = i < n && cols[i] - base <= kStep;
      if (here) {
        last = cols[i] - base;
      } else if (i < n && k == kStepGroup - 1) {
        last = kStep;
      }
      out(static_cast<uint8_t>(last), here ? i++ : -1);
    }
    base += last;
  }
  return made;
}

// Calls body(block, first, end) for each column block that a row has entries in.
template <class Body> void each_block(const std::vector<int32_t>& cols, int64_t n, Body&& body) {
  for (int64_t i = 0, end; i < n; i = end) {
    const int64_t block = cols[i] / kColumns;
    for (end = i + 1; end < n && cols[end] / kColumns == block;) ++end;
    body(block, i, end);
  }
}

// Rows in tasks of about as many entries each, by the entries of all column blocks.
void cut_rows(RowMatrix& a, const RowReader& reader) {
  int64_t total = 0;
  for (int64_t r = 0; r < a.rows; ++r) total += reader.count(r);
  const int64_t threads = Pool::get().size();
  // Each thread has some tasks, so that a slow one is helped; not many, since each begins to read somewhere else, and with many
  // threads handing them out takes time (16 threads, Sapphire Rapids: 64 tasks 5 us, 256 tasks 13 us).
  const int64_t tasks = threads * std::clamp<int64_t>(total / (threads * kTaskEntries), 1, threads > 4 ? 4 : 16);
  int64_t seen = 0;
  a.cuts.push_back(0);
  for (int64_t r = 0; r < a.rows; ++r) {
    seen += reader.count(r);
    const bool full = seen * tasks >= total * static_cast<int64_t>(a.cuts.size());
    if (full && r + 1 < a.rows) a.cuts.push_back(r + 1);
  }
  a.cuts.push_back(a.rows);
}

// How many entries every row has in every column block, fillers included: [column block][row].
std::vector<int64_t> count_entries(const RowMatrix& a, const RowReader& reader) {
  std::vector<int64_t> count(a.col_blocks * a.rows);
  if (a.col_blocks == 1 && !a.steps) {
    for (int64_t r = 0; r < a.rows; ++r) count[r] = reader.count(r);
    return count;
  }
  Pool::get().parallel(static_cast<int64_t>(a.cuts.size()) - 1, [&](int64_t task, int) {
    std::vector<int32_t> cols;
    for (int64_t r = a.cuts[task]; r < a.cuts[task + 1]; ++r) {
      const int64_t n = reader.columns(r, cols);
      each_block(cols, n, [&](int64_t block, int64_t i, int64_t end) {
        const int32_t first = static_cast<int32_t>(block * kColumns);
        count[block * a.rows + r] = a.steps ? cut_steps(&cols[i], end - i, first, [](uint8_t, int64_t) {}) : end - i;
      });
    }
  });
  return count;
}

void lay_out(RowMatrix& a, const RowReader& reader) {
  a.starts.assign(1, 0);
  for (int64_t n : count_entries(a, reader)) a.starts.push_back(a.starts.back() + n);
  const int64_t n = a.starts.back();
  a.columns = Buffer(a.mask_bytes ? 0 : a.steps ? n : 2 * n);
  a.fillers = Buffer(a.steps ? (n + 7) / 8 : 0);
  a.masks = Buffer(a.rows * a.mask_bytes);
  memset(a.masks.data(), 0, a.masks.bytes());
  a.values = Buffer(n * value_bytes(a.type));
}

// Entries i to end of a row, from `at` on.
void fill_steps(RowMatrix& a, int64_t at, const int32_t* cols, int64_t n, int64_t first, const uint8_t* values) {
  const int64_t size = value_bytes(a.type);
  uint8_t* column = a.columns.data() + at;
  uint8_t* value = a.values.data() + at * size;
  cut_steps(cols, n, static_cast<int32_t>(first), [&](uint8_t byte, int64_t entry) {
    *column = byte;
    if (entry < 0) {
      memset(value, 0, size);
      const int64_t i = column - a.columns.data();
      std::atomic_ref<uint8_t>(a.fillers.data()[i / 8]).fetch_or(static_cast<uint8_t>(1 << i % 8));
    } else {
      memcpy(value, values + entry * size, size);
    }
    ++column;
    value += size;
  });
}

void fill(RowMatrix& a, const Source& source, const RowReader& reader) {
  const int64_t size = value_bytes(a.type);
  const bool as_it_is = source.type == a.type && reader.contiguous();
  uint16_t* columns = reinterpret_cast<uint16_t*>(a.columns.data());
  memset(a.fillers.data(), 0, a.fillers.bytes());
  Pool::get().parallel(static_cast<int64_t>(a.cuts.size()) - 1, [&](int64_t task, int) {
    std::vector<int32_t> cols;
    std::vector<float> values;
    std::vector<uint8_t> stored;
    for (int64_t r = a.cuts[task]; r < a.cuts[task + 1]; ++r) {
      const int64_t n = as_it_is ? reader.columns(r, cols) : reader.read(r, cols, values);
      const uint8_t* from = as_it_is ? static_cast<const uint8_t*>(source.data) + reader.first(r) * size : nullptr;
      if (!as_it_is) {
        stored.resize(n * size);
        store_values(stored.data(), a.type, 0, values.data(), n);
        from = stored.data();
      }
      if (a.mask_bytes) {
        for (int64_t j = 0; j < n; ++j) {
          uint8_t& byte = a.masks.data()[r * a.mask_bytes + cols[j] / 8];
          byte = static_cast<uint8_t>(byte | 1 << cols[j] % 8);
        }
        if (n) memcpy(a.values.data() + a.starts[r] * size, from, n * size);
        continue;
      }
      each_block(cols, n, [&](int64_t block, int64_t i, int64_t end) {
        const int64_t at = a.starts[block * a.rows + r];
        if (a.steps) return fill_steps(a, at, &cols[i], end - i, block * kColumns, from + i * size);
        for (int64_t j = i; j < end; ++j) columns[at + j - i] = static_cast<uint16_t>(cols[j] % kColumns);
        memcpy(a.values.data() + at * size, from + i * size, (end - i) * size);
      });
    }
  });
}

// Whether there is neither NaN nor infinity: those have every bit of the exponent set.
bool all_finite(const float* x, int64_t n) {
  uint32_t most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, float_to_bits(x[i]) & 0x7fffffffu);
  return most < 0x7f800000u;
}

bool all_finite(const RowMatrix& a) {
  const int64_t n = a.starts.back();
  if (is_code(a.type)) return true;
  if (a.type == ValueType::f32) return all_finite(reinterpret_cast<const float*>(a.values.data()), n);
  const uint16_t exponent = a.type == ValueType::bf16 ? 0x7f80 : 0x7c00;
  const uint16_t* half = reinterpret_cast<const uint16_t*>(a.values.data());
  return std::none_of(half, half + n, [=](uint16_t v) { return (v & exponent) == exponent; });
}

// Whether a byte a column takes fewer bytes than 16 bits, judged by every so many rows.
bool steps_pay(const RowMatrix& a, const RowReader& reader) {
  const int64_t size = value_bytes(a.type);
  int64_t entries = 0, with_fillers = 0;
  std::vector<int32_t> cols;
  for (int64_t r = 0; r < a.rows; r += 1 + a.rows / 256) {
    const int64_t n = reader.columns(r, cols);
    entries += n;
    with_fillers += cut_steps(cols.data(), n, 0, [](uint8_t, int64_t) {});
  }
  return 8 * with_fillers * (size + 1) + with_fillers < 8 * entries * (size + 2);
}

}  // namespace

std::unique_ptr<Packed> pack_rows(const Source& source, Format format, ValueType type, Isa) {
  if (is_code(source.type) && (source.type != type || source.zeros || source.scale_group)) return nullptr;
  auto a = std::make_unique<RowMatrix>();
  a->rows = source.rows;
  a->cols = source.cols;
  a->type = type;
  for (int64_t r = 0; is_code(type) && r < source.rows; ++r) a->scales.push_back(f16_to_float(source.scales[r]));
  const RowReader reader(source);
  cut_rows(*a, reader);
  const auto build = [&](bool masks, bool steps) {
    a->mask_bytes = masks ? (source.cols + 7) / 8 : 0;
    a->steps = steps;
    a->col_blocks = masks ? 1 : std::max<int64_t>(1, (source.cols + kColumns - 1) / kColumns);
    lay_out(*a, reader);
    fill(*a, source, reader);
  };
  const bool masks = format == Format::bitmask;
  build(masks, !masks && steps_pay(*a, reader));
  if ((a->mask_bytes || a->steps) && !all_finite(*a)) build(false, false);
  return a;
}

void run_rows(const Packed& packed, const float* x, int64_t lanes, Output y, const Epilogue& e, Pool& pool) {
  const auto& a = static_cast<const RowMatrix&>(packed);
  const Micro& micro = micro_of(a.kernel->isa);
  const int64_t tasks = static_cast<int64_t>(a.cuts.size()) - 1;
  Buffer padded;
  const bool finite = lanes == 1 && (a.mask_bytes || a.steps) && all_finite(x, a.cols);
  if (finite && a.mask_bytes && micro.arrange) {
    padded = Buffer((a.cols + 63) / 64 * 64 * 4);
    float* arranged = reinterpret_cast<float*>(padded.data());
    micro.arrange(a.type, x, a.cols, arranged);
    x = arranged;
  } else if (finite && a.mask_bytes) {
    x = padded_lane(x, a.cols, padded);
  }
  const bool gathers = lanes == 1 && !a.mask_bytes && micro.gathers_pay && micro.gathers_pay();
  const int64_t panels = panel_count(lanes);
  pool.parallel(tasks * panels, [&](int64_t task, int) {
    const int64_t begin = a.cuts[task / panels], rows = a.cuts[task / panels + 1] - begin, p = task % panels;
    const int64_t width = panel_width(lanes, p);
    const YTile tile = tile_of(y, e.residual, a.rows, begin, p, width);
    for (int64_t block = 0; block < a.col_blocks; ++block) {
      const RowsView view{rows,
                          a.starts.data() + block * a.rows + begin,
                          a.columns.data(),
                          a.steps ? a.fillers.data() : nullptr,
                          a.mask_bytes ? a.masks.data() + begin * a.mask_bytes : nullptr,
                          a.mask_bytes,
                          a.values.data(),
                          a.scales.empty() ? nullptr : a.scales.data() + begin,
                          finite,
                          gathers};
      const float* xs = x + p * kPanel * a.cols + block * kColumns * width;
      micro.rows(view, a.type, xs, width, tile.y, tile.ldy, block == 0);
    }
    finish_tile(micro.finish, tile, begin, rows, width, e);
  });
}

}  // namespace zs
