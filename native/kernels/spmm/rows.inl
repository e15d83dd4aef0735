// One lane of X times whole rows (rows.cc). Included behind micro.inl.
//
// csr: eight elements of x are fetched one by one into a vector and multiplied by eight values. Values, columns and masks are asked
// for ahead of time (ask_ahead in micro.inl).
// Measured, Zen 3, one core, x in L1, ns an entry at 20/50/100/400 entries a row: 0.43/0.31/0.26/0.22; scalar with four sums
// 0.47/0.40/0.40/0.40, the gather instruction 0.79/0.55/0.51/0.47, indices loaded one by one 0.41/0.32/0.30/0.28.
// Sapphire Rapids, AVX-512: 0.33/0.31/0.30/0.30 at 48/96/192/384, sixteen by the gather instruction 0.26/0.25/0.23/0.23, eight
// 0.29/0.26/0.25/0.25. So who gathers is found out at run time (gathers_pay); sums have the same bits either way.
#include <algorithm>
#include <chrono>

namespace zs {
namespace {

template <ValueType Type> inline float value_of(const void* values, int64_t i) {
  if constexpr (Type == ValueType::f32) return static_cast<const float*>(values)[i];
  if constexpr (Type == ValueType::bf16) return bf16_to_float(static_cast<const uint16_t*>(values)[i]);
  if constexpr (Type == ValueType::f16) return f16_to_float(static_cast<const uint16_t*>(values)[i]);
  return static_cast<float>(static_cast<const int8_t*>(values)[i]);
}

#if defined(__AVX2__)
inline __m128 fetch4(const uint16_t* columns, const float* x) {
  uint64_t four;
  memcpy(&four, columns, 8);
  four = kept(four);
  __m128 v = _mm_load_ss(x + (four & 0xffff));
  v = _mm_insert_ps(v, _mm_load_ss(x + _bextr_u64(four, 16, 16)), 0x10);
  v = _mm_insert_ps(v, _mm_load_ss(x + _bextr_u64(four, 32, 16)), 0x20);
  return _mm_insert_ps(v, _mm_load_ss(x + (four >> 48)), 0x30);
}

inline __m256 fetch8(const uint16_t* columns, const float* x) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(fetch4(columns, x)), fetch4(columns + 4, x), 1);
}

// A group of bytes that count from x; leaves x at the last one.
inline __m128 step4(const uint8_t* columns, const float*& x) {
  uint32_t four;
  memcpy(&four, columns, 4);
  four = kept(four);
  const float* last = x + (four >> 24);
  __m128 v = _mm_load_ss(x + (four & 255));
  v = _mm_insert_ps(v, _mm_load_ss(x + (four >> 8 & 255)), 0x10);
  v = _mm_insert_ps(v, _mm_load_ss(x + (four >> 16 & 255)), 0x20);
  x = last;
  return _mm_insert_ps(v, _mm_load_ss(last), 0x30);
}

inline __m256 step8(const uint8_t* columns, const float*& x) {
  const __m128 low = step4(columns, x);
  return _mm256_insertf128_ps(_mm256_castps128_ps256(low), step4(columns + 4, x), 1);
}

inline float sum_of(__m256 v) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

#if defined(__AVX512VNNI__)
inline void halves_of(__m512 v, __m256& low, __m256& high) {
  low = _mm512_castps512_ps256(v);
  high = _mm512_extractf32x8_ps(v, 1);
}

// Whole sixteens of a row into a and b; returns where the rest begins, and leaves x where its steps count from. What a group of
// four counts from is the sum of the last bytes of those before it: a product of bytes by zeros and ones.
template <ValueType Type>
inline int64_t gather_steps(const uint8_t* columns, const void* values, int64_t at, int64_t end, const float*& x, __m256& a,
                            __m256& b) {
  const __m512i lasts = _mm512_set1_epi32(0x0f0b0703), ones = _mm512_set1_epi8(1);
  const __m512i before =
      _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 0x101, 0x101, 0x101, 0x101, 0x10101, 0x10101, 0x10101, 0x10101);
  __m512i base = _mm512_setzero_si512();
  __m512 sum = _mm512_setzero_ps();
  for (; at + 16 <= end; at += 16) {
    ask_ahead(values, kBytesOf<Type> * at);
    ask_ahead(columns, at);
    const __m128i steps = _mm_loadu_si128(reinterpret_cast<const __m128i*>(columns + at));
    const __m512i four = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(steps), lasts);
    const __m512i in_group = _mm512_add_epi32(_mm512_cvtepu8_epi32(steps), base);
    const __m512i index = _mm512_dpbusd_epi32(in_group, four, before);
    base = _mm512_dpbusd_epi32(base, four, ones);
    sum = _mm512_fmadd_ps(load16<Type>(values, at), _mm512_i32gather_ps(index, x, 4), sum);
  }
  x += _mm_cvtsi128_si32(_mm512_castsi512_si128(base));
  halves_of(sum, a, b);
  return at;
}

template <ValueType Type>
inline int64_t gather_row(const uint16_t* columns, const void* values, int64_t at, int64_t end, const float* x, __m256& a,
                          __m256& b) {
  __m512 sum = _mm512_setzero_ps();
  for (; at + 16 <= end; at += 16) {
    ask_ahead(values, kBytesOf<Type> * at);
    ask_ahead(columns, 2 * at);
    const __m256i index = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns + at));
    sum = _mm512_fmadd_ps(load16<Type>(values, at), _mm512_i32gather_ps(_mm512_cvtepu16_epi32(index), x, 4), sum);
  }
  halves_of(sum, a, b);
  return at;
}
#endif

// Columns in steps, x finite: fillers are multiplied like entries. (These loops are not inlined: several in one function have no
// registers left, GCC 12.)
template <ValueType Type, bool Gather>
[[gnu::noinline]] float step_dot(const uint8_t* columns, const void* values, int64_t at, int64_t end, const float* x) {
  __m256 a = _mm256_setzero_ps(), b = _mm256_setzero_ps();
#if defined(__AVX512VNNI__)
  if (Gather) at = gather_steps<Type>(columns, values, at, end, x, a, b);
#endif
  for (; at + 16 <= end; at += 16) {
    ask_ahead(values, kBytesOf<Type> * at);
    ask_ahead(columns, at);
    a = _mm256_fmadd_ps(load8<Type>(values, at), step8(columns + at, x), a);
    b = _mm256_fmadd_ps(load8<Type>(values, at + 8), step8(columns + at + 8, x), b);
  }
  if (at + 8 <= end) {
    a = _mm256_fmadd_ps(load8<Type>(values, at), step8(columns + at, x), a);
    at += 8;
  }
  if (at < end) {  // a group; the values behind it are the next row's
    const __m256i low = _mm256_setr_epi32(-1, -1, -1, -1, 0, 0, 0, 0);
    const __m256 four = _mm256_and_ps(load8<Type>(values, at), _mm256_castsi256_ps(low));
    b = _mm256_fmadd_ps(four, _mm256_zextps128_ps256(step4(columns + at, x)), b);
  }
  return sum_of(_mm256_add_ps(a, b));
}

template <ValueType Type, bool Gather>
[[gnu::noinline]] float row_dot(const uint16_t* columns, const void* values, int64_t at, int64_t end, const float* x) {
  __m256 a = _mm256_setzero_ps(), b = _mm256_setzero_ps();
#if defined(__AVX512VNNI__)
  if (Gather) at = gather_row<Type>(columns, values, at, end, x, a, b);
#endif
  for (; at + 16 <= end; at += 16) {
    ask_ahead(values, kBytesOf<Type> * at);
    ask_ahead(columns, 2 * at);
    a = _mm256_fmadd_ps(load8<Type>(values, at), fetch8(columns + at, x), a);
    b = _mm256_fmadd_ps(load8<Type>(values, at + 8), fetch8(columns + at + 8, x), b);
  }
  if (at + 8 <= end) {
    a = _mm256_fmadd_ps(load8<Type>(values, at), fetch8(columns + at, x), a);
    at += 8;
  }
  float sum = sum_of(_mm256_add_ps(a, b));
  for (; at < end; ++at) sum += value_of<Type>(values, at) * x[columns[at]];
  return sum;
}

#if defined(__AVX512VNNI__)
// Whether the gather instruction is the faster way to fetch x: on Intel's processors from Sapphire Rapids on it is, on AMD's it is made of
// many small operations, and where a leak had to be closed by microcode (Downfall) it takes several times as long. Measured, some
// microseconds, once.
bool gathers_pay() {
  static const bool pays = [] {
    constexpr int64_t kEntries = 2048, kRuns = 9;
    float x[4096] = {}, values[kEntries] = {};  // no vectors: what may throw leaves a weak symbol
    uint16_t columns[kEntries];
    for (int64_t i = 0; i < kEntries; ++i) columns[i] = static_cast<uint16_t>(i * 2654435761u >> 20 & 4095);
    const auto seconds = [&](auto dot) {
      const auto start = std::chrono::steady_clock::now();
      volatile float sum = dot(columns, values, 0, kEntries, x);
      static_cast<void>(sum);
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    double gathered = 1, inserted = 1;
    for (int64_t run = 0; run < kRuns; ++run) {
      gathered = std::min(gathered, seconds(row_dot<ValueType::f32, true>));
      inserted = std::min(inserted, seconds(row_dot<ValueType::f32, false>));
    }
    return 1.05 * gathered < inserted;
  }();
  return pays;
}
#endif
#else
template <ValueType Type, bool>
inline float row_dot(const uint16_t* columns, const void* values, int64_t at, int64_t end, const float* x) {
  float sum[4] = {};
  for (; at + 4 <= end; at += 4) {
    for (int s = 0; s < 4; ++s) sum[s] += value_of<Type>(values, at + s) * x[columns[at + s]];
  }
  for (; at < end; ++at) sum[0] += value_of<Type>(values, at) * x[columns[at]];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

template <ValueType Type, bool>
inline float step_dot(const uint8_t* columns, const void* values, int64_t at, int64_t end, const float* x) {
  float sum[4] = {};
  for (; at < end; at += 4) {
    for (int s = 0; s < 4; ++s) sum[s] += value_of<Type>(values, at + s) * x[columns[at + s]];
    x += columns[at + 3];
  }
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}
#endif

// Calls body(entry, column) for the entries of a row, fillers left out.
template <class Body> inline void each_entry(const RowsView& a, int64_t r, Body&& body) {
  int64_t i = a.starts[r], base = 0;
  for (int64_t b = 0; a.masks && b < a.mask_bytes; ++b) {
    for (unsigned bits = a.masks[r * a.mask_bytes + b]; bits; bits &= bits - 1) body(i++, 8 * b + __builtin_ctz(bits));
  }
  for (; i < a.starts[r + 1]; ++i) {
    if (!a.fillers) {
      uint16_t column;
      memcpy(&column, a.columns + 2 * i, 2);
      body(i, column);
      continue;
    }
    const int64_t column = base + a.columns[i];
    if (!(a.fillers[i / 8] >> i % 8 & 1)) body(i, column);
    if ((i - a.starts[r]) % 4 == 3) base = column;
  }
}

[[maybe_unused]] constexpr float kTop = 1.0f / (1 << 24);  // of codes of 8 bits that arrive in the top byte of a word

#if defined(__AVX512VBMI2__)
// A number that is known when this is compiled, where an argument is not.
template <int N> struct Part {
  constexpr operator int() const { return N; }
};

// x of one lane as mask_dot reads it where it is finite, in blocks of 64 columns, zero behind the last. An expanded vector of narrow
// values holds two or four columns a word, and what takes them out of the word leaves every second or fourth column in a vector;
// so x lies that way, and no value crosses lanes. (Widened in order a step of 16 or 8 bits took as long as one of float32, whose shuffles
// bound it: 15 cycles. So it takes 11 to 12, where 7 and 8 are counted. Emerald Rapids, 80 % zeros.)
void arrange(ValueType type, const float* x, int64_t cols, float* out) {
  const int64_t apart = type == ValueType::bf16 ? 2 : is_code(type) ? 4 : 1, run = 16 * apart;
  memset(out + cols / 64 * 64, 0, cols % 64 ? 64 * sizeof(float) : 0);
  for (int64_t c = 0; c < cols; ++c) out[c / run * run + c % apart * 16 + c % run / apart] = x[c];
}

// A row of a bitmask times x, 64 columns a step: one instruction brings the values of 16, 32 or 64 of them to their lanes. Masked
// reads x as it lies, under the same mask. (Accumulators by a running number, and a mask copied by its length: five times slower. Some of the
// sixteens of float32 by a permutation whose indices come from a table of mask bytes: level to 1.5 times slower.)
template <ValueType Type, bool Masked>
inline float mask_dot(const uint8_t* mask, int64_t bytes, const void* values, int64_t at, const float* x) {
  __m512 acc[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  const auto add = [&acc](auto part, __m512 v, [[maybe_unused]] uint64_t bits, const float* from) {
    const float* at_part = from + 16 * part;
    const __m512 xs =
        Masked ? _mm512_maskz_loadu_ps(static_cast<__mmask16>(bits >> 16 * part), at_part) : _mm512_loadu_ps(at_part);
    acc[part] = _mm512_fmadd_ps(v, xs, acc[part]);
  };
  const auto sixteen = [&](auto part, uint64_t bits, const float* from) {
    const int64_t before = __builtin_popcountll(bits & ((uint64_t{1} << 16 * part) - 1));
    const __m512 packed = _mm512_loadu_ps(static_cast<const float*>(values) + at + before);
    add(part, _mm512_maskz_expand_ps(static_cast<__mmask16>(bits >> 16 * part), packed), bits, from);
  };
  const auto widened = [](__m256i halves) {
    if (Type == ValueType::f16) return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  };
  const auto numbers = [](__m128i codes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)); };
  const __m512i upper = _mm512_set1_epi32(-65536), top = _mm512_set1_epi32(-16777216);
  constexpr Part<0> p0;
  constexpr Part<1> p1;
  constexpr Part<2> p2;
  constexpr Part<3> p3;
  const auto step = [&](uint64_t bits, const float* from) {
    ask_ahead(values, kBytesOf<Type> * at);
    if (kBytesOf<Type> > 1) ask_ahead(values, kBytesOf<Type> * at + 64);
    if constexpr (Type == ValueType::f32) {
      sixteen(p0, bits, from);
      sixteen(p1, bits, from);
      sixteen(p2, bits, from);
      sixteen(p3, bits, from);
    } else if constexpr (Type == ValueType::i8) {
      const __m512i all = _mm512_maskz_expand_epi8(bits, _mm512_loadu_si512(static_cast<const int8_t*>(values) + at));
      if constexpr (Masked) {
        add(p0, numbers(_mm512_castsi512_si128(all)), bits, from);
        add(p1, numbers(_mm512_extracti32x4_epi32(all, 1)), bits, from);
        add(p2, numbers(_mm512_extracti32x4_epi32(all, 2)), bits, from);
        add(p3, numbers(_mm512_extracti32x4_epi32(all, 3)), bits, from);
      } else {  // codes in the top byte: 2^24 times as large
        add(p0, _mm512_cvtepi32_ps(_mm512_slli_epi32(all, 24)), bits, from);
        add(p1, _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_slli_epi32(all, 16), top)), bits, from);
        add(p2, _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_slli_epi32(all, 8), top)), bits, from);
        add(p3, _mm512_cvtepi32_ps(_mm512_and_si512(all, top)), bits, from);
      }
    } else {
      const uint16_t* half = static_cast<const uint16_t*>(values) + at;
      const uint32_t first = static_cast<uint32_t>(bits);
      const __m512i low = _mm512_maskz_expand_epi16(first, _mm512_loadu_si512(half));
      const __m512i high = _mm512_maskz_expand_epi16(bits >> 32, _mm512_loadu_si512(half + __builtin_popcount(first)));
      if constexpr (Type == ValueType::bf16 && !Masked) {
        add(p0, _mm512_castsi512_ps(_mm512_slli_epi32(low, 16)), bits, from);
        add(p1, _mm512_castsi512_ps(_mm512_and_si512(low, upper)), bits, from);
        add(p2, _mm512_castsi512_ps(_mm512_slli_epi32(high, 16)), bits, from);
        add(p3, _mm512_castsi512_ps(_mm512_and_si512(high, upper)), bits, from);
      } else {
        add(p0, widened(_mm512_castsi512_si256(low)), bits, from);
        add(p1, widened(_mm512_extracti64x4_epi64(low, 1)), bits, from);
        add(p2, widened(_mm512_castsi512_si256(high)), bits, from);
        add(p3, widened(_mm512_extracti64x4_epi64(high, 1)), bits, from);
      }
    }
    at += __builtin_popcountll(bits);
  };
  int64_t b = 0;
  for (; b + 8 <= bytes; b += 8) {
    uint64_t bits;
    memcpy(&bits, mask + b, 8);
    ask_ahead(mask, b);
    step(bits, x + 8 * b);
  }
  if (b < bytes) {
    uint64_t bits = 0;
    memcpy(&bits, mask + b, bytes - b);
    step(bits, x + 8 * b);
  }
  const float sum = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(acc[0], acc[1]), _mm512_add_ps(acc[2], acc[3])));
  return Type == ValueType::i8 && !Masked ? sum * kTop : sum;
}
#elif defined(__AVX2__)
// For every mask byte, what brings packed values to the lanes they belong to.
struct Spreads {
  alignas(64) uint32_t words[256][8];  // the packed value of each lane, the sign bit set where there is one: for a masked load
  alignas(64) uint8_t fours[256][32];  // bytes of float32 values, four lanes from each half of a vector; 128 clears
  alignas(64) uint8_t upper[256][32];  // bytes of 16-bit values, into the upper half of each lane; 128 clears
  alignas(64) uint8_t halves[256][16];
  alignas(64) uint8_t tops[256][32];  // single bytes, into the top of each lane
  constexpr Spreads() : words(), fours(), upper(), halves(), tops() {
    for (uint32_t mask = 0; mask < 256; ++mask) {
      uint32_t next = 0, of_half = 0;
      for (int lane = 0; lane < 8; ++lane) {
        const bool here = mask >> lane & 1;
        if (lane == 4) of_half = 0;
        for (uint32_t byte = 0; byte < 4; ++byte) {
          fours[mask][4 * lane + static_cast<int>(byte)] = static_cast<uint8_t>(here ? 4 * of_half + byte : 128);
        }
        of_half += here;
        words[mask][lane] = here ? 0x80000000u | next : 0;
        for (int byte = 0; byte < 4; ++byte) upper[mask][4 * lane + byte] = tops[mask][4 * lane + byte] = 128;
        for (uint32_t byte = 0; byte < 2; ++byte) {
          const uint8_t from = static_cast<uint8_t>(here ? 2 * next + byte : 128);
          upper[mask][4 * lane + 2 + byte] = halves[mask][2 * lane + byte] = from;
        }
        if (here) tops[mask][4 * lane + 3] = static_cast<uint8_t>(next++);
      }
    }
  }
};
constexpr Spreads kSpreads;
// The values of eight columns, zero in lanes that have none. In float32 those lanes hold some other value of the matrix, where x is
// read under a mask; else each half of the vector has its four columns brought to their places by a byte shuffle. (Zen 3, ns a
// mask byte: one permutation of eight 1.1, halves 0.8.)
//
// `values` are those of a step; `before` and `half` of them belong to columns before the eight, and before the upper four.
template <ValueType Type, bool Masked>
inline __m256 spread(const uint8_t* values, unsigned mask, int before, [[maybe_unused]] int half) {
  const auto control = [](const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); };
  const auto sixteen = [](const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); };
  if constexpr (Type == ValueType::bf16) {
    const __m256i packed = _mm256_broadcastsi128_si256(sixteen(values + 2 * before));
    return _mm256_castsi256_ps(_mm256_shuffle_epi8(packed, control(kSpreads.upper[mask])));
  }
  if constexpr (Type == ValueType::f16) {
    const __m128i at_halves = _mm_load_si128(reinterpret_cast<const __m128i*>(kSpreads.halves[mask]));
    return _mm256_cvtph_ps(_mm_shuffle_epi8(sixteen(values + 2 * before), at_halves));
  }
  if constexpr (Type == ValueType::i8) {
    int64_t eight;
    memcpy(&eight, values + before, 8);
    return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(_mm256_set1_epi64x(eight), control(kSpreads.tops[mask])));
  }
  if constexpr (Masked) {
    const __m256i lanes = _mm256_load_si256(reinterpret_cast<const __m256i*>(kSpreads.words[mask]));
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(reinterpret_cast<const float*>(values) + before), lanes);
  }
  const __m256i both =
      _mm256_inserti128_si256(_mm256_castsi128_si256(sixteen(values + 4 * before)), sixteen(values + 4 * half), 1);
  return _mm256_castsi256_ps(_mm256_shuffle_epi8(both, control(kSpreads.fours[mask])));
}

// A row of a bitmask times x, eight columns a step. Lanes without a value multiply x by zero, which an infinite x forbids: Masked
// reads x only where there is a value.
template <ValueType Type, bool Masked>
[[gnu::noinline]] float mask_dot(const uint8_t* mask, int64_t bytes, const void* values, int64_t at, const float* x) {
  constexpr int64_t kBytes = kBytesOf<Type>;
  const uint8_t* v = static_cast<const uint8_t*>(values) + kBytes * at;
  __m256 acc[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
#define ZS_BYTE(B, S, MASK, BEFORE, HALF)                                                           \
  {                                                                                                 \
    const unsigned m = MASK;                                                                        \
    const __m256i has = _mm256_load_si256(reinterpret_cast<const __m256i*>(kSpreads.words[m]));     \
    const __m256 xs = Masked ? _mm256_maskload_ps(x + 8 * (B), has) : _mm256_loadu_ps(x + 8 * (B)); \
    acc[S] = _mm256_fmadd_ps(spread<Type, Masked>(v, m, BEFORE, HALF), xs, acc[S]);                 \
  }
  int64_t b = 0;
  for (; b + 4 <= bytes; b += 4) {  // counts from one number: one after the other their latency would add up
    uint32_t four;
    memcpy(&four, mask + b, 4);
    four = kept(four);
    ask_ahead(v, 0);
    if (Type == ValueType::f32) ask_ahead(v, 64);
    ask_ahead(mask, b);
    const auto count = [four](uint32_t part) { return __builtin_popcount(four & part); };
    ZS_BYTE(b, 0, four & 255, 0, count(0xf))
    ZS_BYTE(b + 1, 1, four >> 8 & 255, count(0xff), count(0xfff))
    ZS_BYTE(b + 2, 2, four >> 16 & 255, count(0xffff), count(0xfffff))
    ZS_BYTE(b + 3, 3, four >> 24, count(0xffffff), count(0xfffffff))
    v += kBytes * __builtin_popcount(four);
  }
  for (; b < bytes; ++b) {
    ZS_BYTE(b, 0, mask[b], 0, __builtin_popcount(mask[b] & 15))
    v += kBytes * __builtin_popcount(mask[b]);
  }
#undef ZS_BYTE
  const __m256 all = _mm256_add_ps(_mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3]));
  return sum_of(all) * (Type == ValueType::i8 ? kTop : 1.0f);
}
#else
template <ValueType Type, bool Masked>
inline float mask_dot(const uint8_t* mask, int64_t bytes, const void* values, int64_t at, const float* x) {
  float sum = 0;
  for (int64_t b = 0; b < bytes; ++b) {
    for (unsigned bits = mask[b]; bits; bits &= bits - 1, ++at)
      sum += value_of<Type>(values, at) * x[8 * b + __builtin_ctz(bits)];
  }
  return sum;
}
#endif

template <ValueType Type> inline float row_sum(const RowsView& a, int64_t r, const float* x) {
  if (a.masks) {
    const uint8_t* mask = a.masks + r * a.mask_bytes;
    return a.finite_x ? mask_dot<Type, false>(mask, a.mask_bytes, a.values, a.starts[r], x)
                      : mask_dot<Type, true>(mask, a.mask_bytes, a.values, a.starts[r], x);
  }
  if (!a.fillers) {
    const uint16_t* columns = reinterpret_cast<const uint16_t*>(a.columns);
    const auto dot = a.gathers ? row_dot<Type, true> : row_dot<Type, false>;
    return dot(columns, a.values, a.starts[r], a.starts[r + 1], x);
  }
  if (a.finite_x) {
    const auto dot = a.gathers ? step_dot<Type, true> : step_dot<Type, false>;
    return dot(a.columns, a.values, a.starts[r], a.starts[r + 1], x);
  }
  float sum = 0;
  each_entry(a, r, [&](int64_t i, int64_t column) { sum += value_of<Type>(a.values, i) * x[column]; });
  return sum;
}

template <ValueType Type> void rows_typed(const RowsView& a, const float* x, int64_t width, float* y, int64_t ldy, bool first) {
  for (int64_t r = 0; r < a.rows && width == 1; ++r) {
    float sum = row_sum<Type>(a, r, x);
    if (a.scales) sum *= a.scales[r];
    y[r] = first ? sum : y[r] + sum;
  }
  for (int64_t r = 0; r < a.rows && width > 1; ++r) {
    float* out = y + r * ldy;
    for (int64_t t = 0; t < width; t += kVf) {
      const int64_t n = width - t < kVf ? width - t : kVf;
      vf sum{};
      each_entry(a, r, [&](int64_t i, int64_t column) {
        sum = vfma(vset(value_of<Type>(a.values, i)), vload_part(x + column * width + t, n), sum);
      });
      if (a.scales) sum *= vset(a.scales[r]);
      if (!first) sum += vload_part(out + t, n);
      vstore_part(out + t, sum, n);
    }
  }
}

void rows(const RowsView& a, ValueType type, const float* x, int64_t width, float* y, int64_t ldy, bool first) {
  switch (type) {
    case ValueType::f32: return rows_typed<ValueType::f32>(a, x, width, y, ldy, first);
    case ValueType::bf16: return rows_typed<ValueType::bf16>(a, x, width, y, ldy, first);
    case ValueType::f16: return rows_typed<ValueType::f16>(a, x, width, y, ldy, first);
    case ValueType::i8:
    case ValueType::i4: return rows_typed<ValueType::i8>(a, x, width, y, ldy, first);
  }
}

}  // namespace
}  // namespace zs
