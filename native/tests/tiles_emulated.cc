// The tiles family where there is no AMX: its own driver, packing and inner loops, with C++ in place of the tile instructions. What
// they do is taken from Intel's description of TDPBF16PS: products of the even and of the odd columns are summed apart, in
// order, then together, then added; subnormal values count as zero wherever they turn up.
#include "tiles_emulated.h"

#include <math.h>
#include <string.h>

#include <atomic>

#include "../kernels/spmm/spmm.h"
#include "../runtime/numeric.h"

namespace zs::test {
namespace {

std::atomic<int64_t> misuses{0};

}  // namespace

int64_t tile_misuses() { return misuses.load(); }

}  // namespace zs::test

#define ZS_TILES_EMULATED
#include "../kernels/spmm/tiles.h"

namespace zs {
namespace {

float flushed(float v) { return fabsf(v) < 0x1p-126f ? 0.0f : v; }

// Tiles of one thread. Their contents are garbage after begin(), so that nothing relies on what an earlier task left.
struct Tiles {
  struct State {
    bool shaped = false;
    alignas(64) float data[8][kSquare][kSquare];
  };

  static State& state() {
    thread_local State one;
    return one;
  }
  static void expect(bool shaped) {
    if (state().shaped != shaped) ++test::misuses;
  }
  static void begin() {
    expect(false);
    state().shaped = true;
    for (auto& tile : state().data) {
      for (auto& row : tile) {
        for (float& v : row) v = NAN;
      }
    }
  }
  static void end() {
    expect(true);
    state().shaped = false;
  }
  template <int T> static void zero() {
    expect(true);
    memset(state().data[T], 0, sizeof state().data[T]);
  }
  template <int T> static void load(const void* from, int64_t stride) {
    expect(true);
    for (int64_t r = 0; r < kSquare; ++r) memcpy(state().data[T][r], static_cast<const char*>(from) + r * stride, 64);
  }
  template <int T> static void store(void* to, int64_t stride) {
    expect(true);
    for (int64_t r = 0; r < kSquare; ++r) memcpy(static_cast<char*>(to) + r * stride, state().data[T][r], 64);
  }
  static float half(uint32_t pair, int odd) { return flushed(bits_to_float(odd ? pair & 0xffff0000u : pair << 16)); }

  template <int C, int A, int B> static void dot() {
    expect(true);
    State& s = state();
    for (int64_t r = 0; r < kSquare; ++r) {
      float sums[2][kSquare] = {};
      for (int64_t k = 0; k < kSquare; ++k) {
        for (int odd = 0; odd < 2; ++odd) {
          const float a = half(float_to_bits(s.data[A][r][k]), odd);
          for (int64_t t = 0; t < kSquare; ++t) {
            sums[odd][t] = flushed(sums[odd][t] + flushed(a * half(float_to_bits(s.data[B][k][t]), odd)));
          }
        }
      }
      for (int64_t t = 0; t < kSquare; ++t) {
        s.data[C][r][t] = flushed(flushed(s.data[C][r][t]) + flushed(sums[0][t] + sums[1][t]));
      }
    }
  }
};

void spread(uint32_t mask, const uint16_t* values, uint16_t* row) {
  uint16_t read[kDeep];
  memcpy(read, values, sizeof read);  // all 64 bytes, as the instruction does: a sanitizer sees where that is too far
  for (int64_t c = 0, next = 0; c < kDeep; ++c) row[c] = mask >> c & 1 ? read[next++] : uint16_t{0};
}

int64_t count32(uint32_t mask) { return count_word(mask); }

}  // namespace
}  // namespace zs

#include "../kernels/spmm/tiles.inl"

namespace zs::test {
namespace {

constexpr TileMicro kEmulated = {Tiles::begin, Tiles::end, multiply, round_x};

void run_emulated(const Packed& packed, const float* x, int64_t lanes, Output y, const Epilogue& e, Pool& pool) {
  run_tiles_by(kEmulated, finish_scalar, packed, x, lanes, y, e, pool);
}

template <Format F> std::unique_ptr<Packed> pack_emulated(const Source& source) {
  return is_code(source.type) ? nullptr : pack_tiles(source, F, ValueType::bf16, Isa::scalar);
}

template <Format F> constexpr Kernel emulated(const char* name) {
  return {name, F, ValueType::bf16, Isa::scalar, "tiles, emulated", XType::bf16, pack_emulated<F>, run_emulated};
}

}  // namespace

const std::vector<Kernel>& emulated_tiles() {
  static const std::vector<Kernel> both = {emulated<Format::dense>("spmm_dense_bf16_emulated"),
                                           emulated<Format::bitmask>("spmm_bitmask_bf16_emulated")};
  return both;
}

}  // namespace zs::test
