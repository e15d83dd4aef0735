// The interface of a kernel, and the list of all. One kernel does Y = act(A X + bias) + residual for one storage format, one
// value type and one instruction set; X and Y are lane panels (zeroskip/types.h), Y may also be row-major.
#pragma once

#include <memory>
#include <vector>

#include "../runtime/pool.h"
#include "zeroskip/types.h"

namespace zs {

// A sparse or dense matrix as the caller holds it. Only the pointers of its format are set. Trusted: given.h checks.
// csc and dia are never sources: what cannot be read row by row is handed over as csr.
struct Source {
  Format format;
  ValueType type;
  int64_t rows, cols;
  const void* data;
  const int64_t* indptr = nullptr;   // csr, bsr; sell: slices
  const int32_t* indices = nullptr;  // csr, bsr: column (block column); ell, sell: column, -1 for padding
  const uint8_t* bits = nullptr;     // bitmask [rows][(cols + 7) / 8]; nm: position in the group; vnm: in the four columns
  int64_t r = 0, c = 0;              // bsr block; nm, vnm: n = r of m = c; ell: r is the width; sell: r rows a slice
  const int32_t* order = nullptr;    // sell: which row is stored where
  const uint8_t* four = nullptr;     // vnm: the columns kept, [rows / v][cols / c][4]
  int64_t v = 0;                     // vnm: rows of a block
  // i8, i4: value = (code - zero) * scale; [rows][ceil(cols / scale_group)], or [rows] where scale_group is 0.
  const uint16_t* scales = nullptr;  // float16
  const int8_t* zeros = nullptr;     // null: none
  int64_t scale_group = 0;
};

// What a kernel made of a matrix. Owned by whoever packed it.
struct Packed {
  int64_t rows = 0, cols = 0;
  const struct Kernel* kernel = nullptr;
  virtual int64_t bytes() const = 0;
  virtual ~Packed() = default;
};

// Y of a kernel: panels, or row-major with `stride` floats a row where stride > 0.
struct Output {
  float* data;
  int64_t stride = 0;
};

struct Kernel {
  const char* name;
  Format format;
  ValueType type;
  Isa isa;
  const char* doc;
  ValueType x;  // what x is rounded to: f32, as it comes; bf16; i8, codes with a scale a token, and sums in integers
  std::unique_ptr<Packed> (*pack)(const Source&);
  // x: lane panels [cols][lanes].
  void (*run)(const Packed&, const float* x, int64_t lanes, Output y, const Epilogue&, Pool&);
};

const std::vector<Kernel>& kernels();
const Kernel* find_kernel(const char* name);

// Row-major x[features][lanes] (or token-major x[lanes][features]) to panels and back, in parallel.
void to_panels(const float* x, int64_t features, int64_t lanes, bool token_major, float* panels, Pool& pool);
void from_panels(const float* panels, int64_t features, int64_t lanes, bool token_major, float* out, Pool& pool);

}  // namespace zs
