// The inner loops, written once on the vectors of runtime/vecmath.inl and compiled once per instruction set.
//
// `cell` is a row of Y in registers: one vector of lanes per accumulator, one broadcast value per entry. It is bound by loads
// (one per multiply-add and one per value), so the broadcasts are made four at a time from one load (Quad).
// Rows come sorted by their number of entries, so the loop's length seldom changes and the branch is predicted.
// Measured, Zen 3, one core, 2048 x 2048, 128 lanes, GFLOP/s of 102: 74/72/63/60/51/40 at 50/60/80/90/95/98 %.
// Tried: two rows sharing the loads of their common columns, 68 at 50 % (three short loops, each mispredicted); rows
// unrolled without the quads, 69; the next block of X prefetched to L2, -3 to +2 % from 50 to 98 %; 96 lanes, 73 at best and worse from 80 %; 32 lanes, 61.
// `cell_narrow` is the same for few lanes, where a row is one or two vectors and its beginning and end cost most: blocks of 512
// columns make rows long. 8 lanes, 80 %, same machine: 56 against 42 GFLOP/s with 128 columns and bytes. Tried: four rows
// interleaved, 40; values broadcast one by one from memory, 38; four sets of accumulators, 50.
#include <string.h>

#include "../../runtime/vecmath.inl"
#include "../../runtime/numeric.h"
#include "spmm.h"

namespace zs {
namespace {

#if defined(__AVX2__)
struct Ymm {
  typedef __m256 V;
  typedef Ymm Half;  // of no use: rows are whole vectors
  static constexpr int lanes = 8;
  static V zero() { return _mm256_setzero_ps(); }
  static V load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, V v) { _mm256_storeu_ps(p, v); }
  static V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static V add(V a, V b) { return _mm256_add_ps(a, b); }
  static V set(float v) { return _mm256_set1_ps(v); }
  typedef __m256 Quad;
  static Quad quad(const float* p) { return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p)); }
  template <int S> static V get(Quad q) { return _mm256_permute_ps(q, S * 0x55); }
  static V kept(V v) {
    asm("" : "+x"(v));
    return v;
  }
};
#if defined(__AVX512F__)
struct Wide {
  typedef __m512 V;
  typedef Ymm Half;
  static constexpr int lanes = 16;
  static V zero() { return _mm512_setzero_ps(); }
  static V load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V set(float v) { return _mm512_set1_ps(v); }
  typedef __m512 Quad;
  static Quad quad(const float* p) { return _mm512_broadcast_f32x4(_mm_loadu_ps(p)); }
  template <int S> static V get(Quad q) { return _mm512_permute_ps(q, S * 0x55); }  // 4 % faster than broadcasts from memory
  static __m256 lower(V v) { return _mm512_castps512_ps256(v); }
  static V kept(V v) {
    asm("" : "+v"(v));
    return v;
  }
};
#else
typedef Ymm Wide;
#endif
#elif defined(__aarch64__)
struct Wide {
  typedef float32x4_t V;
  typedef Wide Half;  // of no use: rows are whole vectors
  static constexpr int lanes = 4;
  static V zero() { return vdupq_n_f32(0); }
  static V load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, V v) { vst1q_f32(p, v); }
  static V fma(V a, V b, V c) { return vfmaq_f32(c, a, b); }
  static V add(V a, V b) { return vaddq_f32(a, b); }
  static V set(float v) { return vdupq_n_f32(v); }
  typedef float32x4_t Quad;
  static Quad quad(const float* p) { return vld1q_f32(p); }
  template <int S> static V get(Quad q) { return vdupq_laneq_f32(q, S); }  // becomes the by-lane form of the multiply-add
};
#endif

// Weights that are read once are asked for so far ahead, a line a step: the processor's own prefetching does not keep up with a
// loop that computes between two lines. From memory, two cores of Emerald Rapids, 1 KiB ahead and without columns: 50 % zeros 430 us, so 350; 80 % 224 and
// 172; 8 KiB is the same, into L2 only a third slower (2048 x 2048, float32; 2026-11). Of few lanes as well (4096 x 4096, from memory, 8, 16 and
// 32 lanes: csr 0.75 to 0.9 of the time, dense 0.7 to 0.8; from L3 0 to 5 % longer, with indices asked for too 4 to 9 %; at 128 lanes level).
// Always inlined: GCC takes a function that does nothing but ask for one without effect.
constexpr int64_t kAheadBytes = 4096;
static inline __attribute__((always_inline)) void ask_ahead(const void* from, int64_t bytes) {
  __builtin_prefetch(static_cast<const char*>(from) + bytes + kAheadBytes);
}
template <ValueType Type>
constexpr int64_t kBytesOf = Type == ValueType::f32                              ? 4
                             : Type == ValueType::bf16 || Type == ValueType::f16 ? 2
                                                                                 : 1;

// Whether a row of one vector takes its values from memory, each broadcast by the multiply-add, and x into a register first: with
// AVX-512 permutations and multiply-adds have two ports between them, and two loads a cycle are free. (8 lanes 15 to 20 %
// faster on Emerald Rapids, 16 lanes 11 %; pairs of entries in one vector of 16 lanes no faster than that.)
#if defined(__AVX512F__)
constexpr bool kFromMemory = true;
#else
constexpr bool kFromMemory = false;
#endif

// How many sets of accumulators hide the latency of a multiply-add (4 cycles, two a cycle) when a row needs few vectors.
constexpr int sets_for(int vectors) { return vectors == 1 ? (kFromMemory ? 4 : 8) : vectors == 2 ? 4 : vectors <= 4 ? 2 : 1; }

// Column indices of a cell: a byte, or 16 bits that hold the column times eight, so that the address of eight lanes of X is
// one scaled index (cell_narrow). Four are loaded at once; offsets count floats.
struct Bytes {
  typedef uint32_t Four;
  static constexpr int size = 1;
  template <int S> static int64_t offset(Four four, int64_t step) {
    return static_cast<int64_t>((four >> (8 * S)) & 255) * step;
  }
};
struct Words {
  typedef uint64_t Four;
  static constexpr int size = 2;
  template <int S> static int64_t offset(Four four, int64_t step) {
#if defined(__BMI__) && !defined(__AVX512F__)  // one a cycle on Intel's
    const uint64_t word = S == 0 ? four & 0xffff : S == 3 ? four >> 48 : _bextr_u64(four, 16 * S, 16);
#else
    const uint64_t word = (four >> (16 * S)) & 0xffff;
#endif
    return static_cast<int64_t>(word) * (step / 8);
  }
};

template <class I> inline typename I::Four read_indices(const uint8_t* at, int64_t count) {
  typename I::Four four = 0;
  memcpy(&four, at, count * I::size);
  return four;
}

// Rows of NV whole vectors and, where Half says so, half a one. Stride is the row length of x where it is known at compile time, or 0.
template <class T, class I, int NV, int Stride, bool Half = false>
void cell_rows(const CellView& c, const float* x, int64_t stride, float* y, int64_t ldy, bool first) {
  typedef typename T::V V;
  typedef typename T::Half H;
  constexpr int U = sets_for(NV + Half), kWhole = NV * T::lanes;
  constexpr bool kValuesFromMemory = kFromMemory && NV + Half == 1;
  const int64_t step = Stride ? Stride : stride;
  const uint8_t* index = c.indices;
  const float* value = c.values;
  for (int64_t i = 0; i < c.rows; ++i) {
    const int64_t n = c.counts[i];
    if (n == 0 && !first) return;  // and so are the rest
    float* out = y + c.row_ids[i] * ldy;
    V acc[U][NV];
    for (int j = 0; j < NV; ++j) acc[0][j] = first ? T::zero() : T::load(out + j * T::lanes);
    for (int u = 1; u < U; ++u) {
      for (int j = 0; j < NV; ++j) acc[u][j] = T::zero();
    }
    [[maybe_unused]] typename H::V half[U];
    if constexpr (Half) {
      half[0] = first ? H::zero() : H::load(out + kWhole);
      for (int u = 1; u < U; ++u) half[u] = H::zero();
    }
    int64_t t = 0;
#define ZS_ADD(V_, ROW, SET)                                                                                   \
  for (int j = 0; j < NV; ++j) acc[(SET) % U][j] = T::fma(V_, T::load(ROW + j * T::lanes), acc[(SET) % U][j]); \
  if constexpr (Half) half[(SET) % U] = H::fma(T::lower(V_), H::load(ROW + kWhole), half[(SET) % U]);
#define ZS_STEP(AT, S, SET)                                                       \
  {                                                                               \
    const float* row = x + I::template offset<S>(four, step);                     \
    if constexpr (kValuesFromMemory) {                                            \
      const V xs = T::kept(T::load(row));                                         \
      acc[(SET) % U][0] = T::fma(T::set(value[(AT) + S]), xs, acc[(SET) % U][0]); \
    } else {                                                                      \
      const V v = T::template get<S>(quad);                                       \
      ZS_ADD(v, row, SET)                                                         \
    }                                                                             \
  }
#define ZS_FOUR(AT, SET)                                                                        \
  {                                                                                             \
    [[maybe_unused]] typename T::Quad quad;                                                     \
    if constexpr (!kValuesFromMemory) quad = T::quad(value + (AT));                             \
    const typename I::Four four = read_indices<I>(index + (AT) * I::size, 4);                   \
    ZS_STEP(AT, 0, SET) ZS_STEP(AT, 1, SET + 1) ZS_STEP(AT, 2, SET + 2) ZS_STEP(AT, 3, SET + 3) \
  }
    if constexpr (NV + Half == 1) {
      for (; t + 16 <= n; t += 16) {
        ask_ahead(value + t, 0);
        ZS_FOUR(t, 0)
        ZS_FOUR(t + 4, 4)
        ZS_FOUR(t + 8, 0)
        ZS_FOUR(t + 12, 4)
      }
    }
    for (; t + 4 <= n; t += 4) {
      if (NV + Half == 2) ask_ahead(value + t, 0);
      ZS_FOUR(t, 0)
    }
#undef ZS_FOUR
#undef ZS_STEP
    for (; t < n; ++t) {
      const V v = T::set(value[t]);
      const float* row = x + I::template offset<0>(read_indices<I>(index + t * I::size, 1), step);
      ZS_ADD(v, row, 0)
    }
#undef ZS_ADD
    index += n * I::size;
    value += n;
    for (int u = 1; u < U; ++u) {
      for (int j = 0; j < NV; ++j) acc[0][j] = T::add(acc[0][j], acc[u][j]);
      if constexpr (Half) half[0] = H::add(half[0], half[u]);
    }
    for (int j = 0; j < NV; ++j) T::store(out + j * T::lanes, acc[0][j]);
    if constexpr (Half) H::store(out + kWhole, half[0]);
  }
}

template <class I> void cell_any(const CellView& c, const float* x, int64_t width, float* y, int64_t ldy, bool first) {
  constexpr int L = Wide::lanes;
#define ZS_WIDTH(N) \
  case N: return cell_rows<Wide, I, (N) / L, N>(c, x, N, y, ldy, first);
  switch (width) {
    ZS_WIDTH(64)
    ZS_WIDTH(48)
    ZS_WIDTH(32)
    ZS_WIDTH(16)
#if !defined(__AVX512F__)
    ZS_WIDTH(56)
    ZS_WIDTH(40)
    ZS_WIDTH(24)
    ZS_WIDTH(8)
#else
    // An odd number of eights: sixteens and one half vector (in one pass: 24 to 56 lanes take 0.6 to 0.7 of two).
    case 56: return cell_rows<Wide, I, 3, 56, true>(c, x, 56, y, ldy, first);
    case 40: return cell_rows<Wide, I, 2, 40, true>(c, x, 40, y, ldy, first);
    case 24: return cell_rows<Wide, I, 1, 24, true>(c, x, 24, y, ldy, first);
    case 8: return cell_rows<Ymm, I, 1, 8>(c, x, 8, y, ldy, first);
#endif
  }
#undef ZS_WIDTH
}

void cell(const CellView& c, const float* x, int64_t width, float* y, int64_t ldy, bool first) {
  cell_any<Bytes>(c, x, width, y, ldy, first);
}

void cell_narrow(const CellView& c, const float* x, int64_t width, float* y, int64_t ldy, bool first) {
  cell_any<Words>(c, x, width, y, ldy, first);
}

template <class I> void cell_one_any(const CellView& c, const float* x, float* y) {
  const uint8_t* index = c.indices;
  const float* value = c.values;
  const auto at = [&](int64_t t) {  // a step of eight takes the eight out of Words
    const int64_t offset = I::template offset<0>(read_indices<I>(index + t * I::size, 1), 8);
    return x[offset / 8];
  };
  for (int64_t i = 0; i < c.rows; ++i) {
    const int64_t n = c.counts[i];
    if (n == 0) return;
    float a = 0, b = 0, d = 0, e = 0;
    int64_t t = 0;
    for (; t + 4 <= n; t += 4) {
      a += value[t] * at(t);
      b += value[t + 1] * at(t + 1);
      d += value[t + 2] * at(t + 2);
      e += value[t + 3] * at(t + 3);
    }
    for (; t < n; ++t) a += value[t] * at(t);
    y[c.row_ids[i]] += (a + b) + (d + e);
    index += n * I::size;
    value += n;
  }
}

void cell_one(const CellView& c, const float* x, float* y) { cell_one_any<Bytes>(c, x, y); }
void cell_one_narrow(const CellView& c, const float* x, float* y) { cell_one_any<Words>(c, x, y); }

// ---- Values of 16 bits, and codes -------------------------------------------------------------------------------------

#if defined(__AVX2__)
template <ValueType Type> inline __m256 load8(const void* values, int64_t at) {
  if (Type == ValueType::f32) return _mm256_loadu_ps(static_cast<const float*>(values) + at);
  if (Type == ValueType::i8) {
    const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(static_cast<const int8_t*>(values) + at));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
  }
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const uint16_t*>(values) + at));
  if (Type == ValueType::f16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
#endif

#if defined(__AVX512F__)
template <ValueType Type> inline __m512 load16(const void* values, int64_t at) {
  if (Type == ValueType::f32) return _mm512_loadu_ps(static_cast<const float*>(values) + at);
  if (Type == ValueType::i8) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const int8_t*>(values) + at));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
  }
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const uint16_t*>(values) + at));
  if (Type == ValueType::f16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
#endif

// Codes of 4 bits, two a byte, to one a byte. (x ^ 8) - 8 is the sign of four bits carried on.
void unpack_nibbles(const uint8_t* codes, int64_t count, int8_t* out) {
  int64_t i = 0;
#if defined(__AVX2__)
  const __m128i low = _mm_set1_epi8(15), eight = _mm_set1_epi8(8);
  const auto put = [&](__m128i v, int8_t* at) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm_sub_epi8(_mm_xor_si128(v, eight), eight));
  };
  for (; i < count; i += 32) {
    const __m128i pairs = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i / 2));
    const __m128i even = _mm_and_si128(pairs, low), odd = _mm_and_si128(_mm_srli_epi16(pairs, 4), low);
    put(_mm_unpacklo_epi8(even, odd), out + i);
    put(_mm_unpackhi_epi8(even, odd), out + i + 16);
  }
#elif defined(__aarch64__)
  for (; i < count; i += 32) {
    const int8x16_t pairs = vreinterpretq_s8_u8(vld1q_u8(codes + i / 2));
    const int8x16_t even = vshrq_n_s8(vshlq_n_s8(pairs, 4), 4), odd = vshrq_n_s8(pairs, 4);
    vst1q_s8(out + i, vzip1q_s8(even, odd));
    vst1q_s8(out + i + 16, vzip2q_s8(even, odd));
  }
#endif
}

// The scales and zero points of a row's groups in a cell, eight at most.
struct RowScales {
  float scale[8], zero[8];

  RowScales(const CodesView& c, int64_t row) {
    const uint16_t* from = c.scales + row * c.stride;
#if defined(__AVX2__)
    _mm256_storeu_ps(scale, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
    _mm256_storeu_ps(zero, c.zeros ? load8<ValueType::i8>(c.zeros + row * c.stride, 0) : _mm256_setzero_ps());
#else
    for (int64_t g = 0; g < c.groups; ++g) {
      scale[g] = f16_to_float(from[g]);
      zero[g] = c.zeros ? c.zeros[row * c.stride + g] : 0;
    }
#endif
  }
};

void widen(const void* values, ValueType type, int64_t n, float* out) {
  const uint16_t* half = static_cast<const uint16_t*>(values);
  int64_t i = 0;
#if defined(__AVX2__)
  if (type == ValueType::bf16) {
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, load8<ValueType::bf16>(values, i));
  } else {
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, load8<ValueType::f16>(values, i));
  }
#elif defined(__aarch64__)
  if (type == ValueType::bf16) {
    for (; i + 4 <= n; i += 4) vst1q_f32(out + i, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(half + i), 16)));
  } else {
    for (; i + 4 <= n; i += 4) vst1q_f32(out + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(half + i))));
  }
#endif
  for (; i < n; ++i) out[i] = type == ValueType::bf16 ? bf16_to_float(half[i]) : f16_to_float(half[i]);
}

// ---- Compressed columns ---------------------------------------------------------------------------------------------------

// For every byte of a mask the positions of its set bits, packed to the front.
struct BitPositions {
  uint64_t at[256];
  constexpr BitPositions() : at() {
    for (int mask = 0; mask < 256; ++mask) {
      int next = 0;
      for (int bit = 0; bit < 8; ++bit) {
        if (mask >> bit & 1) at[mask] |= static_cast<uint64_t>(bit) << (8 * next++);
      }
    }
  }
};
constexpr BitPositions kPositions;
constexpr uint64_t kEveryByte = 0x0101010101010101ull;

uint8_t* expand_bits(const uint8_t* mask, int64_t bytes, uint8_t* out) {
  uint64_t base = 0;
  const auto put = [&](unsigned byte, uint8_t* at) {
    const uint64_t columns = kPositions.at[byte] + base;
    memcpy(at, &columns, 8);
    base += 8 * kEveryByte;
  };
  int64_t b = 0;
  for (; b + 4 <= bytes; b += 4) {  // four counts at once: one after the other their latency would add up
    uint32_t four;
    memcpy(&four, mask + b, 4);
    put(four & 255, out);
    put(four >> 8 & 255, out + __builtin_popcount(four & 0xff));
    put(four >> 16 & 255, out + __builtin_popcount(four & 0xffff));
    put(four >> 24, out + __builtin_popcount(four & 0xffffff));
    out += __builtin_popcount(four);
  }
  for (; b < bytes; ++b) {
    put(mask[b], out);
    out += __builtin_popcount(mask[b]);
  }
  return out;
}

// Columns of the groups, one byte an entry (base[i] = group of entry i * M), and positions of four bits on top.
uint8_t* expand_nibbles(const uint8_t* codes, int64_t count, const uint8_t* base, uint8_t* out) {
  for (int64_t i = 0; i < count; i += 16, codes += 8) {
    uint64_t pair, low, high;
    memcpy(&pair, codes, 8);
    memcpy(&low, base + i, 8);
    memcpy(&high, base + i + 8, 8);
    low += pair & 0x0f0f0f0f0f0f0f0full;
    high += (pair >> 4) & 0x0f0f0f0f0f0f0f0full;
    memcpy(out + i, &low, 8);
    memcpy(out + i + 8, &high, 8);
  }
  return out + count;
}

// ---- One lane from a bitmask -------------------------------------------------------------------------------------------

// Eight partial sums a row, added up once at the end of the row block (sum_lanes): adding across lanes in every cell cost a
// quarter of the time. Measured, Zen 3, 50 %, in cache: 0.36 cycles a column in 16-bit values, 0.43 in float32.
// Tried: the 512-bit expand instruction, 16 columns a step: 1.4 times slower on Sapphire Rapids than this, 16 threads.
#if defined(__AVX2__)
// For every mask byte, which of the packed values goes to each of the eight lanes; -1 where none does.
struct Spread {
  alignas(64) uint64_t at[256];
  constexpr Spread() : at() {
    for (int mask = 0; mask < 256; ++mask) {
      uint64_t lanes = 0;
      int next = 0;
      for (int lane = 0; lane < 8; ++lane) {
        lanes |= static_cast<uint64_t>(mask >> lane & 1 ? next++ : 255) << (8 * lane);
      }
      at[mask] = lanes;
    }
  }
};
constexpr Spread kSpread;

template <ValueType Type>
void bits_rows(int64_t rows, const uint8_t* row_ids, const uint8_t* masks, int64_t mask_bytes, const void* values,
               const CodesView& codes, const float* x, float* sums) {
  int64_t at = 0;
  for (int64_t i = 0; i < rows; ++i, masks += mask_bytes) {
    float* sum = sums + kSumLanes * row_ids[i];
    __m256 acc[2] = {_mm256_loadu_ps(sum), _mm256_setzero_ps()};
    const auto numbers = [&](int64_t from, [[maybe_unused]] __m256 scale, [[maybe_unused]] __m256 zero) {
      const __m256 v = load8<Type>(values, from);
      return is_code(Type) ? _mm256_mul_ps(_mm256_sub_ps(v, zero), scale) : v;
    };
// Lanes without a value are cleared in the values and in x: what lies there may be infinite.
#define ZS_BYTE(B, S, MASK, AT)                                                                                      \
  {                                                                                                                  \
    const __m256i from = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&kSpread.at[MASK]))); \
    const __m256 none = _mm256_castsi256_ps(_mm256_srai_epi32(from, 31));                                            \
    const __m256 v = _mm256_andnot_ps(none, _mm256_permutevar8x32_ps(numbers(AT, scale, zero), from));               \
    acc[S] = _mm256_fmadd_ps(v, _mm256_andnot_ps(none, _mm256_loadu_ps(x + 8 * (B))), acc[S]);                       \
  }
    const auto walk = [&](const RowScales* row) {
      __m256 scale = _mm256_setzero_ps(), zero = scale;
      const auto enter = [&](int64_t byte) {  // the four bytes from here on have one scale
        if (!row) return;
        const int64_t group = (8 * byte + codes.before) >> codes.shift;
        scale = _mm256_broadcast_ss(row->scale + group);
        zero = _mm256_broadcast_ss(row->zero + group);
      };
      int64_t b = 0;
      for (; b + 4 <= mask_bytes; b += 4) {  // four counts at once: one after the other their latency would add up
        uint32_t four;
        memcpy(&four, masks + b, 4);
        enter(b);
        ZS_BYTE(b, 0, four & 255, at)
        ZS_BYTE(b + 1, 1, four >> 8 & 255, at + __builtin_popcount(four & 0xff))
        ZS_BYTE(b + 2, 0, four >> 16 & 255, at + __builtin_popcount(four & 0xffff))
        ZS_BYTE(b + 3, 1, four >> 24, at + __builtin_popcount(four & 0xffffff))
        at += __builtin_popcount(four);
      }
      if (b < mask_bytes) enter(b);
      for (; b < mask_bytes; ++b) {
        ZS_BYTE(b, 0, masks[b], at)
        at += __builtin_popcount(masks[b]);
      }
    };
#undef ZS_BYTE
    if constexpr (is_code(Type)) {
      const RowScales row(codes, row_ids[i]);
      walk(&row);
    } else {
      walk(nullptr);
    }
    _mm256_storeu_ps(sum, _mm256_add_ps(acc[0], acc[1]));
  }
}
#else
template <ValueType Type>
void bits_rows(int64_t rows, const uint8_t* row_ids, const uint8_t* masks, int64_t mask_bytes, const void* values,
               const CodesView& codes, const float* x, float* sums) {
  int64_t at = 0;
  for (int64_t i = 0; i < rows; ++i, masks += mask_bytes) {
    float sum = 0;
    const auto walk = [&](auto&& number) {
      for (int64_t b = 0; b < mask_bytes; ++b) {
        for (unsigned bits = masks[b]; bits; bits &= bits - 1, ++at) sum += number(b) * x[8 * b + __builtin_ctz(bits)];
      }
    };
    if constexpr (is_code(Type)) {
      const RowScales row(codes, row_ids[i]);
      walk([&](int64_t byte) {
        const int64_t group = (8 * byte + codes.before) >> codes.shift;
        return (static_cast<float>(static_cast<const int8_t*>(values)[at]) - row.zero[group]) * row.scale[group];
      });
    } else {
      walk([&](int64_t) {
        return Type == ValueType::f32    ? static_cast<const float*>(values)[at]
               : Type == ValueType::bf16 ? bf16_to_float(static_cast<const uint16_t*>(values)[at])
                                         : f16_to_float(static_cast<const uint16_t*>(values)[at]);
      });
    }
    sums[kSumLanes * row_ids[i]] += sum;
  }
}
#endif

void sum_lanes(const float* sums, int64_t rows, float* y) {
  for (int64_t r = 0; r < rows; ++r, sums += kSumLanes) {
    y[r] = ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
  }
}

void bits_one(int64_t rows, const uint8_t* row_ids, const uint8_t* masks, int64_t mask_bytes, const void* values,
              ValueType type, const CodesView* codes, const float* x, float* sums) {
  switch (type) {
    case ValueType::f32: return bits_rows<ValueType::f32>(rows, row_ids, masks, mask_bytes, values, *codes, x, sums);
    case ValueType::bf16: return bits_rows<ValueType::bf16>(rows, row_ids, masks, mask_bytes, values, *codes, x, sums);
    case ValueType::f16: return bits_rows<ValueType::f16>(rows, row_ids, masks, mask_bytes, values, *codes, x, sums);
    case ValueType::i8: return bits_rows<ValueType::i8>(rows, row_ids, masks, mask_bytes, values, *codes, x, sums);
    case ValueType::i4: return;  // unpacked before
  }
}

// ---- Four rows at a time: dense and block-sparse -----------------------------------------------------------------------

// NV whole vectors of lanes and, where HasHalf says so, half a one.
template <class T, int NV, bool Indexed, bool HasHalf = false>
void quad_tile(const float* a, const uint16_t* indices, int64_t n, const float* x, int64_t stride, float* y, int64_t ldy,
               int64_t valid, bool first) {
  typedef typename T::V V;
  typedef typename T::Half H;
  constexpr int kWhole = NV * T::lanes;
  V acc[4][NV];
  [[maybe_unused]] typename H::V half[4];
  for (int r = 0; r < 4; ++r) {
    const bool fresh = first || r >= valid;
    for (int j = 0; j < NV; ++j) acc[r][j] = fresh ? T::zero() : T::load(y + r * ldy + j * T::lanes);
    if constexpr (HasHalf) half[r] = fresh ? H::zero() : H::load(y + r * ldy + kWhole);
  }
  for (int64_t k = 0; k < n; ++k) {
    const float* row = x + (Indexed ? static_cast<int64_t>(indices[k]) : k) * stride;
    if (k % 4 == 0) ask_ahead(a + 4 * k, 0);
    if (Indexed) {  // the columns of a block row are in no order that the processor would guess
      const float* soon = x + static_cast<int64_t>(indices[k + kAhead]) * stride;
      for (int line = 0; line < kWhole; line += 16) __builtin_prefetch(soon + line);
    }
    V xs[NV];
    [[maybe_unused]] typename H::V half_x;
    for (int j = 0; j < NV; ++j) xs[j] = T::load(row + j * T::lanes);
    if constexpr (HasHalf) half_x = H::load(row + kWhole);
    for (int r = 0; r < 4; ++r) {
      const V v = T::set(a[4 * k + r]);
      for (int j = 0; j < NV; ++j) acc[r][j] = T::fma(v, xs[j], acc[r][j]);
      if constexpr (HasHalf) half[r] = H::fma(T::lower(v), half_x, half[r]);
    }
  }
  for (int r = 0; r < 4 && r < valid; ++r) {
    for (int j = 0; j < NV; ++j) T::store(y + r * ldy + j * T::lanes, acc[r][j]);
    if constexpr (HasHalf) H::store(y + r * ldy + kWhole, half[r]);
  }
}

#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr int kQuadVectors = 3;  // 12 accumulators, 3 vectors of x, 1 value: the 16 registers
#else
constexpr int kQuadVectors = 4;
#endif
constexpr int64_t kQuadLanes = kQuadVectors * Wide::lanes;

template <bool Indexed>
void quad_any(const float* a, const uint16_t* indices, int64_t n, const float* x, int64_t stride, int64_t lanes, float* y,
              int64_t ldy, int64_t valid, bool first) {
#define ZS_QUAD(NV, HALF) return quad_tile<Wide, NV, Indexed, HALF>(a, indices, n, x, stride, y, ldy, valid, first)
#if defined(__AVX512F__)
  switch (lanes / kLaneUnit) {
    case 8: ZS_QUAD(4, false);
    case 7: ZS_QUAD(3, true);
    case 6: ZS_QUAD(3, false);
    case 5: ZS_QUAD(2, true);
    case 4: ZS_QUAD(2, false);
    case 3: ZS_QUAD(1, true);
    case 2: ZS_QUAD(1, false);
    default: return quad_tile<Ymm, 1, Indexed>(a, indices, n, x, stride, y, ldy, valid, first);
  }
#else
  switch (lanes / Wide::lanes) {
    case 4: ZS_QUAD((kQuadVectors < 4 ? kQuadVectors : 4), false);
    case 3: ZS_QUAD(3, false);
    case 2: ZS_QUAD(2, false);
    default: ZS_QUAD(1, false);
  }
#endif
#undef ZS_QUAD
}

void quad(const float* a, const uint16_t* indices, int64_t n, const float* x, int64_t stride, int64_t lanes, float* y,
          int64_t ldy, int64_t valid, bool first) {
  if (indices) return quad_any<true>(a, indices, n, x, stride, lanes, y, ldy, valid, first);
  quad_any<false>(a, indices, n, x, stride, lanes, y, ldy, valid, first);
}

// Eight rows by one or two vectors, or one and a half: a quad alone would leave four or eight sums, which wait for each other.
template <class T, int NV = 1, bool HasHalf = false>
void two_quads_tile(const float* a, const float* b, int64_t n, const float* x, int64_t stride, float* y, int64_t ldy,
                    bool first) {
  typedef typename T::V V;
  typedef typename T::Half H;
  constexpr int kWhole = NV * T::lanes;
  V acc[8][NV];
  [[maybe_unused]] typename H::V half[8];
  for (int r = 0; r < 8; ++r) {
    for (int j = 0; j < NV; ++j) acc[r][j] = first ? T::zero() : T::load(y + r * ldy + j * T::lanes);
    if constexpr (HasHalf) half[r] = first ? H::zero() : H::load(y + r * ldy + kWhole);
  }
  for (int64_t k = 0; k < n; ++k) {
    if (k % 4 == 0) {
      ask_ahead(a + 4 * k, 0);
      ask_ahead(b + 4 * k, 0);
    }
    V xs[NV];
    [[maybe_unused]] typename H::V half_x;
    for (int j = 0; j < NV; ++j) xs[j] = T::load(x + k * stride + j * T::lanes);
    if constexpr (HasHalf) half_x = H::load(x + k * stride + kWhole);
    // Two loops: GCC 12 with UBSan reads a for r = 4 in one over `(r < 4 ? a : b)[...]`.
    for (int r = 0; r < 4; ++r) {
      const V v = T::set(a[4 * k + r]);
      for (int j = 0; j < NV; ++j) acc[r][j] = T::fma(v, xs[j], acc[r][j]);
      if constexpr (HasHalf) half[r] = H::fma(T::lower(v), half_x, half[r]);
    }
    for (int r = 0; r < 4; ++r) {
      const V v = T::set(b[4 * k + r]);
      for (int j = 0; j < NV; ++j) acc[4 + r][j] = T::fma(v, xs[j], acc[4 + r][j]);
      if constexpr (HasHalf) half[4 + r] = H::fma(T::lower(v), half_x, half[4 + r]);
    }
  }
  for (int r = 0; r < 8; ++r) {
    for (int j = 0; j < NV; ++j) T::store(y + r * ldy + j * T::lanes, acc[r][j]);
    if constexpr (HasHalf) H::store(y + r * ldy + kWhole, half[r]);
  }
}

#if defined(__AVX512F__)
constexpr int64_t kTwoQuadsLanes = 2 * Wide::lanes;
#else
constexpr int64_t kTwoQuadsLanes = Wide::lanes;
#endif

void two_quads(const float* a, const float* b, int64_t n, const float* x, int64_t stride, int64_t lanes, float* y, int64_t ldy,
               bool first) {
#if defined(__AVX512F__)
  if (lanes < Wide::lanes) return two_quads_tile<Ymm>(a, b, n, x, stride, y, ldy, first);
  if (lanes == 2 * Wide::lanes) return two_quads_tile<Wide, 2>(a, b, n, x, stride, y, ldy, first);
  if (lanes > Wide::lanes) return two_quads_tile<Wide, 1, true>(a, b, n, x, stride, y, ldy, first);
#endif
  (void)lanes;
  two_quads_tile<Wide>(a, b, n, x, stride, y, ldy, first);
}

template <ValueType Type> void quad_one_typed(const void* a, const uint16_t* indices, int64_t n, const float* x, float* sums) {
  int64_t k = 0;
#if defined(__AVX2__)
  if (!indices) {  // two columns a vector: x0 in the low half, x1 in the high one
    const __m256i halves = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    __m256 acc[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    for (; k + 8 <= n; k += 8) {
      for (int64_t line = 0; line < 32 * kBytesOf<Type>; line += 64) ask_ahead(a, 4 * k * kBytesOf<Type> + line);
      for (int u = 0; u < 4; ++u) {
        double two;  // floats, of no alignment but their own
        memcpy(&two, x + k + 2 * u, sizeof two);
        const __m256 pair = _mm256_castpd_ps(_mm256_set1_pd(two));
        acc[u] = _mm256_fmadd_ps(load8<Type>(a, 4 * k + 8 * u), _mm256_permutevar_ps(pair, halves), acc[u]);
      }
    }
    const __m256 all = _mm256_add_ps(_mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3]));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
    _mm_storeu_ps(sums, _mm_add_ps(_mm_loadu_ps(sums), four));
  }
#endif
  float s[4] = {0, 0, 0, 0};
  for (; k < n; ++k) {
    const float xk = x[indices ? indices[k] : k];
    for (int r = 0; r < 4; ++r) {
      const float v = Type == ValueType::f32    ? static_cast<const float*>(a)[4 * k + r]
                      : Type == ValueType::bf16 ? bf16_to_float(static_cast<const uint16_t*>(a)[4 * k + r])
                                                : f16_to_float(static_cast<const uint16_t*>(a)[4 * k + r]);
      s[r] += v * xk;
    }
  }
  for (int r = 0; r < 4; ++r) sums[r] += s[r];
}

void quad_one(const void* a, ValueType type, const uint16_t* indices, int64_t n, const float* x, float* sums) {
  switch (type) {
    case ValueType::f32: return quad_one_typed<ValueType::f32>(a, indices, n, x, sums);
    case ValueType::bf16: return quad_one_typed<ValueType::bf16>(a, indices, n, x, sums);
    case ValueType::f16: return quad_one_typed<ValueType::f16>(a, indices, n, x, sums);
    case ValueType::i8:
    case ValueType::i4: return;
  }
}

// ---- Epilogue ----------------------------------------------------------------------------------------------------------

inline vf activate(vf v, Activation activation) {
  switch (activation) {
    case Activation::none: return v;
    case Activation::relu: return vselect(v < vset(0.0f), vset(0.0f), v);  // NaN stays NaN
    case Activation::gelu: return vgelu(v);
    case Activation::gelu_tanh: return vgelu_tanh(v);
    case Activation::silu: return vsilu(v);
    case Activation::tanh: return vtanh(v);
  }
  return v;
}

// An activation a loop: a choice for each vector keeps its constants out of registers.
template <Activation activation>
void finish_rows(float* y, int64_t ldy, int64_t rows, int64_t width, const float* bias, const float* residual) {
  if (width == 1 && ldy == 1) {  // one lane: the rows themselves are contiguous
    for (int64_t i = 0; i < rows; i += kVf) {
      const int64_t n = rows - i < kVf ? rows - i : kVf;
      vf v = vload_part(y + i, n);
      if (bias) v += vload_part(bias + i, n);
      v = activate(v, activation);
      if (residual) v += vload_part(residual + i, n);
      vstore_part(y + i, v, n);
    }
    return;
  }
  for (int64_t r = 0; r < rows; ++r) {
    const vf b = vset(bias ? bias[r] : 0.0f);
    float* row = y + r * ldy;
    const float* added = residual ? residual + r * ldy : nullptr;
    int64_t t = 0;
    if (added) {
      for (; t + kVf <= width; t += kVf) vstore(row + t, activate(vload(row + t) + b, activation) + vload(added + t));
    } else {
      for (; t + kVf <= width; t += kVf) vstore(row + t, activate(vload(row + t) + b, activation));
    }
    if (t < width) {
      vf v = activate(vload_part(row + t, width - t) + b, activation);
      if (added) v += vload_part(added + t, width - t);
      vstore_part(row + t, v, width - t);
    }
  }
}

void finish(float* y, int64_t ldy, int64_t rows, int64_t width, const float* bias, Activation activation,
            const float* residual) {
  const auto run = [&](auto rows_of) { rows_of(y, ldy, rows, width, bias, residual); };
  switch (activation) {
    case Activation::none: return run(finish_rows<Activation::none>);
    case Activation::relu: return run(finish_rows<Activation::relu>);
    case Activation::gelu: return run(finish_rows<Activation::gelu>);
    case Activation::gelu_tanh: return run(finish_rows<Activation::gelu_tanh>);
    case Activation::silu: return run(finish_rows<Activation::silu>);
    case Activation::tanh: return run(finish_rows<Activation::tanh>);
  }
}

}  // namespace
}  // namespace zs
