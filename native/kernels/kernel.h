// The interface of a kernel, and the list of all. One kernel does Y = act(A X + bias) + residual for one storage format, one
// value type and one instruction set; X and Y are lane panels (zeroskip/types.h), Y may also be row-major, and some kernels
// take any caller's arrays as they are.
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

// X of a kernel: panels, or what a caller holds, `stride` floats a row where stride > 0: row-major [cols][lanes], or
// token-major [lanes][cols].
struct XView {
  const float* data;
  int64_t stride = 0;
  bool token_major = false;

  XView(const float* panels) : data(panels) {}  // NOLINT: panels are what most callers have
  XView(const float* data_, int64_t stride_, bool token_major_) : data(data_), stride(stride_), token_major(token_major_) {}
};

// Y of a kernel: panels, or row-major with `stride` floats a row where stride > 0; a kernel that takes any XView writes no
// padding then, and takes token-major [lanes][rows] as well.
struct Output {
  float* data;
  int64_t stride = 0;
  bool token_major = false;
};

// How a kernel is called: some read panels only.
class Runner {
 public:
  using Panels = void (*)(const Packed&, const float* x, int64_t lanes, Output y, const Epilogue&, Pool&);
  using Any = void (*)(const Packed&, const XView& x, int64_t lanes, Output y, const Epilogue&, Pool&);

  Runner(Panels panels) : panels_(panels) {}  // NOLINT: the table holds functions
  Runner(Any any) : any_(any) {}              // NOLINT
  bool any_layout() const { return any_ != nullptr; }
  void operator()(const Packed& packed, const XView& x, int64_t lanes, Output y, const Epilogue& e, Pool& pool) const {
    if (any_) return any_(packed, x, lanes, y, e, pool);
    panels_(packed, x.data, lanes, y, e, pool);
  }

 private:
  Panels panels_ = nullptr;
  Any any_ = nullptr;
};

struct Kernel {
  const char* name;
  Format format;
  ValueType type;
  Isa isa;
  const char* doc;
  XType x;
  std::unique_ptr<Packed> (*pack)(const Source&);
  Runner run;
};

const std::vector<Kernel>& kernels();
const Kernel* find_kernel(const char* name);

// Row-major x[features][lanes] (or token-major x[lanes][features]) to panels and back, in parallel.
void to_panels(const float* x, int64_t features, int64_t lanes, bool token_major, float* panels, Pool& pool);
void from_panels(const float* panels, int64_t features, int64_t lanes, bool token_major, float* out, Pool& pool);
// The same in memory that the calling thread keeps until its next call; x itself where there is none.
XView in_panels(const XView& x, int64_t features, int64_t lanes, Pool& pool);
float* panel_buffer(int slot, int64_t floats);  // two a thread; null where there is no memory
// Features f0 to f1 of panel p, to out[f1 - f0][width]; padding becomes zero. And rows r0 to r1 of Y from such a panel.
void copy_in(const XView& x, int64_t f0, int64_t f1, int64_t lanes, int64_t p, float* out);
void copy_out(const float* panel, int64_t r0, int64_t r1, int64_t lanes, int64_t p, const Output& y);
// `cols` floats of rows that lie in_stride apart, to rows that lie out_stride apart.
void copy_rows(const float* in, int64_t in_stride, int64_t rows, int64_t cols, float* out, int64_t out_stride);

}  // namespace zs
