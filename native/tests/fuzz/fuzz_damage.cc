// A sound matrix of any format, large enough to reach every tile of the kernels, then damaged: elements overwritten, arrays cut
// or lost, sizes changed. With no damage left to do it must be accepted.
#include <stdlib.h>

#include <limits>

#include "../reference.h"
#include "hostile.h"

namespace zs::fuzz {
namespace {

test::Matrix matrix_of(Given& given, Bytes& bytes) {
  const uint64_t seed = bytes.take<uint16_t>() + 1u;
  const double density = static_cast<double>(bytes.take<uint8_t>()) / 255;
  // Half of them of few rows: what is wrong with one row is seen only where the others are sound beside it.
  int64_t rows = 1 + bytes.below(bytes.take<uint8_t>() < 128 ? 3 : 40),
          cols = 1 + bytes.below(bytes.take<uint8_t>() < 16 ? 600 : 90);
  switch (given.format) {
    case Format::bsr:
      given.r = 1 + bytes.below(17);
      given.c = 1 + bytes.below(9);
      return test::random_blocks((rows / given.r + 1) * given.r, (cols / given.c + 1) * given.c, given.r, given.c, density,
                                 seed);
    case Format::nm:
      given.m = bytes.take<uint8_t>() & 1 ? 1 << bytes.below(9) : 1 + bytes.below(256);
      given.n = 1 + bytes.below(given.m);
      return test::random_nm(rows, (cols / given.m + 1) * given.m, given.n, given.m, seed);
    case Format::vnm:
      given.v = 1;
      given.m = 4 + bytes.below(40);
      given.n = 1 + bytes.below(4);
      return test::random_nm(rows, (cols / given.m + 1) * given.m, given.n, given.m, seed);
    case Format::sell: given.c = 1 + bytes.below(80); break;
    default: break;
  }
  return test::random_matrix(rows, cols, density, seed);
}

// The arrays of a sound matrix, and the parameters that go with them. Codes take the places of float32 values.
void build(Given& given, Arrays& arrays, Bytes& bytes) {
  const test::Matrix matrix = matrix_of(given, bytes);
  const bool codes = is_code(given.type), sell = given.format == Format::sell, groups = given.m > 0;
  test::Held held = test::hold(matrix, given.format, codes ? ValueType::f32 : given.type,
                               groups ? given.n
                               : sell ? given.c
                                      : given.r,
                               groups ? given.m : given.c);
  given.rows = matrix.rows;
  given.cols = matrix.cols;
  given.width = held.source.r;
  arrays.indptr = std::move(held.indptr);
  arrays.indices = std::move(held.indices);
  arrays.order = std::move(held.order);
  arrays.columns = std::move(held.four);
  if (given.format == Format::bitmask) arrays.bits = std::move(held.bits);
  if (given.format != Format::bitmask) arrays.positions = std::move(held.bits);
  if (!codes) {
    const uint8_t* begin = static_cast<const uint8_t*>(held.source.data);
    const size_t count = held.f32.size() + held.f16.size();
    if (count) arrays.data.assign(begin, begin + count * value_bytes(given.type));
    return;
  }
  test::Random random(bytes.take<uint8_t>() + 1u);
  for (size_t i = 0; i < held.f32.size(); ++i) {
    arrays.data.push_back(static_cast<uint8_t>(given.type == ValueType::i4 ? random.below(16) - 8 : random.below(256) - 128));
  }
  given.group = 32 * bytes.below(5);
  const int64_t scales = given.rows * (given.group ? (given.cols + given.group - 1) / given.group : 1);
  for (int64_t i = 0; i < scales; ++i) arrays.scales.push_back(static_cast<uint16_t>(0x2000 + random.below(0x1000)));
  if (bytes.take<uint8_t>() & 1) arrays.zeros.assign(scales, 1);
}

template <class T> void damage(std::vector<T>& array, Bytes& bytes) {
  if (array.empty()) return;
  const size_t at = bytes.take<uint16_t>() % array.size();
  switch (bytes.take<uint8_t>() % 7) {
    case 6: array[at] = std::numeric_limits<T>::max(); break;
    case 0: array[at] = bytes.take<T>(); break;
    // Unsigned, so that the greatest offset wraps.
    case 1: array[at] = static_cast<T>(static_cast<uint64_t>(array[at]) + 1); break;
    case 2: array[at] = static_cast<T>(static_cast<uint64_t>(array[at]) - 1); break;
    case 3: array[at] = static_cast<T>(bytes.take<int8_t>()); break;
    case 4: array.resize(at); break;
    case 5: std::swap(array[at], array[at / 2]); break;
  }
}

void damage(Given& given, Arrays& arrays, Bytes& bytes) {
  switch (bytes.take<uint8_t>() % 16) {
    case 0: given.rows = bytes.size(80); break;
    case 1: given.cols = bytes.size(100); break;
    case 2: {
      int64_t* parameters[] = {&given.r, &given.c, &given.v, &given.n, &given.m, &given.width, &given.group};
      *parameters[bytes.take<uint8_t>() % 7] = bytes.size(40);
      break;
    }
    case 3: arrays.missing |= 1u << bytes.take<uint8_t>() % 9; break;
    case 4: damage(arrays.data, bytes); break;
    case 5: damage(arrays.scales, bytes); break;
    case 6: damage(arrays.zeros, bytes); break;
    case 7: damage(arrays.order, bytes); break;
    case 8: damage(arrays.columns, bytes); break;
    case 9: damage(arrays.bits, bytes); break;
    case 10: damage(arrays.positions, bytes); break;
    case 11:
    case 12: damage(arrays.indices, bytes); break;
    default: damage(arrays.indptr, bytes); break;
  }
}

}  // namespace
}  // namespace zs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace zs;
  using namespace zs::fuzz;
  Bytes bytes(data, size);
  Given given;
  given.format = static_cast<Format>(bytes.below(kFormats));
  given.type = static_cast<ValueType>(bytes.below(kTypes));
  if (given.format == Format::csc || given.format == Format::dia) return 0;  // never sources
  Arrays arrays;
  build(given, arrays, bytes);
  const int64_t times = bytes.take<uint8_t>() % 4;
  for (int64_t i = 0; i < times; ++i) damage(given, arrays, bytes);
  arrays.give(given);
  Source source;
  if (times == 0 && check_given(given, source) != nullptr) abort();
  try_all(given, bytes);
  return 0;
}
