// The implementations that kernels.inc puts together into kernels, and what each instruction set brings to them.
#pragma once

#include "../kernel.h"

namespace zs {

// The rows of one cell (a block of rows times a block of columns), by falling number of entries.
struct CellView {
  int64_t rows;
  const uint16_t* row_ids;  // row inside the block
  const uint16_t* counts;   // entries of that row in this cell
  const uint8_t* indices;   // column inside the block, entry after entry: a byte; 16 bits, times eight, for the narrow loops
  const float* values;
};

// The codes of a cell in the order of its entries, and what they mean: value = (code - zero) * scale, of the entry's row and of the
// group of columns that it lies in. Vectors are read from them: eight scales and eight bytes behind the last code are readable.
struct CodesView {
  const int8_t* codes;
  const uint16_t* scales;  // float16, [row inside the block][stride], from the cell's first group on
  const int8_t* zeros;     // the same, or null
  int64_t stride;
  int64_t groups;          // that the cell meets, 8 at most
  int before, shift;  // column c inside the block lies in group (c + before) >> shift, counted from the cell's first; 16 bits
};

// Rows in order: the values of row r are starts[r] to starts[r + 1], and so are its columns, or masks[r][mask_bytes] has them.
// Columns are 16 bits each; or, where there are fillers, bytes in groups of four (rows.cc).
struct RowsView {
  int64_t rows;
  const int64_t* starts;
  const uint8_t* columns;
  const uint8_t* fillers;  // bit i: entry i is none; null where columns have 16 bits
  const uint8_t* masks;  // null for columns
  int64_t mask_bytes;
  const void* values;
  const float* scales;  // [row], or null
  bool
      finite_x;  // x may be multiplied by zero, and read where a mask has no entry: whole eights of columns, or as arrange left it
  bool gathers;  // columns of one lane: by the gather instruction
};

constexpr int64_t kSumLanes = 8;
constexpr int64_t kFewLanes = 4;
constexpr int64_t kAhead = 8;  // indices that a quad reads beyond its own, to prefetch

// rows x width of y: act(y + bias[row]) + residual.
typedef void (*Finish)(float* y, int64_t ldy, int64_t rows, int64_t width, const float* bias, Activation activation,
                       const float* residual);

// Inner loops of one instruction set (micro.inl). `width` is a multiple of kLaneUnit; rows of x and y follow each other at
// `width` and `ldy` floats. `first` overwrites y instead of adding to it.
struct Micro {
  void (*cell)(const CellView&, const float* x, int64_t width, float* y, int64_t ldy, bool first);
  void (*cell_narrow)(const CellView&, const float* x, int64_t width, float* y, int64_t ldy, bool first);
  void (*cell_one)(const CellView&, const float* x, float* y);  // one lane; adds to y
  void (*cell_one_narrow)(const CellView&, const float* x, float* y);
  // One lane, straight from the bitmask: masks[rows][mask_bytes], values in row order; adds to sums[row][kSumLanes], which
  // sum_lanes adds up. Codes are one a byte, whatever their type, and the view has what they mean; its groups begin
  // at multiples of 32 columns.
  void (*bits_one)(int64_t rows, const uint8_t* row_ids, const uint8_t* masks, int64_t mask_bytes, const void* values,
                   ValueType type, const CodesView* codes, const float* x, float* sums);
  void (*sum_lanes)(const float* sums, int64_t rows, float* y);
  // Four rows by n columns, a[n][4], times up to quad_lanes lanes of x, whose rows are `stride` floats apart; the column is
  // indices[i], or i where indices is null. Writes `valid` rows of y.
  void (*quad)(const float* a, const uint16_t* indices, int64_t n, const float* x, int64_t stride, int64_t lanes, float* y,
               int64_t ldy, int64_t valid, bool first);
  int64_t quad_lanes;
  // Eight rows, two quads of a dense matrix, times at most two_quads_lanes lanes.
  void (*two_quads)(const float* a, const float* b, int64_t n, const float* x, int64_t stride, int64_t lanes, float* y,
                    int64_t ldy, bool first);
  int64_t two_quads_lanes;
  int64_t vector_lanes;  // floats of a vector
  // The same for one lane, a in its stored type; adds to sums[4].
  void (*quad_one)(const void* a, ValueType type, const uint16_t* indices, int64_t n, const float* x, float* sums);
  // Two quads of a dense matrix for up to kFewLanes lanes of a panel, whose rows are `stride` floats apart; values in their
  // stored type; adds to sums[quad][lane][4].
  void (*quads_few)(const void* a, const void* b, ValueType type, int64_t n, const float* x, int64_t stride, float* sums);
  // Null, or the same for up to eight lanes: x as `turn` left it from rows of eight floats, and eight rows of eight floats of y.
  void (*turn)(const float* x, int64_t n, float* out);
  void (*quads_turned)(const void* a, const void* b, ValueType type, int64_t n, const float* x, int64_t lanes, float* y,
                       int64_t ldy, bool first);
  // The set bits of a mask as column numbers; may write 8 bytes past the end it returns.
  uint8_t* (*expand_bits)(const uint8_t* mask, int64_t bytes, uint8_t* out);
  // Positions of four bits (cells.cc says in which order) on top of base[i], the first column of entry i's group; may write
  // 16 bytes past the end it returns.
  uint8_t* (*expand_nibbles)(const uint8_t* codes, int64_t count, const uint8_t* base, uint8_t* out);
  void (*widen)(const void* values, ValueType type, int64_t n, float* out);
  // Codes of 4 bits, two a byte and the first in its low half, to one a byte; reads 15 bytes past the last and may write 31.
  void (*unpack_nibbles)(const uint8_t* codes, int64_t count, int8_t* out);
  // The values of a cell of codes; may write 7 floats past the last.
  void (*decode)(const CellView&, const CodesView&, float* out);
  // Rows of any length times x at `width` lanes, 1 or more.
  void (*rows)(const RowsView&, ValueType type, const float* x, int64_t width, float* y, int64_t ldy, bool first);
  // Null, or how `rows` wants one finite lane of x for masks: out holds the columns, rounded up to 64.
  void (*arrange)(ValueType type, const float* x, int64_t cols, float* out);
  bool (*gathers_pay)();  // null where `rows` never gathers
  Finish finish;
};

extern const Micro micro_avx2;
extern const Micro micro_avx512;
extern const Micro micro_avx512vnni;
extern const Micro micro_neon;
const Micro& micro_of(Isa isa);

std::unique_ptr<Packed> pack_scalar(const Source& source, Format format, ValueType type, Isa isa);
void finish_scalar(float* y, int64_t ldy, int64_t rows, int64_t width, const float* bias, Activation activation,
                   const float* residual);
void run_scalar(const Packed& packed, const float* x, int64_t lanes, Output y, const Epilogue& epilogue, Pool& pool);

// csr, bitmask and nm: cells (cells.cc). dense and bsr: quads of rows (quads.cc).
std::unique_ptr<Packed> pack_cells(const Source& source, Format format, ValueType type, Isa isa);
std::unique_ptr<Packed> pack_narrow(const Source& source, Format format, ValueType type, Isa isa);  // csr
void run_cells(const Packed& packed, const XView& x, int64_t lanes, Output y, const Epilogue& epilogue, Pool& pool);
std::unique_ptr<Packed> pack_quads(const Source& source, Format format, ValueType type, Isa isa);
static inline void run_narrow(const Packed& packed, const XView& x, int64_t lanes, Output y, const Epilogue& e, Pool& pool) {
  run_cells(packed, x, lanes, y, e, pool);
}
void run_quads(const Packed& packed, const float* x, int64_t lanes, Output y, const Epilogue& epilogue, Pool& pool);

// csr for one lane (rows.cc).
std::unique_ptr<Packed> pack_rows(const Source& source, Format format, ValueType type, Isa isa);
void run_rows(const Packed& packed, const float* x, int64_t lanes, Output y, const Epilogue& epilogue, Pool& pool);

// csr in fixed point of 16 bits (fixed.cc).
std::unique_ptr<Packed> pack_fixed(const Source& source, Format format, ValueType type, Isa isa);
void run_fixed(const Packed& packed, const float* x, int64_t lanes, Output y, const Epilogue& epilogue, Pool& pool);

// dense and nm in integer codes (groups.cc).
std::unique_ptr<Packed> pack_groups(const Source& source, Format format, ValueType type, Isa isa);
void run_groups(const Packed& packed, const float* x, int64_t lanes, Output y, const Epilogue& epilogue, Pool& pool);

// dense and bitmask in bfloat16, 16 rows by 32 columns at a time (tiles.cc). run_tiles_by multiplies by tiles of any make.
struct TileMicro;
std::unique_ptr<Packed> pack_tiles(const Source& source, Format format, ValueType type, Isa isa);
void run_tiles(const Packed& packed, const float* x, int64_t lanes, Output y, const Epilogue& epilogue, Pool& pool);
void run_tiles_by(const TileMicro& micro, Finish finish, const Packed& packed, const float* x, int64_t lanes, Output y,
                  const Epilogue& epilogue, Pool& pool);

}  // namespace zs
