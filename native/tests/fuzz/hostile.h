// What the fuzz targets share: bytes that become choices, arrays that end where they say, and what every accepted matrix has to
// survive.
#pragma once

#include <stddef.h>
#include <string.h>

#include <utility>
#include <vector>

#include "../../kernels/given.h"

namespace zs::fuzz {

// The fuzzer's bytes as choices; zeros once they are used up.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), left_(size) {}
  template <class T> T take() {
    T value{};
    const size_t size = left_ < sizeof(T) ? left_ : sizeof(T);
    memcpy(&value, data_, size);
    data_ += size;
    left_ -= size;
    return value;
  }
  int64_t below(int64_t n) { return take<uint16_t>() % n; }
  // Mostly small; now and then a size that overflows what is computed from it.
  int64_t size(int64_t usual) {
    const uint8_t kind = take<uint8_t>();
    return kind < 240 ? kind % usual : take<int64_t>();
  }
  size_t left() const { return left_; }

 private:
  const uint8_t* data_;
  size_t left_;
};

// The arrays of a Given, each a block of its own: an address sanitizer sees the first element read beyond.
struct Arrays {
  std::vector<uint8_t> data;  // bytes of the value type
  std::vector<int64_t> indptr;
  std::vector<int32_t> indices, order;
  std::vector<uint8_t> positions, bits, columns;
  std::vector<uint16_t> scales;
  std::vector<int8_t> zeros;
  uint32_t missing = 0;  // a bit an array, in the order above

  // Points `given` at exact copies, which live as long as this does.
  void give(Given& given);

 private:
  template <class T, class U> void lay(const std::vector<T>& from, GivenArray<U>& to, int64_t elements);
  std::vector<std::vector<char>> blocks_;
  uint32_t at_ = 0;
};

// Checks the matrix; one that is accepted is packed by kernels that run here and multiplied, at one lane or several. Nothing
// is compared: a crash or a report of a sanitizer is the finding.
void try_all(const Given& given, Bytes& bytes);

constexpr int64_t kFormats = 10, kTypes = 5;

}  // namespace zs::fuzz
