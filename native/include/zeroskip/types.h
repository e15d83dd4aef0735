// Plain types that every native file shares. C headers only: files compiled for a newer instruction set include this one.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace zs {

// Of each architecture in ascending order: one that is selected takes those before it along.
enum class Isa : uint8_t { scalar = 0, avx2 = 1, avxvnni = 2, avx512 = 3, avx512vnni = 4, amx = 5, neon = 6, neondot = 7 };
constexpr int kIsas = 8;
// i8 and i4 are codes, one int8_t each where a caller holds them; scales say what they mean (Source).
enum class ValueType : uint8_t { f32 = 0, bf16 = 1, f16 = 2, i8 = 3, i4 = 4 };
// What a kernel rounds x to: nothing, bfloat16, or codes with a scale a token.
enum class XType : uint8_t { f32 = 0, bf16 = 1, i8 = 2, i16 = 3 };
enum class Format : uint8_t { csr = 0, bitmask = 1, dense = 2, bsr = 3, nm = 4, ell = 5, sell = 6, vnm = 7, csc = 8, dia = 9 };
enum class Activation : uint8_t { none = 0, relu = 1, gelu = 2, gelu_tanh = 3, silu = 4, tanh = 5 };

static constexpr bool is_code(ValueType type) { return type == ValueType::i8 || type == ValueType::i4; }
static inline int64_t value_bytes(ValueType type) { return type == ValueType::f32 ? 4 : is_code(type) ? 1 : 2; }
// Bytes of n values that follow each other in a packed matrix, where a byte holds two codes of 4 bits, the first in its low half.
static inline int64_t stored_bytes(ValueType type, int64_t n) {
  return type == ValueType::i4 ? (n + 1) / 2 : n * value_bytes(type);
}

// What happens to a finished row of Y = A X: y = act(y + bias[row]) + residual. Null pointers leave a term out.
struct Epilogue {
  const float* bias = nullptr;      // [rows]
  Activation activation = Activation::none;
  const float* residual = nullptr;  // laid out as Y
  // A hint: x is what this thread's last product had, and nobody wrote to it since. What was made of it may be used again.
  bool same_x = false;
};

// ---- Lane panels -------------------------------------------------------------------------------------------------
// A dense operand of `features` rows and `lanes` columns (tokens) is cut into panels of kPanel lanes. Panel p starts at
// element p * kPanel * features and is row-major [features][width]; width is kPanel, and in the last panel the lanes that
// remain rounded up to kLaneUnit. One lane alone has width 1. Padding lanes hold any finite value and are never read out.
constexpr int64_t kPanel = 64;
constexpr int64_t kLaneUnit = 8;

static inline int64_t panel_count(int64_t lanes) { return (lanes + kPanel - 1) / kPanel; }

static inline int64_t panel_width(int64_t lanes, int64_t p) {
  if (lanes == 1) return 1;
  const int64_t left = lanes - p * kPanel;
  return left >= kPanel ? kPanel : (left + kLaneUnit - 1) / kLaneUnit * kLaneUnit;
}

// Lanes of storage, padding counted: a buffer has features * padded_lanes(lanes) floats.
static inline int64_t padded_lanes(int64_t lanes) { return lanes == 1 ? 1 : (lanes + kLaneUnit - 1) / kLaneUnit * kLaneUnit; }

}  // namespace zs
