// CSR and bitmask for one lane: whole rows, with columns of 16 bits or one bit a column. At one lane every entry costs its own
// bytes and one fetch of x, and nothing is gained by blocks; long rows leave little but the entries themselves. Tasks have equal
// numbers of entries, so that a few heavy rows do not hold up the rest.
//
// Listed columns beyond 65536 are cut into blocks of so many. Where a weight is not finite columns are listed for a bitmask as well:
// its loop multiplies some value by zero in lanes that have none.
#include <vector>

#include "blocks.h"
#include "source.h"

namespace zs {
namespace {

constexpr int64_t kColumns = 65536;
constexpr int64_t kTaskEntries = 8192;

struct RowMatrix : Packed {
  ValueType type = ValueType::f32;
  int64_t col_blocks = 0;
  std::vector<int64_t> starts;  // [column block][row], and the end
  std::vector<int64_t> cuts;  // rows at which tasks begin, and the end
  std::vector<float> scales;  // [row], for codes
  int64_t mask_bytes = 0;  // a row; 0 where columns are listed
  Buffer columns, masks, values;

  int64_t bytes() const override {
    return static_cast<int64_t>(8 * (starts.size() + cuts.size()) + 4 * scales.size()) + columns.bytes() + masks.bytes() +
           values.bytes();
  }
};

// Rows in tasks of about as many entries each, by the entries of all column blocks.
void cut_rows(RowMatrix& a, const RowReader& reader) {
  int64_t total = 0;
  for (int64_t r = 0; r < a.rows; ++r) total += reader.count(r);
  const int64_t threads = Pool::get().size();
  const int64_t tasks = std::clamp<int64_t>(total / kTaskEntries, threads, 16 * threads);
  int64_t seen = 0;
  a.cuts.push_back(0);
  for (int64_t r = 0; r < a.rows; ++r) {
    seen += reader.count(r);
    const bool full = seen * tasks >= total * static_cast<int64_t>(a.cuts.size());
    if (full && r + 1 < a.rows) a.cuts.push_back(r + 1);
  }
  a.cuts.push_back(a.rows);
}

void lay_out(RowMatrix& a, const RowReader& reader) {
  std::vector<int32_t> cols;
  std::vector<int64_t> count(a.col_blocks * a.rows);
  for (int64_t r = 0; r < a.rows; ++r) {
    if (a.col_blocks == 1) {
      count[r] = reader.count(r);
      continue;
    }
    const int64_t n = reader.columns(r, cols);
    for (int64_t i = 0; i < n; ++i) ++count[cols[i] / kColumns * a.rows + r];
  }
  a.starts.assign(1, 0);
  for (int64_t n : count) a.starts.push_back(a.starts.back() + n);
  a.columns = Buffer(a.mask_bytes ? 0 : 2 * a.starts.back());
  a.masks = Buffer(a.rows * a.mask_bytes);
  memset(a.masks.data(), 0, a.masks.bytes());
  a.values = Buffer(a.starts.back() * value_bytes(a.type));
}

void fill(RowMatrix& a, const Source& source, const RowReader& reader) {
  const int64_t size = value_bytes(a.type);
  const bool as_it_is = source.type == a.type && reader.contiguous();
  uint16_t* columns = reinterpret_cast<uint16_t*>(a.columns.data());
  Pool::get().parallel(static_cast<int64_t>(a.cuts.size()) - 1, [&](int64_t task, int) {
    std::vector<int32_t> cols;
    std::vector<float> values;
    for (int64_t r = a.cuts[task]; r < a.cuts[task + 1]; ++r) {
      const int64_t n = as_it_is ? reader.columns(r, cols) : reader.read(r, cols, values);
      for (int64_t i = 0, end; i < n; i = end) {
        const int64_t block = a.mask_bytes ? 0 : cols[i] / kColumns, at = a.starts[block * a.rows + r];
        end = i + (a.starts[block * a.rows + r + 1] - at);
        for (int64_t j = i; j < end && !a.mask_bytes; ++j) columns[at + j - i] = static_cast<uint16_t>(cols[j] % kColumns);
        for (int64_t j = i; j < end && a.mask_bytes; ++j) {
          uint8_t& byte = a.masks.data()[r * a.mask_bytes + cols[j] / 8];
          byte = static_cast<uint8_t>(byte | 1 << cols[j] % 8);
        }
        if (as_it_is) {
          memcpy(a.values.data() + at * size, static_cast<const uint8_t*>(source.data) + (reader.first(r) + i) * size,
                 (end - i) * size);
        } else {
          store_values(a.values.data(), a.type, at, &values[i], end - i);
        }
      }
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
  const auto build = [&](bool masks) {
    a->mask_bytes = masks ? (source.cols + 7) / 8 : 0;
    a->col_blocks = masks ? 1 : std::max<int64_t>(1, (source.cols + kColumns - 1) / kColumns);
    lay_out(*a, reader);
    fill(*a, source, reader);
  };
  build(format == Format::bitmask);
  if (a->mask_bytes && !all_finite(*a)) build(false);
  return a;
}

void run_rows(const Packed& packed, const float* x, int64_t lanes, Output y, const Epilogue& e, Pool& pool) {
  const auto& a = static_cast<const RowMatrix&>(packed);
  const Micro& micro = micro_of(a.kernel->isa);
  const int64_t tasks = static_cast<int64_t>(a.cuts.size()) - 1;
  Buffer padded;
  const bool finite = lanes == 1 && a.mask_bytes && all_finite(x, a.cols);
  if (finite) x = padded_lane(x, a.cols, padded);
  pool.parallel(tasks * panel_count(lanes), [&](int64_t task, int) {
    const int64_t begin = a.cuts[task % tasks], rows = a.cuts[task % tasks + 1] - begin, p = task / tasks;
    const int64_t width = panel_width(lanes, p);
    const YTile tile = tile_of(y, e.residual, a.rows, begin, p, width);
    for (int64_t block = 0; block < a.col_blocks; ++block) {
      const RowsView view{rows,
                          a.starts.data() + block * a.rows + begin,
                          reinterpret_cast<const uint16_t*>(a.columns.data()),
                          a.mask_bytes ? a.masks.data() + begin * a.mask_bytes : nullptr,
                          a.mask_bytes,
                          a.values.data(),
                          a.scales.empty() ? nullptr : a.scales.data() + begin,
                          finite};
      const float* xs = x + p * kPanel * a.cols + block * kColumns * width;
      micro.rows(view, a.type, xs, width, tile.y, tile.ldy, block == 0);
    }
    finish_tile(micro.finish, tile, begin, rows, width, e);
  });
}

}  // namespace zs
