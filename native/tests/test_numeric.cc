// The 16-bit floats, exhaustively: every pattern there and back, and around every rounding boundary.
#include <math.h>

#include "../runtime/numeric.h"
#include "check.h"

namespace zs::test {
namespace {

bool is_nan_f16(uint32_t h) { return (h & 0x7fff) > 0x7c00; }
bool is_nan_bf16(uint32_t h) { return (h & 0x7fff) > 0x7f80; }

// The definition, by arithmetic instead of bits. `bits` of mantissa, `bias` of the exponent.
double decode(uint32_t h, int bits, int bias) {
  const int exponent_bits = 15 - bits;
  const int exponent = static_cast<int>(h >> bits) & ((1 << exponent_bits) - 1);
  const double mantissa = static_cast<double>(h & ((1u << bits) - 1));
  const double sign = h & 0x8000 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) return mantissa != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * ldexp(mantissa, 1 - bias - bits);
  return sign * ldexp(mantissa + ldexp(1.0, bits), exponent - bias - bits);
}

// One check for all patterns, naming the first that is wrong.
template <class Good> void check_all(uint32_t count, Good&& good, const char* what) {
  uint32_t wrong = 0;
  uint32_t first = 0;
  for (uint32_t h = count; h-- > 0;) {
    if (good(h)) continue;
    ++wrong;
    first = h;
  }
  check(wrong == 0, std::string(what) + ": " + std::to_string(wrong) + " patterns, the first is " + std::to_string(first));
}

// From below the boundary between two patterns a float rounds down, from above up, and on it to the even pattern.
template <class Encode> bool rounds_right(Encode encode, uint32_t low, double low_value, double up_value) {
  const double middle = 0.5 * (low_value + up_value);
  const float m = static_cast<float>(middle);
  if (static_cast<double>(m) != middle) return true;  // no float lies on this boundary: it is below float32's own spacing
  const uint32_t even = low & 1 ? low + 1 : low;
  for (uint32_t sign : {0u, 0x8000u}) {
    const float s = sign ? -1.0f : 1.0f;
    if (encode(s * m) != (even | sign)) return false;
    if (encode(s * nextafterf(m, -INFINITY)) != (low | sign)) return false;
    if (encode(s * nextafterf(m, INFINITY)) != ((low + 1) | sign)) return false;
  }
  return true;
}

}  // namespace

ZS_TEST(numeric_f16_every_value) {
  check_all(
      65536,
      [](uint32_t h) {
        const float f = f16_to_float(static_cast<uint16_t>(h));
        return is_nan_f16(h) ? isnan(f) : static_cast<double>(f) == decode(h, 10, 15);
      },
      "f16 decodes wrongly");
  check_all(
      65536,
      [](uint32_t h) {
        const uint32_t back = float_to_f16(f16_to_float(static_cast<uint16_t>(h)));
        return is_nan_f16(h) ? is_nan_f16(back) : back == h;
      },
      "f16 does not come back");
}

ZS_TEST(numeric_bf16_every_value) {
  check_all(
      65536,
      [](uint32_t h) {
        const float f = bf16_to_float(static_cast<uint16_t>(h));
        return is_nan_bf16(h) ? isnan(f) : static_cast<double>(f) == decode(h, 7, 127);
      },
      "bf16 decodes wrongly");
  check_all(
      65536,
      [](uint32_t h) {
        const uint32_t back = float_to_bf16(bf16_to_float(static_cast<uint16_t>(h)));
        return is_nan_bf16(h) ? is_nan_bf16(back) : back == h;
      },
      "bf16 does not come back");
}

ZS_TEST(numeric_rounding_boundaries) {
  // The pattern above the largest finite one is infinity; its boundary lies where the next finite value would.
  check_all(
      0x7c00,
      [](uint32_t h) {
        const double up = h == 0x7bff ? 65536.0 : decode(h + 1, 10, 15);
        return rounds_right([](float f) { return static_cast<uint32_t>(float_to_f16(f)); }, h, decode(h, 10, 15), up);
      },
      "f16 rounds wrongly");
  check_all(
      0x7f80,
      [](uint32_t h) {
        const double up = h == 0x7f7f ? ldexp(1.0, 128) : decode(h + 1, 7, 127);
        return rounds_right([](float f) { return static_cast<uint32_t>(float_to_bf16(f)); }, h, decode(h, 7, 127), up);
      },
      "bf16 rounds wrongly");
  check(float_to_f16(1e30f) == 0x7c00 && float_to_f16(-INFINITY) == 0xfc00, "f16: overflow is not infinity");
  check(float_to_bf16(INFINITY) == 0x7f80, "bf16: infinity is lost");
}

ZS_TEST(numeric_count_bits) {
  Random random(3);
  std::vector<uint8_t> bits(100);
  for (int64_t bytes = 0; bytes <= 90; ++bytes) {
    for (uint8_t& byte : bits) byte = bytes % 3 ? static_cast<uint8_t>(random.below(256)) : 255;
    const uint8_t* at = bits.data() + bytes % 9;
    int64_t want = 0;
    for (int64_t b = 0; b < 8 * bytes; ++b) want += at[b / 8] >> (b % 8) & 1;
    check(count_bits(at, bytes) == want, "the bits of " + std::to_string(bytes) + " bytes are counted wrongly");
  }
}

}  // namespace zs::test
