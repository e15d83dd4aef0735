// The inner loop of groups.cc, compiled once per instruction set. Sixteen columns of x lie in a lane of a vector, and one
// shuffle fetches what the kept codes multiply: nothing is expanded, and x is read in order.
//
// A bitmask is expanded, 16 codes by one shuffle, whose positions are the sum of two table entries, one a mask byte. Measured,
// AVX2, one token, in L2: 0.54 ns a mask byte; two or four rows at once are slower, and so is asking ahead for codes.
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

// How far ahead codes are asked for. Sapphire Rapids, 16 threads, from memory: 8 to 14 % faster.
[[maybe_unused]] constexpr int64_t kAheadBytes = 4096;
constexpr int64_t kMostTokens = 4;  // that share one reading of positions and codes
#if defined(__AVX512VBMI2__)
constexpr int64_t kChunk = 4;
#else
constexpr int64_t kChunk = 1;
#endif

// What brings the packed codes of 16 columns to their places: before[low mask byte] + behind[high one], 128 and more for none.
struct Places {
  alignas(64) uint8_t before[256][16];
  alignas(64) uint8_t behind[256][16];
  constexpr Places() : before(), behind() {
    for (int mask = 0; mask < 256; ++mask) {
      uint8_t next = 0;
      for (int bit = 0; bit < 8; ++bit) {
        before[mask][bit] = behind[mask][8 + bit] = mask >> bit & 1 ? next++ : 128;
        behind[mask][bit] = 0;
      }
      for (int bit = 0; bit < 8; ++bit) before[mask][8 + bit] = next;
    }
  }
};
[[maybe_unused]] constexpr Places kPlaces;

#if defined(ZS_GROUPS_AVX2)
struct Lanes {
  typedef __m256i Bytes;  // a quarter of a step
  typedef __m256i Sums;   // [group][row]
  typedef __m128 Rows;    // [row]

  static Bytes load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static Bytes halves(__m128i bytes) {
    const __m256i wide = _mm256_cvtepu8_epi16(bytes);
    return _mm256_and_si256(_mm256_or_si256(wide, _mm256_slli_epi16(wide, 4)), _mm256_set1_epi8(15));
  }
  static Bytes signed4(Bytes found) {
    const __m256i eight = _mm256_set1_epi8(8);
    return _mm256_sub_epi8(_mm256_xor_si256(found, eight), eight);
  }
  static Bytes nibbles(const uint8_t* p) { return halves(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static Bytes codes4(const uint8_t* p) { return signed4(nibbles(p)); }
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
  static __m128i places(unsigned mask) {
    const __m128i before = _mm_load_si128(reinterpret_cast<const __m128i*>(kPlaces.before[mask & 255]));
    return _mm_add_epi8(before, _mm_load_si128(reinterpret_cast<const __m128i*>(kPlaces.behind[mask >> 8])));
  }
  // The codes of the 32 columns of a mask, zero where it has none.
  static Bytes spread8(const uint8_t* low, uint32_t mask) {
#if defined(__AVX512VBMI2__)
    return _mm256_maskz_expand_epi8(mask, load(low));
#else
    const auto half = [](const uint8_t* p, unsigned bits) {
      return _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), places(bits));
    };
    const uint8_t* high = low + __builtin_popcount(mask & 0xffff);
    return _mm256_set_m128i(half(high, mask >> 16), half(low, mask & 0xffff));
#endif
  }
  static Bytes spread4(const uint8_t* at, uint32_t mask) {
#if defined(__AVX512VBMI2__)
    return _mm256_maskz_expand_epi8(mask, codes4(at));
#else
    const auto eight = [](const uint8_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); };
    const uint8_t* high = at + (__builtin_popcount(mask & 0xffff) + 1) / 2;
    const Bytes codes = signed4(halves(_mm_unpacklo_epi64(eight(at), eight(high))));
    return _mm256_shuffle_epi8(codes, _mm256_set_m128i(places(mask >> 16), places(mask & 0xffff)));
#endif
  }
  static int32_t total(Sums sum) {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
  }
  static Bytes columns(const int8_t* x) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)); }
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
  static int8x16_t signed4(int8x16_t found) {
    const int8x16_t eight = vdupq_n_s8(8);
    return vsubq_s8(veorq_s8(found, eight), eight);
  }
  static Bytes codes4(const uint8_t* p) {
    const Bytes found = nibbles(p);
    return {{signed4(found.val[0]), signed4(found.val[1])}};
  }
  static uint8x16_t places(unsigned mask) {
    return vaddq_u8(vld1q_u8(kPlaces.before[mask & 255]), vld1q_u8(kPlaces.behind[mask >> 8]));
  }
  static Bytes spread8(const uint8_t* low, uint32_t mask) {
    const auto half = [](const uint8_t* p, unsigned bits) {
      return vqtbl1q_s8(vreinterpretq_s8_u8(vld1q_u8(p)), places(bits));
    };
    const uint8_t* high = low + __builtin_popcount(mask & 0xffff);
    return {{half(low, mask & 0xffff), half(high, mask >> 16)}};
  }
  static Bytes spread4(const uint8_t* low, uint32_t mask) {
    const auto half = [](const uint8_t* p, unsigned bits) {
      const uint8x8_t eight = vld1_u8(p);
      const uint8x8x2_t both = vzip_u8(vand_u8(eight, vdup_n_u8(15)), vshr_n_u8(eight, 4));
      return vqtbl1q_s8(signed4(vreinterpretq_s8_u8(vcombine_u8(both.val[0], both.val[1]))), places(bits));
    };
    const uint8_t* high = low + (__builtin_popcount(mask & 0xffff) + 1) / 2;
    return {{half(low, mask & 0xffff), half(high, mask >> 16)}};
  }
  static int32_t total(Sums sum) { return vaddvq_s32(sum); }
  static Bytes columns(const int8_t* x) { return {{vld1q_s8(x), vld1q_s8(x + 16)}}; }
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
  static Bytes spread8(const uint8_t* at, uint32_t mask) {
    Bytes b;
    for (int i = 0; i < 32; ++i) b.at[i] = mask >> i & 1 ? static_cast<int8_t>(*at++) : int8_t{0};
    return b;
  }
  static Bytes spread4(const uint8_t* at, uint32_t mask) {
    Bytes b;
    for (int half = 0; half < 2; ++half) {
      int n = 0;
      for (int i = 16 * half; i < 16 * half + 16; ++i) {
        const bool here = mask >> i & 1;
        b.at[i] = here ? static_cast<int8_t>(((at[n / 2] >> (n % 2 * 4) & 15) ^ 8) - 8) : int8_t{0};
        n += here;
      }
      at += (n + 1) / 2;
    }
    return b;
  }
  static int32_t total(Sums sum) { return sum.at[0] + sum.at[1] + sum.at[2] + sum.at[3]; }
  static Bytes columns(const int8_t* x) { return load(reinterpret_cast<const uint8_t*>(x)); }
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
#if defined(__AVX512VNNI__)
        __builtin_prefetch(at + kAheadBytes);
#endif
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

#if defined(__AVX512VBMI2__)
// Codes of 4 bits, two a byte, to one a byte.
inline __m512i unpack64(const uint8_t* p) {
  const __m512i wide = _mm512_cvtepu8_epi16(Lanes::load(p)), eight = _mm512_set1_epi8(8);
  const __m512i found = _mm512_and_si512(_mm512_or_si512(wide, _mm512_slli_epi16(wide, 4)), _mm512_set1_epi8(15));
  return _mm512_sub_epi8(_mm512_xor_si512(found, eight), eight);
}

// Adds the products of two steps of a row, whose codes are a chunk: one instruction spreads those of 64 columns. The lower half of
// the sums is of the first step. Returns the bytes of the codes.
template <int T, bool Four>
inline int64_t add_two_steps(__m512i (&sum)[T], const uint8_t* codes, uint64_t mask, const int8_t* x, int64_t x_stride) {
  const __m512i packed = Four ? unpack64(codes) : _mm512_loadu_si512(codes);
  const __m512i spread = _mm512_maskz_expand_epi8(mask, packed), size = _mm512_abs_epi8(spread);
  const __mmask64 negative = _mm512_movepi8_mask(spread);
  for (int t = 0; t < T; ++t) {
    const __m512i xs = _mm512_loadu_si512(x + t * x_stride);
    sum[t] = _mm512_dpbusd_epi32(sum[t], size, _mm512_mask_sub_epi8(xs, negative, _mm512_setzero_si512(), xs));
  }
  const int64_t n = __builtin_popcountll(mask);
  return Four ? (n + 1) / 2 : n;
}

// As many whole pairs of steps as the row has; `at` is left behind their codes. Sums stay integers where one scale holds for all of
// the row, else those of each pair are scaled lane by lane: adding across lanes for every scale took twice the time.
template <int T, bool Four>
inline int64_t pairs_of_tokens(const GroupRow& g, const uint8_t*& at, const int8_t* x, int64_t x_stride, float* sums) {
  __m512 total[T];
  for (int t = 0; t < T; ++t) total[t] = _mm512_setzero_ps();
  const __m512i halves = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi32(1), 1);
  const auto scale_of = [&g](int64_t step) {
    return g.scales[g.one_scale ? 0 : static_cast<uint32_t>(step) / static_cast<uint32_t>(g.steps_a_block)];
  };
  int64_t step = 0;
  while (step + 2 <= g.steps) {
    const int64_t most = g.one_scale && g.steps_a_block > 2 ? g.steps_a_block / 2 * 2 : 2;
    const int64_t end = step + most < g.steps ? step + most : g.steps;
    const __m128i two = _mm_insert_epi16(_mm_cvtsi32_si128(scale_of(step)), scale_of(step + 1), 1);
    const __m512 scale = _mm512_permutexvar_ps(halves, _mm512_castps128_ps512(_mm_cvtph_ps(two)));
    __m512i sum[T];
    for (int t = 0; t < T; ++t) sum[t] = _mm512_setzero_si512();
    for (; step + 2 <= end; step += 2) {
      uint64_t mask;
      memcpy(&mask, g.masks + 4 * step, 8);
      __builtin_prefetch(at + kAheadBytes);
      __builtin_prefetch(g.masks + 4 * step + kAheadBytes);
      at += add_two_steps<T, Four>(sum, at, mask, x + kPair * step, x_stride);
    }
    for (int t = 0; t < T; ++t) total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t]), scale, total[t]);
  }
  for (int t = 0; t < T; ++t) sums[t] = _mm512_reduce_add_ps(total[t]);
  return step;
}
#endif

// Not inlined: four of them in one function have no registers left (GCC 12).
template <int T, bool Four>
[[gnu::noinline]] void row_of_tokens(const GroupRow& g, const int8_t* x, int64_t x_stride, float* sums) {
  const uint8_t* at = g.codes;
  for (int t = 0; t < T; ++t) sums[t] = 0;
  int64_t step = 0;
#if defined(__AVX512VBMI2__)
  step = pairs_of_tokens<T, Four>(g, at, x, x_stride, sums);
#endif
  for (int64_t block = step / g.steps_a_block; step < g.steps; ++block) {
    typename Lanes::Sums sum[T];
    for (int t = 0; t < T; ++t) sum[t] = Lanes::none();
    const int64_t end = step + g.steps_a_block < g.steps ? step + g.steps_a_block : g.steps;
    for (; step < end; ++step) {
      uint32_t mask;
      memcpy(&mask, g.masks + 4 * step, 4);
      mask = kept(mask);
      const typename Lanes::Bytes codes = Four ? Lanes::spread4(at, mask) : Lanes::spread8(at, mask);
      const int64_t low = __builtin_popcount(mask & 0xffff), all = __builtin_popcount(mask);
      at += !Four ? all : kChunk > 1 ? (all + 1) / 2 : (low + 1) / 2 + (all - low + 1) / 2;
      const typename Lanes::Bytes size = Lanes::size_of(codes);
      for (int t = 0; t < T; ++t) sum[t] = Lanes::dot(sum[t], codes, size, Lanes::columns(x + kPair * step + t * x_stride));
    }
    const float scale = f16_to_float(g.scales[g.one_scale ? 0 : block]);
    for (int t = 0; t < T; ++t) sums[t] += static_cast<float>(Lanes::total(sum[t])) * scale;
  }
}

template <bool Four> void row_any(const GroupRow& g, const int8_t* x, int64_t x_stride, int64_t tokens, float* sums) {
  for (int64_t t = 0; t < tokens; t += kMostTokens) {
    const int8_t* xs = x + t * x_stride;
    switch (tokens - t) {
      case 1: row_of_tokens<1, Four>(g, xs, x_stride, sums + t); break;
      case 2: row_of_tokens<2, Four>(g, xs, x_stride, sums + t); break;
      case 3: row_of_tokens<3, Four>(g, xs, x_stride, sums + t); break;
      default: row_of_tokens<4, Four>(g, xs, x_stride, sums + t); break;
    }
  }
}

void row_i8(const GroupRow& g, const int8_t* x, int64_t x_stride, int64_t tokens, float* sums) {
  row_any<false>(g, x, x_stride, tokens, sums);
}

void row_i4(const GroupRow& g, const int8_t* x, int64_t x_stride, int64_t tokens, float* sums) {
  row_any<true>(g, x, x_stride, tokens, sums);
}

}  // namespace
}  // namespace zs
