// Products of tiles of bfloat16 (tiles.cc drives, tiles.inl multiplies). C headers only.
#pragma once

#include <stdint.h>

namespace zs {

constexpr int64_t kSquare = 16;  // rows of a tile of A, lanes of a tile of x, and both sides of a tile of Y
constexpr int64_t kDeep = 32;  // columns of a tile of A
constexpr int64_t kTileValues = kSquare * kDeep;  // 16 bits each: 1 KiB
constexpr int64_t kTileBytes = 2 * kTileValues;

// Up to 32 rows by 32 lanes of Y, by a run of tiles along the columns. A tile of A is [row][32 columns], a tile of x
// [pair of columns][lane][2]; the tiles of a run follow each other. Rows and lanes that do not exist are zeros.
struct TileBlock {
  uint16_t* a[2];  // runs of 16 rows each; the second null where there are no more rows
  const uint16_t* x[2];  // runs of 16 lanes each; the second null where there are no more lanes
  float* y;  // 32 rows, `ldy` floats apart
  int64_t ldy;
  int64_t steps;
  bool first;  // y is written, not added to
  // Where masks[0] is set `a` is not there yet: it is written from one bit a column, [step][row], and the values that have one.
  const uint32_t* masks[2];
  const uint16_t* values[2];
};

struct TileMicro {
  // Around whatever a thread multiplies: tiles have a shape only in between.
  void (*begin)();
  void (*end)();
  // Leaves behind the values it has expanded, if any.
  void (*multiply)(TileBlock&);
  // `cols` columns of a panel, x[cols][width], to bfloat16 in tiles: whole ones, with zeros for what is beyond. The tiles of
  // 16 lanes lie `run` values after those of the 16 before. False where x has NaN, infinity or what would become infinite.
  bool (*round_x)(const float* x, int64_t width, int64_t cols, uint16_t* out, int64_t run);
};

extern const TileMicro tiles_amx;

}  // namespace zs
