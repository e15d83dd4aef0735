// Integer dot products over groups of 16 columns (groups.cc drives, groups.inl multiplies). C headers only.
#pragma once

#include <stdint.h>

namespace zs {

constexpr int64_t kTileRows = 4;    // rows of a tile
constexpr int64_t kGroup = 16;      // columns of a group: what one byte shuffle reaches
constexpr int64_t kPair = 32;       // columns of a step: two groups
constexpr int64_t kStrip = 16;      // tokens that many tokens are cut into

// Four rows of the matrix. A step is two groups; of each, every row has 4 * quarters codes (padded with code 0). One quarter
// of a step is 32 entries, byte 16 h + 4 r + e: entry e of row r in group h. Stored: 16 bytes of positions (two to a byte, the
// first in the low half; none where the matrix is dense, whose quarter j holds columns 4 j to 4 j + 3), then 32 bytes of codes, or
// 16 with two to a byte.
struct GroupTile {
  const uint8_t* codes;
  int64_t steps;
  int64_t steps_a_block;  // steps that share a scale
  int quarters;
  bool dense;
  const uint16_t* scales;  // [block][4], float16
};

// One row of a bitmask. A step is 32 columns: four bytes of masks, the lowest bit first, and the codes of the set bits; where codes
// are two to a byte, those of each chunk of columns begin a byte (GroupMicro::chunk).
struct GroupRow {
  const uint8_t* masks;
  const uint8_t* codes;
  int64_t steps;
  int64_t steps_a_block;
  const uint16_t* scales;  // [block], float16
  bool one_scale;  // the first holds for all blocks
};

// Four rows widened to 16 bits, [pair of columns][row][2], of which `rows` are written.
struct ManyTile {
  const int16_t* weights;
  int64_t pairs, pairs_a_block;  // pairs that share a scale
  int64_t rows;
  const uint16_t* scales;  // float16, at row * row_stride + block * block_stride
  int64_t row_stride, block_stride;
};

// Many tokens (many.inl).
struct ManyMicro {
  void (*widen_i8)(const GroupTile&, int16_t* out);
  void (*widen_i4)(const GroupTile&, int16_t* out);
  // One row of a bitmask: writes two of every eight.
  void (*widen_row_i8)(const GroupRow&, int16_t* out);
  void (*widen_row_i4)(const GroupRow&, int16_t* out);
  // As LaneQuantiser has it: [strip of 16 lanes][pair of columns][lane][2]; zero behind the last feature.
  void (*quantise)(const float* x, int64_t width, int64_t features, int64_t pairs, const float* inverse, int16_t* out);
  // y[row][lane] = the tile times a strip of 8 or 16 lanes, aligned to 32 bytes.
  void (*strip)(const ManyTile&, const int16_t* x, int64_t lanes, const float* lane_scales, float* y, int64_t ldy);
};

struct GroupMicro {
  // sums[token][4] = the four rows times x[token], codes of -127 to 127, x_stride bytes apart, 32 readable a step.
  void (*tile_i8)(const GroupTile&, const int8_t* x, int64_t x_stride, int64_t tokens, float* sums);
  void (*tile_i4)(const GroupTile&, const int8_t* x, int64_t x_stride, int64_t tokens, float* sums);
  // sums[token] = the row times x[token]. Codes are readable 64 bytes beyond their end.
  void (*row_i8)(const GroupRow&, const int8_t* x, int64_t x_stride, int64_t tokens, float* sums);
  void (*row_i4)(const GroupRow&, const int8_t* x, int64_t x_stride, int64_t tokens, float* sums);
  const ManyMicro* many;  // null: many tokens go by fours
  int64_t chunk;  // groups of a bitmask's row whose codes of 4 bits follow each other without a gap
};

extern const GroupMicro groups_scalar;
extern const GroupMicro groups_avx2;
extern const GroupMicro groups_avxvnni;
extern const GroupMicro groups_avx512vnni;
extern const GroupMicro groups_neon;
extern const GroupMicro groups_neondot;

}  // namespace zs
