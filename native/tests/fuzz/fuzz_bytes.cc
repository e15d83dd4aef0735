// Every size, parameter and array straight from the bytes: mostly refused, and what is read on the way must be there.
#include "hostile.h"

namespace zs::fuzz {
namespace {

// Of any length up to `most`; as elements of one byte, which keeps them small enough to mean something, or of all.
template <class T> void fill(std::vector<T>& out, Bytes& bytes, int64_t most) {
  const uint8_t kind = bytes.take<uint8_t>();
  out.resize(bytes.below(most + 1));
  for (T& v : out) v = kind & 1 ? bytes.take<T>() : static_cast<T>(bytes.take<int8_t>());
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
  given.rows = bytes.size(9);
  given.cols = bytes.size(40);
  for (int64_t* parameter : {&given.r, &given.c, &given.v, &given.n, &given.m, &given.width}) *parameter = bytes.size(18);
  given.group = bytes.size(8);
  if (given.group >= 0 && given.group < 5) given.group *= 32;  // a sound one now and then
  Arrays arrays;
  arrays.missing = bytes.take<uint8_t>() & 1 ? bytes.take<uint16_t>() : 0;
  fill(arrays.indptr, bytes, 12);
  fill(arrays.indices, bytes, 48);
  fill(arrays.positions, bytes, 96);
  fill(arrays.bits, bytes, 48);
  fill(arrays.columns, bytes, 48);
  fill(arrays.order, bytes, 9);
  fill(arrays.scales, bytes, 24);
  fill(arrays.zeros, bytes, 24);
  fill(arrays.data, bytes, 512);
  arrays.give(given);
  try_all(given, bytes);
  return 0;
}
