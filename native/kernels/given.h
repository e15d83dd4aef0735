// A matrix as a caller hands it over, trusted in nothing, and the check that makes it a Source, which kernels trust. Knows no
// Python, so that a fuzzer can call it.
#pragma once

#include "kernel.h"

namespace zs {

// An array and how many elements it has; a size below 0: there is none.
template <class T> struct GivenArray {
  const T* data = nullptr;
  int64_t size = -1;
};

// Array names are those of docs/formats.md. Parameters that a format does not have are not looked at.
struct Given {
  Format format = Format::csr;
  ValueType type = ValueType::f32;
  int64_t rows = 0, cols = 0;
  GivenArray<void> data;             // elements of `type`
  GivenArray<int64_t> indptr;        // csr, bsr, sell
  GivenArray<int32_t> indices;       // csr, bsr, ell, sell
  GivenArray<uint8_t> positions;     // nm, vnm: their `indices`
  GivenArray<uint8_t> bits;          // bitmask
  GivenArray<uint8_t> columns;       // vnm
  GivenArray<int32_t> order;         // sell: its `rows`
  GivenArray<uint16_t> scales;       // int8, int4
  GivenArray<int8_t> zeros;          // int8, int4: not there where symmetric
  int64_t r = 0, c = 0;              // bsr: the block; sell: c rows a slice
  int64_t v = 0, n = 0, m = 0;       // nm, vnm
  int64_t width = 0;                 // ell
  int64_t group = 0;                 // int8, int4
};

// Null, and `source` filled with pointers into the given arrays; else what is wrong, and `source` is not to be used. Reads no
// element that the sizes do not promise, and costs one pass over what says where values belong.
const char* check_given(const Given& given, Source& source);

}  // namespace zs
