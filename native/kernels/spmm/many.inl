// Codes times many tokens, for groups.cc: a lane of a vector is a token, and one instruction multiplies two columns of x by two weights
// of a row, 16 bits each, and adds the products. No sign has to be lent and nothing is shuffled.
//
// Counted: four rows by 16 tokens take 8 products, 8 sums and 6 loads for two columns. Products start two a cycle, but sums compete with
// them: alone in a loop 1.5 a cycle, which is 1.5 times as many as float32 has at its best (Zen 3).
//
// Measured and dropped: bytes, unsigned by signed (31 products of codes a cycle instead of 24). Pairs of products have 16 bits
// there, so a pair of weights whose sizes add to more than 128 has to be halved: 4 % of a MiniLM's, 6 % of normal ones. Halving them in
// each call took more time than it saved below 64 lanes, and keeping them halved a second packing.
#include "groups.h"

namespace zs {
namespace {

constexpr int64_t kVector = 8;  // tokens of a vector

// 16 codes, [row][4 columns], to [pair of columns][row][2].
void widen_quad(__m128i codes, int16_t* out) {
  const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_cvtepi8_epi16(_mm_shuffle_epi8(codes, order)));
}

template <bool Four> void widen_dense(const GroupTile& g, int16_t* out) {
  const uint8_t* at = g.codes;
  for (int64_t step = 0; step < g.steps; ++step, out += kPair * kTileRows) {
    for (int64_t j = 0; j < 4; ++j, at += Four ? 16 : 32) {
      const __m256i codes = Four ? Lanes::codes4(at) : Lanes::load(at);
      widen_quad(_mm256_castsi256_si128(codes), out + 4 * j * kTileRows);
      widen_quad(_mm256_extracti128_si256(codes, 1), out + (kGroup + 4 * j) * kTileRows);
    }
  }
}

// N of M: codes go where their positions say. Entries that pad a group have code 0.
template <bool Four> void widen_listed(const GroupTile& g, int16_t* out) {
  memset(out, 0, g.steps * kPair * kTileRows * sizeof *out);
  const uint8_t* at = g.codes;
  for (int64_t step = 0; step < g.steps; ++step, out += kPair * kTileRows) {
    for (int j = 0; j < g.quarters; ++j, at += 16 + (Four ? 16 : 32)) {
      alignas(32) int8_t codes[32];
      alignas(32) uint8_t where[32];
      _mm256_store_si256(reinterpret_cast<__m256i*>(codes), Four ? Lanes::codes4(at + 16) : Lanes::load(at + 16));
      _mm256_store_si256(reinterpret_cast<__m256i*>(where), Lanes::nibbles(at));
      for (int64_t i = 0; i < 32; ++i) {
        const int64_t column = i / 16 * kGroup + where[i], row = i / 4 % 4;
        int16_t& weight = out[column / 2 * 8 + row * 2 + column % 2];
        weight = static_cast<int16_t>(weight + codes[i]);
      }
    }
  }
}

void widen_i8(const GroupTile& g, int16_t* out) { g.dense ? widen_dense<false>(g, out) : widen_listed<false>(g, out); }
void widen_i4(const GroupTile& g, int16_t* out) { g.dense ? widen_dense<true>(g, out) : widen_listed<true>(g, out); }

// One row of a bitmask, to out[pair of columns][8].
template <bool Four> void widen_row(const GroupRow& g, int16_t* out) {
  const uint8_t* at = g.codes;
  for (int64_t step = 0; step < g.steps; ++step, out += kPair * kTileRows) {
    uint32_t mask;
    memcpy(&mask, g.masks + 4 * step, 4);
    mask = kept(mask);
    const __m256i codes = Four ? Lanes::spread4(at, mask) : Lanes::spread8(at, mask);
    const int64_t low = __builtin_popcount(mask & 0xffff), all = __builtin_popcount(mask);
    at += Four ? (low + 1) / 2 + (all - low + 1) / 2 : all;
    alignas(32) int32_t pairs[16];
    __m256i* both = reinterpret_cast<__m256i*>(pairs);
    _mm256_store_si256(both, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(codes)));
    _mm256_store_si256(both + 1, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(codes, 1)));
    for (int64_t i = 0; i < 16; ++i) memcpy(out + 8 * i, pairs + i, 4);
  }
}

// A panel is read in order, though four strips are written at once.
void quantise_lanes(const float* x, int64_t width, int64_t features, int64_t pairs, const float* inverse, int16_t* out) {
  const __m256i low = _mm256_set1_epi32(0xffff);
  for (int64_t k = 0; k < pairs; ++k, x += 2 * width, out += 2 * kStrip) {
    for (int64_t t = 0; t < width; t += kVector) {
      const auto codes = [&](int64_t f) {
        if (2 * k + f >= features) return _mm256_setzero_si256();
        return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + f * width + t), _mm256_loadu_ps(inverse + t)));
      };
      const __m256i both = _mm256_or_si256(_mm256_and_si256(codes(0), low), _mm256_slli_epi32(codes(1), 16));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + t / kStrip * pairs * 2 * kStrip + t % kStrip * 2), both);
    }
  }
}

// In one piece: of intrinsics GCC 12 computes all products before it adds one, spills, and moves every sum to another register.
inline void add_products(__m256i& sum, __m256i x, __m256i w) {
  __m256i products;
  asm("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(products) : "x"(x), "x"(w));
}

inline void add_products(__m256i& sum, __m256i x, __m256i& other_sum, __m256i other_x, __m256i w) {
  __m256i products, others;
  asm("vpmaddwd %4, %6, %2\n\tvpmaddwd %5, %6, %3\n\tvpaddd %2, %0, %0\n\tvpaddd %3, %1, %1"
      : "+x"(sum), "+x"(other_sum), "=&x"(products), "=&x"(others)
      : "x"(x), "x"(other_x), "x"(w));
}

// sums[row][vector] of a block of pairs. Not inlined: the float sums would take its registers.
template <int V>
[[gnu::noinline]] void sums_of_pairs(const int16_t* w, const int16_t* x, int64_t pairs, __m256i (&sums)[kTileRows][V]) {
  __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
#pragma GCC unroll 2
  for (int64_t pair = 0; pair < pairs; ++pair, x += 2 * kStrip, w += 2 * kTileRows) {
    const __m256i a = _mm256_load_si256(reinterpret_cast<const __m256i*>(x));
    const __m256i b = _mm256_load_si256(reinterpret_cast<const __m256i*>(x) + V - 1);
    const auto row = [&](int r, __m256i& in_a, __m256i& in_b) {
      int32_t two;
      memcpy(&two, w + 2 * r, 4);
      const __m256i weights = _mm256_set1_epi32(two);
      if constexpr (V == 2) {
        add_products(in_a, a, in_b, b, weights);
      } else {
        add_products(in_a, a, weights);
      }
    };
    row(0, a0, b0);
    row(1, a1, b1);
    row(2, a2, b2);
    row(3, a3, b3);
  }
  const __m256i in_a[] = {a0, a1, a2, a3}, in_b[] = {b0, b1, b2, b3};
  for (int r = 0; r < kTileRows; ++r) {
    sums[r][0] = in_a[r];
    if (V == 2) sums[r][V - 1] = in_b[r];
  }
}

template <int V> void strip_of_vectors(const ManyTile& g, const int16_t* x, const float* lane_scales, float* y, int64_t ldy) {
  __m256 total[kTileRows][V];
  for (auto& row : total) {
    for (__m256& lanes : row) lanes = _mm256_setzero_ps();
  }
  for (int64_t block = 0, pair = 0; pair < g.pairs; ++block, pair += g.pairs_a_block) {
    __m256i sum[kTileRows][V];
    const int64_t pairs = g.pairs - pair < g.pairs_a_block ? g.pairs - pair : g.pairs_a_block;
    sums_of_pairs<V>(g.weights + pair * 2 * kTileRows, x + pair * 2 * kStrip, pairs, sum);
    for (int r = 0; r < kTileRows; ++r) {
      const int64_t row = r < g.rows ? r : 0;
      const __m256 scale = _mm256_set1_ps(f16_to_float(g.scales[row * g.row_stride + block * g.block_stride]));
      for (int v = 0; v < V; ++v) {
        total[r][v] = _mm256_add_ps(total[r][v], _mm256_mul_ps(_mm256_cvtepi32_ps(sum[r][v]), scale));
      }
    }
  }
  for (int r = 0; r < g.rows; ++r) {
    for (int v = 0; v < V; ++v) {
      const __m256 scale = _mm256_loadu_ps(lane_scales + v * kVector);
      _mm256_storeu_ps(y + r * ldy + v * kVector, _mm256_mul_ps(total[r][v], scale));
    }
  }
}

void strip(const ManyTile& g, const int16_t* x, int64_t lanes, const float* lane_scales, float* y, int64_t ldy) {
  if (lanes > kVector) return strip_of_vectors<2>(g, x, lane_scales, y, ldy);
  strip_of_vectors<1>(g, x, lane_scales, y, ldy);
}

const ManyMicro many_avx2 = {widen_i8, widen_i4, widen_row<false>, widen_row<true>, quantise_lanes, strip};

}  // namespace
}  // namespace zs
