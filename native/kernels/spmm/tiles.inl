// The inner loops of tiles.cc. Compiled with AMX, and once more by the tests, where C++ stands in for it (Tiles, spread): what
// an instruction set brings is a way to load, multiply and store tiles and to spread packed values; all else is the same code.
//
// Counted for Sapphire Rapids: a product of tiles takes 16 cycles, a load of one 8. Two by two tiles of Y in registers need four
// loads for four products, so that products are what bounds them: 64 cycles a step. To expand a tile of A takes 16 rows of
// about six instructions, as long as four products; it is done one step ahead, so that it runs while the step is multiplied,
// and the tiles stay in L1 for all the other lanes.
#include <string.h>

#include "../../runtime/numeric.h"
#include "tiles.h"

#if !defined(ZS_TILES_EMULATED)
#include <immintrin.h>
#endif

namespace zs {
namespace {

#if !defined(ZS_TILES_EMULATED)
// Not the compiler's intrinsics: those of GCC 12 do not say that they read memory, and tiles that were just written would be
// loaded before.
struct Tiles {
  struct alignas(64) Shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };

  static void begin() {
    Shapes shapes;
    memset(&shapes, 0, sizeof shapes);
    shapes.palette = 1;
    for (int t = 0; t < 8; ++t) {
      shapes.row_bytes[t] = 64;
      shapes.rows[t] = kSquare;
    }
    asm volatile("ldtilecfg %0" ::"m"(shapes));
  }
  static void end() { asm volatile("tilerelease" ::: "memory"); }
  template <int T> static void zero() { asm volatile("tilezero %%tmm%c0" ::"i"(T)); }
  template <int T> static void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
  }
  template <int T> static void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
  }
  template <int C, int A, int B> static void dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }
};

// The 32 columns of a row: the next value where a bit is set, else zero. Reads 64 bytes.
void spread(uint32_t mask, const uint16_t* values, uint16_t* row) {
  _mm512_storeu_si512(row, _mm512_maskz_expand_epi16(mask, _mm512_loadu_si512(values)));
}

int64_t count32(uint32_t mask) { return __builtin_popcount(mask); }
#endif

// Tiles 0 to 3 are Y [row of tiles][run of lanes], 4 and 5 A, 6 and 7 x.
template <int R, int L> struct Product {
  static constexpr int64_t kStride = 2 * kDeep;  // bytes from row to row of a tile of A or x

  static void begin(const TileBlock& b) {
    if (b.first) {
      Tiles::zero<0>();
      if (L > 1) Tiles::zero<1>();
      if (R > 1) Tiles::zero<2>();
      if (R > 1 && L > 1) Tiles::zero<3>();
      return;
    }
    const int64_t stride = 4 * b.ldy;
    Tiles::load<0>(b.y, stride);
    if (L > 1) Tiles::load<1>(b.y + kSquare, stride);
    if (R > 1) Tiles::load<2>(b.y + kSquare * b.ldy, stride);
    if (R > 1 && L > 1) Tiles::load<3>(b.y + kSquare * b.ldy + kSquare, stride);
  }

  static void step(const TileBlock& b, int64_t k) {
    const int64_t at = k * kTileValues;
    Tiles::load<4>(b.a[0] + at, kStride);
    Tiles::load<6>(b.x[0] + at, kStride);
    Tiles::dot<0, 4, 6>();
    if (L > 1) {
      Tiles::load<7>(b.x[1] + at, kStride);
      Tiles::dot<1, 4, 7>();
    }
    if (R > 1) {
      Tiles::load<5>(b.a[1] + at, kStride);
      Tiles::dot<2, 5, 6>();
      if (L > 1) Tiles::dot<3, 5, 7>();
    }
  }

  static void end(const TileBlock& b) {
    const int64_t stride = 4 * b.ldy;
    Tiles::store<0>(b.y, stride);
    if (L > 1) Tiles::store<1>(b.y + kSquare, stride);
    if (R > 1) Tiles::store<2>(b.y + kSquare * b.ldy, stride);
    if (R > 1 && L > 1) Tiles::store<3>(b.y + kSquare * b.ldy + kSquare, stride);
  }
};

const uint16_t* expand(const uint32_t* masks, const uint16_t* values, uint16_t* tile) {
  for (int64_t r = 0; r < kSquare; ++r) {
    spread(masks[r], values, tile + kDeep * r);
    values += count32(masks[r]);
  }
  return values;
}

template <int R> void expand_step(TileBlock& b, int64_t k) {
  b.values[0] = expand(b.masks[0] + kSquare * k, b.values[0], b.a[0] + kTileValues * k);
  if (R > 1) b.values[1] = expand(b.masks[1] + kSquare * k, b.values[1], b.a[1] + kTileValues * k);
}

template <int R, int L> void multiply_by(TileBlock& b) {
  typedef Product<R, L> P;
  P::begin(b);
  if (b.masks[0]) {
    if (b.steps) expand_step<R>(b, 0);
    for (int64_t k = 0; k < b.steps; ++k) {
      if (k + 1 < b.steps) expand_step<R>(b, k + 1);
      P::step(b, k);
    }
  } else {
    for (int64_t k = 0; k < b.steps; ++k) P::step(b, k);
  }
  P::end(b);
}

void multiply(TileBlock& b) {
  if (b.a[1]) return b.x[1] ? multiply_by<2, 2>(b) : multiply_by<2, 1>(b);
  b.x[1] ? multiply_by<1, 2>(b) : multiply_by<1, 1>(b);
}

// Vectors of 16 numbers of 32 bits: two columns of 16 lanes, rounded, are one row of a tile of x.
typedef uint32_t Sixteen __attribute__((vector_size(64)));
typedef uint32_t SixteenAnywhere __attribute__((vector_size(64), aligned(4), may_alias));

// By reference: how a vector of 64 bytes is handed over depends on the instruction set.
void load16(const float* x, int64_t lanes, Sixteen& bits) {
  if (lanes >= kSquare) {
    bits = *reinterpret_cast<const SixteenAnywhere*>(x);
    return;
  }
  bits = Sixteen{};
  memcpy(&bits, x, static_cast<size_t>(4 * lanes));
}

bool round_x(const float* x, int64_t width, int64_t cols, uint16_t* out, int64_t run) {
  constexpr uint32_t kFirstInfinite = 0x7f7f8000u;  // the least magnitude that rounds to infinity
  const int64_t pairs = (cols + kDeep - 1) / kDeep * kSquare;
  Sixteen most{};
  for (int64_t t = 0; t < width; t += kSquare, out += run) {
    const int64_t lanes = width - t;
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const float* row = x + 2 * pair * width + t;
      Sixteen low{}, high{};
      if (2 * pair < cols) load16(row, lanes, low);
      if (2 * pair + 1 < cols) load16(row + width, lanes, high);
      // To nearest, ties to even: the upper half of a finite number after half of its last place was added.
      const Sixteen left = low + 0x7fffu + (low >> 16 & 1u), right = high + 0x7fffu + (high >> 16 & 1u);
      const Sixteen both = left >> 16 | (right & 0xffff0000u);
      memcpy(out + 2 * kSquare * pair, &both, sizeof both);
      const Sixteen a = low & 0x7fffffffu, b = high & 0x7fffffffu;
      most = a > most ? a : most;
      most = b > most ? b : most;
    }
  }
  uint32_t largest = 0;
  for (int i = 0; i < 16; ++i) largest = most[i] > largest ? most[i] : largest;
  return largest < kFirstInfinite;
}

}  // namespace
}  // namespace zs
