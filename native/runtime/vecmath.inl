// Vector maths for files compiled for one instruction set: float vectors `vf` of kVf lanes, and exp, gelu, tanh, silu on
// them. Everything is static inline in an anonymous namespace, so no symbol leaves the file that includes it.
//
// Largest errors against float64, measured in steps of 1e-4 over [-20, 20] (exp over its whole range): vexp 8e-8 relative, with
// results below 2^-125.5 flushed to zero; vgelu 1.9e-7 and vgelu_tanh 1.2e-7 of max(1, |x|); vtanh 3.6e-7 and
// vsilu 1.8e-7 relative. Infinities give their limits and NaN stays NaN. The coefficients are minimax fits of our own.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace zs {
namespace {

// ZS_VECTOR_BYTES widens the generic vectors, to test code written for 64-byte vectors on a machine that has none.
#if defined(ZS_VECTOR_BYTES)
#define ZS_VEC_GENERIC 1
#elif defined(__AVX512F__)
#define ZS_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define ZS_VECTOR_BYTES 32
#else
#define ZS_VECTOR_BYTES 16
#endif

constexpr int kVf = ZS_VECTOR_BYTES / 4;
typedef float vf __attribute__((vector_size(ZS_VECTOR_BYTES)));
typedef int32_t vi __attribute__((vector_size(ZS_VECTOR_BYTES)));
typedef uint32_t vu __attribute__((vector_size(ZS_VECTOR_BYTES)));
typedef float vf_unaligned __attribute__((vector_size(ZS_VECTOR_BYTES), aligned(4), may_alias));

static inline vf vset(float x) { return x - vf{}; }  // x - 0 keeps the sign of -0 and NaN
static inline vi viset(int32_t x) { return x - vi{}; }
static inline vf vload(const float* p) { return *reinterpret_cast<const vf_unaligned*>(p); }
static inline void vstore(float* p, vf x) { *reinterpret_cast<vf_unaligned*>(p) = x; }
// Past the caches: for results that are larger than they are, whose lines would be read first. p is aligned to a vector;
// other threads see it after vdone().
#if defined(__AVX512F__) && !defined(ZS_VEC_GENERIC)
static inline void vstream(float* p, vf x) { _mm512_stream_ps(p, x); }
static inline void vdone() { _mm_sfence(); }
#elif defined(__AVX2__) && !defined(ZS_VEC_GENERIC)
static inline void vstream(float* p, vf x) { _mm256_stream_ps(p, x); }
static inline void vdone() { _mm_sfence(); }
#else
static inline void vstream(float* p, vf x) { vstore(p, x); }
static inline void vdone() {}
#endif
static inline vf vselect(vi mask, vf yes, vf no) { return mask ? yes : no; }

// a * b + c, rounded once where the processor can. vmax and vmin return b where either is NaN. (The plain forms of some
// 512-bit intrinsics read an undefined register in GCC's headers and warn; a full mask compiles to the same instruction.)
#if defined(__AVX512F__) && !defined(ZS_VEC_GENERIC)
static inline vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vmax(vf a, vf b) { return _mm512_maskz_max_ps(0xffff, a, b); }
static inline vf vmin(vf a, vf b) { return _mm512_maskz_min_ps(0xffff, a, b); }
static inline vf vsqrt(vf x) { return _mm512_maskz_sqrt_ps(0xffff, x); }
#elif defined(__AVX2__) && !defined(ZS_VEC_GENERIC)
static inline vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vsqrt(vf x) { return _mm256_sqrt_ps(x); }
#else
#if defined(__aarch64__) && !defined(ZS_VEC_GENERIC)
static inline vf vfma(vf a, vf b, vf c) { return reinterpret_cast<vf>(vfmaq_f32(c, a, b)); }
#else
static inline vf vfma(vf a, vf b, vf c) { return a * b + c; }
#endif
static inline vf vmax(vf a, vf b) { return a > b ? a : b; }
static inline vf vmin(vf a, vf b) { return a < b ? a : b; }
static inline vf vsqrt(vf x) {
  for (int i = 0; i < kVf; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}
#endif

// The first n lanes of memory (n in [1, kVf]), the others zero; and back.
static inline vf vload_part(const float* p, int64_t n) {
  if (n >= kVf) return vload(p);
  vf x{};
  memcpy(&x, p, n * sizeof(float));
  return x;
}
static inline void vstore_part(float* p, vf x, int64_t n) {
  if (n >= kVf) return vstore(p, x);
  memcpy(p, &x, n * sizeof(float));
}

static inline float vsum(vf x) {
  float s = 0;
  for (int i = 0; i < kVf; ++i) s += x[i];
  return s;
}

// e^x = 2^n e^r, |r| <= ln(2) / 2; e^r = 1 + r + r^2 P(r), P of degree 4 (relative error 3e-9). Adding 1.5 * 2^23 rounds to
// the nearest integer; 2^n is built as 2 * 2^(n-1), so that n = 128 does not overflow. This one takes x up to 88.72: from an n of
// -126 on, which -87.3 has, 2^(n-1) is built as zero.
static inline vf vexp_below(vf x) {
  const vf shift = vset(12582912.0f);
  x = vmax(vset(-87.3f), x);  // in this order NaN stays
  const vf shifted = vfma(x, vset(1.44269504088896341f), shift);
  const vf n = shifted - shift;
  vf r = vfma(n, vset(-0.693145751953125f), x);
  r = vfma(n, vset(-1.42860682030941723e-6f), r);
  vf p = vset(0.0013814597623422742f);
  p = vfma(p, r, vset(0.008368716575205326f));
  p = vfma(p, r, vset(0.04166838899254799f));
  p = vfma(p, r, vset(0.1666652113199234f));
  p = vfma(p, r, vset(0.4999999403953552f));
  p = vfma(p * r, r, r) + vset(1.0f);
  // Unsigned, because it wraps for an x beyond the range.
  const vf half_scale = reinterpret_cast<vf>((reinterpret_cast<vu>(shifted) + (126u - 0x4b400000u)) << 23);
  return (p + p) * half_scale;
}

static inline vf vexp(vf x) { return vselect(x > vset(88.72283f), vset(__builtin_inff()), vexp_below(x)); }

// x Phi(x), the erf form: Phi(x) - 1/2 as x P(x^2) / Q(x^2) on |x| <= 5.65, beyond which it is 0 or x. A rational function takes
// a third of the time of erfc by way of exp; the price is that far below 0 the error is small beside 1, not beside the result.
static inline vf vgelu(vf x) {
  const vf end = vset(5.65f);
  vf c = vselect(x > end, end, x);
  c = vselect(c < -end, -end, c);
  const vf u = c * c;
  vf p = vset(2.1857468723851525e-08f);
  p = vfma(p, u, vset(6.3636280174250714e-06f));
  p = vfma(p, u, vset(0.00017655763076618314f));
  p = vfma(p, u, vset(0.004723598714917898f));
  p = vfma(p, u, vset(0.03465353325009346f));
  p = vfma(p, u, vset(0.3989422023296356f));
  vf q = vset(1.1723120678652776e-06f);
  q = vfma(q, u, vset(7.590804307255894e-05f));
  q = vfma(q, u, vset(0.0019283870933577418f));
  q = vfma(q, u, vset(0.02909713238477707f));
  q = vfma(q, u, vset(0.2535291314125061f));
  q = vfma(q, u, vset(1.0f));
  const vf phi = c * p / q + vset(0.5f);
  return x * vselect(x < -end, vset(0.0f), phi);  // -inf gives NaN, as in torch
}

// x P(x^2) / Q(x^2) on |x| <= 9, where float32 has reached 1 (relative error 1.3e-9).
static inline vf vtanh(vf x) {
  vf c = vselect(x > vset(9.0f), vset(9.0f), x);
  c = vselect(c < vset(-9.0f), vset(-9.0f), c);
  const vf u = c * c;
  vf p = vset(-1.2246305532148669e-11f);
  p = vfma(p, u, vset(3.064261022700521e-08f));
  p = vfma(p, u, vset(2.803134520945605e-05f));
  p = vfma(p, u, vset(0.003869509557262063f));
  p = vfma(p, u, vset(0.1368085741996765f));
  p = vfma(p, u, vset(1.0f));
  vf q = vset(1.2890374136986793e-06f);
  q = vfma(q, u, vset(0.0003940716269426048f));
  q = vfma(q, u, vset(0.02725016325712204f));
  q = vfma(q, u, vset(0.4701418876647949f));
  q = vfma(q, u, vset(1.0f));
  return c * p / q;
}

// x / (1 + e^-2z), z the argument of tanh in the tanh form of gelu: half the work of computing tanh.
static inline vf vgelu_tanh(vf x) {
  const vf z2 = x * vfma(x * x, vset(2.0f * 0.79788456080286536f * 0.044715f), vset(2.0f * 0.79788456080286536f));
  return x / (vset(1.0f) + vexp(-z2));
}

static inline vf vsilu(vf x) { return x / (vset(1.0f) + vexp(-x)); }

static inline vf vrelu(vf x) { return vselect(x < vset(0.0f), vset(0.0f), x); }  // NaN stays NaN

}  // namespace
}  // namespace zs
