// Conversions between float32 and the 16-bit floats, in integer arithmetic, and counting bits. `static inline`: no symbol leaves a file.
#pragma once

#include <stdint.h>
#include <string.h>

namespace zs {

// A number in a register. GCC 12 would read it from memory again for each of its parts, which costs loads where they are scarce
// (a third of the time of one lane, Zen 3).
template <class T> static inline T kept(T v) {
  asm("" : "+r"(v));
  return v;
}

static inline float bits_to_float(uint32_t bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

static inline uint32_t float_to_bits(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  return bits;
}

static inline float bf16_to_float(uint16_t h) { return bits_to_float(static_cast<uint32_t>(h) << 16); }

// To nearest, ties to even; NaN stays NaN.
static inline uint16_t float_to_bf16(float f) {
  const uint32_t bits = float_to_bits(f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

static inline float f16_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t exponent = (h >> 10) & 0x1f;
  const uint32_t mantissa = h & 0x3ff;
  if (exponent == 0x1f) return bits_to_float(sign | 0x7f800000u | (mantissa << 13));
  if (exponent) return bits_to_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float tiny = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24, exact
  return sign ? -tiny : tiny;
}

// To nearest, ties to even; overflow to infinity; NaN stays NaN.
static inline uint16_t float_to_f16(float f) {
  const uint32_t bits = float_to_bits(f);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00);
  if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 aligns the mantissa so that the hardware rounds it
    const float aligned = bits_to_float(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (float_to_bits(aligned) - 0x3f000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

// Without the instruction, which the oldest x86-64 lacks, the compiler's own would be a call into its library.
static inline int64_t count_word(uint64_t word) {
  word -= word >> 1 & 0x5555555555555555u;
  word = (word & 0x3333333333333333u) + (word >> 2 & 0x3333333333333333u);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  return static_cast<int64_t>(word * 0x0101010101010101u >> 56);
}

// The set bits of `bytes` bytes.
static inline int64_t count_bits(const uint8_t* bits, int64_t bytes) {
  int64_t count = 0, b = 0;
  for (; b + 8 <= bytes; b += 8) {
    uint64_t word;
    memcpy(&word, bits + b, 8);
    count += count_word(word);
  }
  uint64_t rest = 0;
  for (; b < bytes; ++b) rest = rest << 8 | bits[b];
  return count + count_word(rest);
}

}  // namespace zs
