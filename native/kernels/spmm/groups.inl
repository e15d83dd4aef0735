// The inner loop of groups.cc, compiled once per instruction set. Sixteen columns of x lie in a lane of a vector, and one
// shuffle fetches what the kept codes multiply: nothing is expanded, and x is read in order.
//
// Counted, AVX2, one token, per 64 elements at 8:16: 4 instructions for positions, 7 for the product, 3 loads; bound by
// memory from there on (0.75 bytes an element).
#include <string.h>

#include "../../runtime/numeric.h"
#include "groups.h"

#if defined(ZS_PORTABLE)
#elif defined(__AVX2__)
#define ZS_GROUPS_AVX2
#include <immintrin.h>
#elif defined(__aarch64__)
#define ZS_GROUPS_NEON
#include <arm_neon.h>
#endif

namespace zs {
namespace {

constexpr int64_t kMostTokens = 4;  // that share one reading of positions and codes

#if defined(ZS_GROUPS_AVX2)
struct Lanes {
  typedef __m256i Bytes;  // a quarter of a step
  typedef __m256i Sums;   // [group][row]
  typedef __m128 Rows;    // [row]

  static Bytes load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static Bytes nibbles(const uint8_t* p) {
    const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_and_si256(_mm256_or_si256(wide, _mm256_slli_epi16(wide, 4)), _mm256_set1_epi8(15));
  }
  static Bytes codes4(const uint8_t* p) {
    const __m256i eight = _mm256_set1_epi8(8);
    return _mm256_sub_epi8(_mm256_xor_si256(nibbles(p), eight), eight);
  }
  // Columns 4 j to 4 j + 3, for each of the four rows.
  static Bytes quarter(int j) { return _mm256_set1_epi32(0x03020100 + 0x04040404 * j); }
  static Sums none() { return _mm256_setzero_si256(); }
  static Bytes fetch(const int8_t* x, Bytes at) {
    return _mm256_shuffle_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)), at);
  }
  // Bytes are multiplied unsigned by signed: codes lend their sign to x.
  static Bytes size_of(Bytes codes) { return _mm256_abs_epi8(codes); }
  static Sums dot(Sums sum, Bytes codes, Bytes size, Bytes x) {
    const __m256i turned = _mm256_sign_epi8(x, codes);
#if defined(__AVX512VNNI__)
    return _mm256_dpbusd_epi32(sum, size, turned);
#elif defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, size, turned);
#else
    const __m256i pairs = _mm256_maddubs_epi16(size, turned);  // 16 bits: at most 2 x 127 x 127
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
  }
  static Rows zero() { return _mm_setzero_ps(); }
  static Rows scaled(Rows total, Sums sum, const uint16_t* scales) {
    const __m128i both = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    const __m128 four = _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales)));
    return _mm_add_ps(total, _mm_mul_ps(_mm_cvtepi32_ps(both), four));
  }
  static void store(float* p, Rows rows) { _mm_storeu_ps(p, rows); }
};
#elif defined(ZS_GROUPS_NEON)
struct Lanes {
  typedef int8x16x2_t Bytes;
  typedef int32x4_t Sums;
  typedef float32x4_t Rows;

  static Bytes load(const uint8_t* p) { return {{vreinterpretq_s8_u8(vld1q_u8(p)), vreinterpretq_s8_u8(vld1q_u8(p + 16))}}; }
  static Bytes nibbles(const uint8_t* p) {
    const uint8x16_t both = vld1q_u8(p), low = vandq_u8(both, vdupq_n_u8(15)), high = vshrq_n_u8(both, 4);
    return {{vreinterpretq_s8_u8(vzip1q_u8(low, high)), vreinterpretq_s8_u8(vzip2q_u8(low, high))}};
  }
  static Bytes codes4(const uint8_t* p) {
    const int8x16_t eight = vdupq_n_s8(8);
    const Bytes found = nibbles(p);
    return {{vsubq_s8(veorq_s8(found.val[0], eight), eight), vsubq_s8(veorq_s8(found.val[1], eight), eight)}};
  }
  static Bytes quarter(int j) {
    const int8x16_t columns = vreinterpretq_s8_s32(vdupq_n_s32(0x03020100 + 0x04040404 * j));
    return {{columns, columns}};
  }
  static Sums none() { return vdupq_n_s32(0); }
  static Bytes fetch(const int8_t* x, Bytes at) {
    const Bytes all = {{vld1q_s8(x), vld1q_s8(x + 16)}};
    return {{vqtbl1q_s8(all.val[0], vreinterpretq_u8_s8(at.val[0])), vqtbl1q_s8(all.val[1], vreinterpretq_u8_s8(at.val[1]))}};
  }
  static Bytes size_of(Bytes codes) { return codes; }
  static Sums dot16(Sums sum, int8x16_t codes, int8x16_t x) {
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, codes, x);
#else
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(codes), vget_low_s8(x)));
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(codes, x));
    return vaddq_s32(sum, vpaddq_s32(low, high));
#endif
  }
  static Sums dot(Sums sum, Bytes codes, Bytes, Bytes x) {
    return dot16(dot16(sum, codes.val[0], x.val[0]), codes.val[1], x.val[1]);
  }
  static Rows zero() { return vdupq_n_f32(0); }
  static Rows scaled(Rows total, Sums sum, const uint16_t* scales) {
    const float32x4_t four = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(scales)));
    return vaddq_f32(total, vmulq_f32(vcvtq_f32_s32(sum), four));
  }
  static void store(float* p, Rows rows) { vst1q_f32(p, rows); }
};
#else
struct Lanes {
  struct Bytes {
    int8_t at[32];
  };
  struct Sums {
    int32_t at[4];
  };
  struct Rows {
    float at[4];
  };

  static Bytes load(const uint8_t* p) {
    Bytes b;
    memcpy(b.at, p, 32);
    return b;
  }
  static Bytes nibbles(const uint8_t* p) {
    Bytes b;
    for (int i = 0; i < 32; ++i) b.at[i] = static_cast<int8_t>(p[i / 2] >> (i % 2 * 4) & 15);
    return b;
  }
  static Bytes codes4(const uint8_t* p) {
    Bytes b = nibbles(p);
    for (int i = 0; i < 32; ++i) b.at[i] = static_cast<int8_t>((b.at[i] ^ 8) - 8);
    return b;
  }
  static Bytes quarter(int j) {
    Bytes b;
    for (int i = 0; i < 32; ++i) b.at[i] = static_cast<int8_t>(4 * j + i % 4);
    return b;
  }
  static Sums none() { return Sums{}; }
  static Bytes fetch(const int8_t* x, Bytes at) {
    Bytes b;
    for (int i = 0; i < 32; ++i) b.at[i] = x[i / 16 * 16 + at.at[i]];
    return b;
  }
  static Bytes size_of(Bytes codes) { return codes; }
  static Sums dot(Sums sum, Bytes codes, Bytes, Bytes x) {
    for (int i = 0; i < 32; ++i) sum.at[i / 4 % 4] += codes.at[i] * x.at[i];
    return sum;
  }
  static Rows zero() { return Rows{}; }
  static Rows scaled(Rows total, Sums sum, const uint16_t* scales) {
    for (int r = 0; r < 4; ++r) total.at[r] += static_cast<float>(sum.at[r]) * f16_to_float(scales[r]);
    return total;
  }
  static void store(float* p, Rows rows) { memcpy(p, rows.at, sizeof rows.at); }
};
#endif

template <int T, bool Four, bool Dense>
void tile_of_tokens(const GroupTile& g, const int8_t* x, int64_t x_stride, float* sums) {
  constexpr int64_t kBytes = (Dense ? 0 : 16) + (Four ? 16 : 32);
  const uint8_t* at = g.codes;
  typename Lanes::Rows total[T];
  for (int t = 0; t < T; ++t) total[t] = Lanes::zero();
  for (int64_t block = 0, step = 0; step < g.steps; ++block) {
    typename Lanes::Sums sum[T];
    for (int t = 0; t < T; ++t) sum[t] = Lanes::none();
    const int64_t end = step + g.steps_a_block < g.steps ? step + g.steps_a_block : g.steps;
    for (; step < end; ++step, x += kPair) {
      for (int j = 0; j < g.quarters; ++j, at += kBytes) {
        const typename Lanes::Bytes where = Dense ? Lanes::quarter(j) : Lanes::nibbles(at);
        const uint8_t* stored = at + (Dense ? 0 : 16);
        const typename Lanes::Bytes codes = Four ? Lanes::codes4(stored) : Lanes::load(stored);
        const typename Lanes::Bytes size = Lanes::size_of(codes);
        for (int t = 0; t < T; ++t) sum[t] = Lanes::dot(sum[t], codes, size, Lanes::fetch(x + t * x_stride, where));
      }
    }
    for (int t = 0; t < T; ++t) total[t] = Lanes::scaled(total[t], sum[t], g.scales + 4 * block);
  }
  for (int t = 0; t < T; ++t) Lanes::store(sums + 4 * t, total[t]);
}

template <bool Four, bool Dense>
void tile_any(const GroupTile& g, const int8_t* x, int64_t x_stride, int64_t tokens, float* sums) {
  for (int64_t t = 0; t < tokens; t += kMostTokens) {
    const int8_t* xs = x + t * x_stride;
    switch (tokens - t) {
      case 1: tile_of_tokens<1, Four, Dense>(g, xs, x_stride, sums + 4 * t); break;
      case 2: tile_of_tokens<2, Four, Dense>(g, xs, x_stride, sums + 4 * t); break;
      case 3: tile_of_tokens<3, Four, Dense>(g, xs, x_stride, sums + 4 * t); break;
      default: tile_of_tokens<4, Four, Dense>(g, xs, x_stride, sums + 4 * t); break;
    }
  }
}

void tile_i8(const GroupTile& g, const int8_t* x, int64_t x_stride, int64_t tokens, float* sums) {
  if (g.dense) return tile_any<false, true>(g, x, x_stride, tokens, sums);
  tile_any<false, false>(g, x, x_stride, tokens, sums);
}

void tile_i4(const GroupTile& g, const int8_t* x, int64_t x_stride, int64_t tokens, float* sums) {
  if (g.dense) return tile_any<true, true>(g, x, x_stride, tokens, sums);
  tile_any<true, false>(g, x, x_stride, tokens, sums);
}

}  // namespace
}  // namespace zs
