// The inner loop of sddmm.cc, compiled once per instruction set: dots of one vector with eight others at a time, whose sums across
// lanes are made together by adding transposed vectors. The order of the sums depends on the depth and the width of a vector alone, so
// a dot is the same bits wherever it stands and however the work is cut.
//
// A load of the one vector serves eight fused multiply-adds that each load from another row of B^T: 9 loads for 8 of them, which
// is what bounds the loop (two loads a cycle) as long as B^T lies in L1.
#include <stdint.h>
#include <string.h>

#include "../../runtime/numeric.h"
#include "../../runtime/vecmath.inl"
#include "sddmm.h"

namespace zs {
namespace {

constexpr int kDots = 8;
constexpr int64_t kAhead = 16;  // entries between a row of B^T that is asked for and the one that is multiplied

typedef float v4 __attribute__((vector_size(16)));
typedef float v8 __attribute__((vector_size(32)));

// A vector of memory as bits, and the floats in it. Two bfloat16 in a word are told apart by a shift and a mask: which lane holds
// which element does not matter to a dot product, as long as both operands agree.
template <class T> struct Raw;
template <> struct Raw<float> {
  static constexpr int kParts = 1;
  static constexpr int64_t kStep = kVf;
  static inline vf part(vu raw, int) { return reinterpret_cast<vf>(raw); }
};
template <> struct Raw<uint16_t> {
  static constexpr int kParts = 2;
  static constexpr int64_t kStep = 2 * kVf;
  static inline vf part(vu raw, int p) { return reinterpret_cast<vf>(p ? raw & (vu{} + 0xffff0000u) : raw << 16); }
};

static inline vu load_raw(const void* p) {
  vu x;
  memcpy(&x, p, sizeof x);
  return x;
}

// What is behind the last whole step: the last vector of the row once more, without the bytes that were read before. A row shorter
// than a vector is copied. Bytes are masked in both operands, so that an infinity that counted is not multiplied by zero.
struct Masks {
  alignas(64) uint8_t bytes[2 * sizeof(vu)];
  constexpr Masks() : bytes() {
    for (size_t i = sizeof(vu); i < 2 * sizeof(vu); ++i) bytes[i] = 255;
  }
};
constexpr Masks kMasks;

template <class T> static inline vu load_rest(const T* row, int64_t depth, int64_t rest, vu mask) {
  if (depth > rest) return load_raw(row + depth - Raw<T>::kStep) & mask;
  vu x{};
  memcpy(&x, row, static_cast<size_t>(rest) * sizeof(T));
  return x;
}

// [x0 + x2, y0 + y2, x1 + x3, y1 + y3], in every 16 bytes.
static inline v4 pair(v4 x, v4 y) {
  return __builtin_shufflevector(x, y, 0, 4, 1, 5) + __builtin_shufflevector(x, y, 2, 6, 3, 7);
}
static inline v4 quad(v4 p, v4 q) {
  return __builtin_shufflevector(p, q, 0, 1, 4, 5) + __builtin_shufflevector(p, q, 2, 3, 6, 7);
}

#if ZS_VECTOR_BYTES > 16
static inline v8 pair(v8 x, v8 y) {
  return __builtin_shufflevector(x, y, 0, 8, 1, 9, 4, 12, 5, 13) + __builtin_shufflevector(x, y, 2, 10, 3, 11, 6, 14, 7, 15);
}
static inline v8 quad(v8 p, v8 q) {
  return __builtin_shufflevector(p, q, 0, 1, 8, 9, 4, 5, 12, 13) + __builtin_shufflevector(p, q, 2, 3, 10, 11, 6, 7, 14, 15);
}
static inline v8 halves(v8 p, v8 q) {
  return __builtin_shufflevector(p, q, 0, 1, 2, 3, 8, 9, 10, 11) + __builtin_shufflevector(p, q, 4, 5, 6, 7, 12, 13, 14, 15);
}
#if ZS_VECTOR_BYTES == 64
static inline v8 narrow(vf x) {
  return __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
}
#else
static inline v8 narrow(vf x) { return x; }
#endif
// out[i] = the sum of the lanes of acc[i], for eight.
static inline void sum_lanes(const vf* acc, float* out) {
  const v8 p = quad(pair(narrow(acc[0]), narrow(acc[1])), pair(narrow(acc[2]), narrow(acc[3])));
  const v8 q = quad(pair(narrow(acc[4]), narrow(acc[5])), pair(narrow(acc[6]), narrow(acc[7])));
  const v8 sums = halves(p, q);
  memcpy(out, &sums, sizeof sums);
}
#else
static inline void sum_lanes(const vf* acc, float* out) {
  const v4 p = quad(pair(acc[0], acc[1]), pair(acc[2], acc[3]));
  const v4 q = quad(pair(acc[4], acc[5]), pair(acc[6], acc[7]));
  memcpy(out, &p, sizeof p);
  memcpy(out + 4, &q, sizeof q);
}
#endif

// The same for sixteen, by the same additions.
#if ZS_VECTOR_BYTES == 64
// [x, y]: halves of two vectors, added.
static inline vf narrow(vf x, vf y) {
  return __builtin_shufflevector(x, y, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
         __builtin_shufflevector(x, y, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
static inline vf pair(vf x, vf y) {
  return __builtin_shufflevector(x, y, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
         __builtin_shufflevector(x, y, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
}
static inline vf quad(vf p, vf q) {
  return __builtin_shufflevector(p, q, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
         __builtin_shufflevector(p, q, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}
static inline vf halves(vf p, vf q) {
  return __builtin_shufflevector(p, q, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
         __builtin_shufflevector(p, q, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}
static inline vf eight_lanes(const vf* acc) {
  const vf p = pair(narrow(acc[0], acc[4]), narrow(acc[1], acc[5])), q = pair(narrow(acc[2], acc[6]), narrow(acc[3], acc[7]));
  return quad(p, q);
}
static inline void sum_16_lanes(const vf* acc, float* out) { vstore(out, halves(eight_lanes(acc), eight_lanes(acc + 8))); }
#else
static inline void sum_16_lanes(const vf* acc, float* out) {
  sum_lanes(acc, out);
  sum_lanes(acc + 8, out + 8);
}
#endif

// Where a step finds its vector in a row: whole, or what is left behind the last whole one.
template <class T> struct Whole {
  int64_t k;
  inline __attribute__((always_inline)) vu operator()(const T* row) const { return load_raw(row + k); }
};
template <class T> struct Rest {
  int64_t depth, rest;
  vu mask;
  inline __attribute__((always_inline)) vu operator()(const T* row) const { return load_rest(row, depth, rest, mask); }
};

// Which dots a loop makes of `R` rows of A and `C` of B^T: all of them, acc[i * C + j], or the j-th with the j-th.
enum class Of { all, pairs };

template <class T, int R, int C, Of of, class From>
static inline __attribute__((always_inline)) void step(const T* const* a, const T* const* b, const From& from, vf* acc) {
  vu x[R];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) x[i] = from(a[i]);
#pragma GCC unroll 8
  for (int j = 0; j < C; ++j) {
    const vu y = from(b[j]);
#pragma GCC unroll 4
    for (int i = 0; i < (of == Of::all ? R : 1); ++i) {
      vf& sum = acc[of == Of::all ? i * C + j : j];
#pragma GCC unroll 2
      for (int p = 0; p < Raw<T>::kParts; ++p) {
        sum = vfma(Raw<T>::part(x[of == Of::all ? i : j], p), Raw<T>::part(y, p), sum);
      }
    }
  }
}

// Every dot is one chain over ascending k, however many are made beside it.
template <class T, int R, int C, Of of = Of::all>
static inline __attribute__((always_inline)) void accumulate(const T* const* a, const T* const* b, int64_t depth, vf* acc) {
  constexpr int64_t size = Raw<T>::kStep;
  const int64_t rest = depth % size, whole = depth - rest;
  int64_t k = 0;
  for (; k + 2 * size <= whole; k += 2 * size) {
    step<T, R, C, of>(a, b, Whole<T>{k}, acc);
    step<T, R, C, of>(a, b, Whole<T>{k + size}, acc);
  }
  if (k < whole) step<T, R, C, of>(a, b, Whole<T>{k}, acc);
  if (rest) {
    const vu mask = load_raw(kMasks.bytes + rest * static_cast<int64_t>(sizeof(T)));
    step<T, R, C, of>(a, b, Rest<T>{depth, rest, mask}, acc);
  }
}

// out[i] = a . b[i] for `n` of eight; the others are left at zero.
template <class T, int n>
static inline __attribute__((always_inline)) void dots(const T* a, const T* const* b, int64_t depth, float* out) {
  vf acc[kDots] = {};
  accumulate<T, 1, n>(&a, b, depth, acc);
  sum_lanes(acc, out);
}

template <class T> static inline void some_dots(const T* a, const T* const* b, int64_t depth, int64_t n, float* sums) {
  switch (n) {
    case 1: return dots<T, 1>(a, b, depth, sums);
    case 2: return dots<T, 2>(a, b, depth, sums);
    case 3: return dots<T, 3>(a, b, depth, sums);
    case 4: return dots<T, 4>(a, b, depth, sums);
    case 5: return dots<T, 5>(a, b, depth, sums);
    case 6: return dots<T, 6>(a, b, depth, sums);
    default: return dots<T, 7>(a, b, depth, sums);
  }
}

// Always inlined: to GCC a function that does nothing but ask has no effect.
template <class T> static inline __attribute__((always_inline)) void ask_for(const T* row, int64_t depth) {
  const char* p = reinterpret_cast<const char*>(row);
  for (int64_t byte = 0; byte < depth * static_cast<int64_t>(sizeof(T)); byte += 64) __builtin_prefetch(p + byte);
}

template <class T, class I> static void row_of(const SddmmRow& r) {
  const T* a = static_cast<const T*>(r.a);
  const T* b = static_cast<const T*>(r.b);
  const I* cols = static_cast<const I*>(r.cols);
  int64_t j = 0;
  for (; j + kDots <= r.count; j += kDots) {
    const T* rows[kDots];
#pragma GCC unroll 8
    for (int i = 0; i < kDots; ++i) rows[i] = b + static_cast<int64_t>(cols[j + i]) * r.ldb;
    if (r.readable) {
      const int64_t last = r.readable < j + kAhead + kDots ? r.readable : j + kAhead + kDots;
      for (int64_t i = j + kAhead; i < last; ++i) ask_for(b + static_cast<int64_t>(cols[i]) * r.ldb, r.depth);
    }
    dots<T, kDots>(a, rows, r.depth, r.out + j);
  }
  const int64_t left = r.count - j;
  if (left == 0) return;
  if (r.readable) {
    const int64_t last = r.readable < j + kAhead + left ? r.readable : j + kAhead + left;
    for (int64_t i = j + kAhead; i < last; ++i) ask_for(b + static_cast<int64_t>(cols[i]) * r.ldb, r.depth);
  }
  const T* rows[kDots];
  float sums[kDots];
  for (int64_t i = 0; i < kDots; ++i) rows[i] = b + static_cast<int64_t>(cols[j + (i < left ? i : 0)]) * r.ldb;
  some_dots(a, rows, r.depth, left, sums);
  for (int64_t i = 0; i < left; ++i) r.out[j + i] = sums[i];
}

template <class T> static void run_of(const SddmmRun& r) {
  const T* x = static_cast<const T*>(r.x);
  const T* y = static_cast<const T*>(r.y);
  float sums[kDots];
  for (int64_t j = 0; j < r.count; j += kDots) {
    const int64_t n = r.count - j < kDots ? r.count - j : kDots;
    const T* rows[kDots];
    for (int64_t i = 0; i < kDots; ++i) rows[i] = y + (j + (i < n ? i : 0)) * r.ldy;
    if (n == kDots) {
      dots<T, kDots>(x, rows, r.depth, sums);
    } else {
      some_dots(x, rows, r.depth, n, sums);
    }
    if (r.step == 1 && n == kDots) {
      memcpy(r.out + j, sums, sizeof sums);
    } else {
      for (int64_t i = 0; i < n; ++i) r.out[(j + i) * r.step] = sums[i];
    }
  }
}

static inline int64_t ones(uint64_t word) {
#if defined(__POPCNT__) || defined(__aarch64__)
  return __builtin_popcountll(word);
#else
  return count_word(word);
#endif
}

static inline uint64_t word_at(const uint8_t* bits, int64_t byte, int64_t bytes) {
  uint64_t word = 0;
  if (bytes - byte >= 8) {
    memcpy(&word, bits + byte, 8);
  } else {
    for (int64_t i = 0; i < bytes - byte; ++i) word |= static_cast<uint64_t>(bits[byte + i]) << (8 * i);
  }
  return word;
}

static int64_t count_of(const uint8_t* bits, int64_t bytes) {
  int64_t found = 0;
  for (int64_t b = 0; b < bytes; b += 8) found += ones(word_at(bits, b, bytes));
  return found;
}

static int64_t columns_of(const uint8_t* bits, int64_t bytes, int32_t* out) {
  int64_t found = 0;
  for (int64_t b = 0; b < bytes; b += 8) {
    for (uint64_t word = word_at(bits, b, bytes); word; word &= word - 1) {
      out[found++] = static_cast<int32_t>(8 * b + __builtin_ctzll(word));
    }
  }
  return found;
}

static void scale_of(float* out, const float* values, float alpha, int64_t n) {
  int64_t i = 0;
  for (; i + kVf <= n; i += kVf) {
    const vf x = vload(out + i) * vset(alpha);
    vstore(out + i, values ? x * vload(values + i) : x);
  }
  for (; i < n; ++i) out[i] = out[i] * alpha * (values ? values[i] : 1.0f);
}

}  // namespace
}  // namespace zs

#include "sddmm_tiles.inl"

#define ZS_SDDMM(isa)                                                                                                          \
  namespace zs {                                                                                                               \
  extern const SddmmMicro sddmm_##isa = {{{row_of<float, uint16_t>, row_of<float, int32_t>, row_of<float, int64_t>},           \
                                          {row_of<uint16_t, uint16_t>, row_of<uint16_t, int32_t>, row_of<uint16_t, int64_t>}}, \
                                         {run_of<float>, run_of<uint16_t>},                                                    \
                                         count_of,                                                                             \
                                         columns_of,                                                                           \
                                         scale_of,                                                                             \
                                         ZS_SDDMM_LISTED};                                                                     \
  }
