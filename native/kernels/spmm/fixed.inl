// The inner loop of fixed.cc, for whatever instruction set includes this file. Twice as many lanes fit a vector as in float32, and
// what bounds a sparse product is loads of x.
//
// Counted, AVX2, 64 lanes: an entry takes 4 products that load x, 4 sums and a load of its code; in float32 8 multiply-adds
// and 9 loads.
#include <string.h>

#include "../../runtime/vecmath.inl"
#include "fixed.h"

namespace zs {
namespace {

constexpr int kVh = ZS_VECTOR_BYTES / 2;  // lanes of a vector
typedef int16_t vh __attribute__((vector_size(ZS_VECTOR_BYTES)));
typedef int16_t vh_at __attribute__((vector_size(ZS_VECTOR_BYTES), may_alias));
typedef int16_t vh_part __attribute__((vector_size(ZS_VECTOR_BYTES / 2), aligned(2), may_alias));

// (a b + 2^14) >> 15 of each lane. No sum of them overflows: what fixed.cc rounds weights to sees to it.
static inline vh product(vh a, vh b) {
#if defined(__AVX512BW__) && !defined(ZS_VEC_GENERIC)
  return reinterpret_cast<vh>(_mm512_mulhrs_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__) && !defined(ZS_VEC_GENERIC)
  return reinterpret_cast<vh>(_mm256_mulhrs_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(__aarch64__) && !defined(ZS_VEC_GENERIC)
  return reinterpret_cast<vh>(vqrdmulhq_s16(reinterpret_cast<int16x8_t>(a), reinterpret_cast<int16x8_t>(b)));
#else
  vh c;
  for (int i = 0; i < kVh; ++i) c[i] = static_cast<int16_t>((a[i] * b[i] + (1 << 14)) >> 15);
  return c;
#endif
}

// Four codes, each in all lanes. A load of all four and shuffles: loads are what there is least of.
struct Codes {
#if defined(__AVX2__) && !defined(__AVX512F__) && !defined(ZS_VEC_GENERIC)
  __m256i four;
  explicit Codes(const int16_t* code) {
    int64_t all;
    memcpy(&all, code, sizeof all);
    four = _mm256_set1_epi64x(all);
  }
  vh at(int i) const {
    return reinterpret_cast<vh>(_mm256_shuffle_epi8(four, _mm256_set1_epi16(static_cast<int16_t>(0x0100 + 0x0202 * i))));
  }
#else
  const int16_t* code;
  explicit Codes(const int16_t* code_) : code(code_) {}
  vh at(int i) const { return code[i] - vh{}; }
#endif
};

// sum[v] += product(x[v], w).
template <int V> static inline void add_products(vh (&sum)[V], const int16_t* x, int64_t offset, vh w) {
#if defined(__AVX2__) && !defined(__AVX512F__) && !defined(ZS_VEC_GENERIC)
  if constexpr (V == 4) {  // in one piece: GCC 12 spills two of four products of four entries, though there is room for all
    vh a, b, c, d;
    asm("vpmulhrsw (%[x],%[o]), %[w], %[a]\n\tvpmulhrsw 32(%[x],%[o]), %[w], %[b]\n\t"
        "vpmulhrsw 64(%[x],%[o]), %[w], %[c]\n\tvpmulhrsw 96(%[x],%[o]), %[w], %[d]\n\t"
        "vpaddw %[a], %[s0], %[s0]\n\tvpaddw %[b], %[s1], %[s1]\n\tvpaddw %[c], %[s2], %[s2]\n\tvpaddw %[d], %[s3], %[s3]"
        : [s0] "+x"(sum[0]), [s1] "+x"(sum[1]), [s2] "+x"(sum[2]), [s3] "+x"(sum[3]), [a] "=&x"(a), [b] "=&x"(b), [c] "=&x"(c),
          [d] "=&x"(d)
        : [x] "r"(x), [o] "r"(offset), [w] "x"(w)
        : "memory");
    return;
  }
#endif
  const vh_at* lanes = reinterpret_cast<const vh_at*>(reinterpret_cast<const char*>(x) + offset);
  for (int v = 0; v < V; ++v) sum[v] += product(lanes[v], w);
}

// Lanes `t` to `t` + T kVf, all of them there: a panel is read in order.
template <int T> static inline void largest_of(const float* x, int64_t width, int64_t features, float* most) {
  vi bits[T] = {};
  for (int64_t f = 0; f < features; ++f, x += width) {  // as bits, whose order is that of the numbers, with NaN above all
    for (int t = 0; t < T; ++t) {
      const vi here = reinterpret_cast<vi>(vload(x + t * kVf)) & viset(0x7fffffff);
      bits[t] = here > bits[t] ? here : bits[t];
    }
  }
  for (int t = 0; t < T; ++t) vstore(most + t * kVf, reinterpret_cast<vf>(bits[t]));
}

void largest_lanes(const float* x, int64_t width, int64_t features, float* most) {
  int64_t t = 0;
  for (; t + 4 * kVf <= width; t += 4 * kVf) largest_of<4>(x + t, width, features, most + t);
  for (; t + kVf <= width; t += kVf) largest_of<1>(x + t, width, features, most + t);
  for (; t < width; ++t) {
    float size = 0;
    for (int64_t f = 0; f < features; ++f) {
      const float here = __builtin_fabsf(x[f * width + t]);
      size = here > size || here != here ? here : size;
    }
    most[t] = size;
  }
}

// Two vectors of floats, rounded to integers of 16 bits. 1.5 * 2^23 rounds what is added to it, in the low bits.
static inline vh rounded_pair(vf a, vf b) {
#if defined(__AVX2__) && !defined(__AVX512F__) && !defined(ZS_VEC_GENERIC)
  const __m256i packed = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
  return reinterpret_cast<vh>(_mm256_permute4x64_epi64(packed, 0xd8));
#else
  const vf magic = vset(12582912.0f);
  vh out;
  vh_part low = __builtin_convertvector(reinterpret_cast<vi>(a + magic), vh_part);
  vh_part high = __builtin_convertvector(reinterpret_cast<vi>(b + magic), vh_part);
  memcpy(&out, &low, sizeof low);
  memcpy(reinterpret_cast<char*>(&out) + sizeof low, &high, sizeof high);
  return out;
#endif
}

void quantise_lanes(const float* x, int64_t width, int64_t features, int64_t, const float* inverse, int16_t* out) {
  const int64_t whole = width > kVh ? kPanel : kVh;
  const auto part = [](const float* p, int64_t n) { return n > 0 ? vload_part(p, n) : vf{}; };
  for (int64_t f = 0; f < features; ++f, x += width, out += kPanel) {
    for (int64_t t = 0; t < whole; t += kVh) {
      const vf low = part(x + t, width - t) * vload(inverse + t);
      const vf high = part(x + t + kVf, width - t - kVf) * vload(inverse + t + kVf);
      *reinterpret_cast<vh_at*>(out + t) = rounded_pair(low, high);
    }
  }
}

// A row's sums of a block, scaled, into y, or added to it; and, behind the last block, all times the scales of the lanes.
template <int V, bool kWhole>
static inline void finish_row(const vh (&sum)[V], vf scale, const float* lane_scales, float* y, int64_t width, bool first) {
  alignas(ZS_VECTOR_BYTES) int16_t sums[V * kVh];
  for (int v = 0; v < V; ++v) *reinterpret_cast<vh_at*>(sums + v * kVh) = sum[v];
  const auto each = [&](const auto& total) {
    for (int64_t t = 0; t < V * kVh && (kWhole || t < width); t += kVf) {
      const vf part = __builtin_convertvector(*reinterpret_cast<const vh_part*>(sums + t), vf) * scale;
      if (kWhole) {
        vstore(y + t, total(part, t));
      } else {
        vstore_part(y + t, total(part, t), width - t);
      }
    }
  };
  const auto load = [&](const float* from, int64_t t) { return kWhole ? vload(from + t) : vload_part(from + t, width - t); };
  if (first && lane_scales) {
    each([&](vf part, int64_t t) { return part * load(lane_scales, t); });
  } else if (first) {
    each([](vf part, int64_t) { return part; });
  } else if (lane_scales) {
    each([&](vf part, int64_t t) { return (load(y, t) + part) * load(lane_scales, t); });
  } else {
    each([&](vf part, int64_t t) { return load(y, t) + part; });
  }
}

// V vectors of lanes; those from `width` on are not written.
template <int V, bool kWhole>
void cell_of_vectors(const FixedCell& cell, const int16_t* x, int64_t width, const float* lane_scales, float* y, int64_t ldy,
                     bool first) {
  const uint16_t* offset = cell.offsets;
  const int16_t* code = cell.codes;
  for (int64_t r = 0; r < cell.rows; ++r) {
    vh sum[V];
    for (int v = 0; v < V; ++v) sum[v] = vh{};
    const uint16_t* end = offset + cell.counts[r];
    for (; offset + 4 <= end; offset += 4, code += 4) {
      const Codes codes(code);
      for (int i = 0; i < 4; ++i) add_products(sum, x, offset[i], codes.at(i));
    }
    for (; offset < end; ++offset, ++code) add_products(sum, x, *offset, *code - vh{});
    finish_row<V, kWhole>(sum, vset(cell.scales[r]), lane_scales, y + cell.ids[r] * ldy, width, first);
  }
}

void cell(const FixedCell& c, const int16_t* x, int64_t width, const float* lane_scales, float* y, int64_t ldy, bool first) {
  constexpr int kAll = kPanel / kVh;
  if (width == kPanel) return cell_of_vectors<kAll, true>(c, x, width, lane_scales, y, ldy, first);
  if (width <= kVh) return cell_of_vectors<1, false>(c, x, width, lane_scales, y, ldy, first);
  if constexpr (kAll >= 4) {
    if (width <= 2 * kVh) return cell_of_vectors<2, false>(c, x, width, lane_scales, y, ldy, first);
  }
  cell_of_vectors<kAll, false>(c, x, width, lane_scales, y, ldy, first);
}

}  // namespace
}  // namespace zs

#define ZS_FIXED(isa)                                                          \
  namespace zs {                                                               \
  extern const FixedMicro fixed_##isa = {largest_lanes, quantise_lanes, cell}; \
  }
