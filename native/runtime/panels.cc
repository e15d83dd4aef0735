// Layout changes at the edge of the lane-panel world: row-major or token-major to panels, and back.
#include <stdlib.h>
#include <string.h>

#include <algorithm>

#include "../kernels/kernel.h"

namespace zs {
namespace {

constexpr int64_t kFeatures = 64;  // features a task moves: 64 x 64 floats stay in L1

// One block of a panel.
struct Block {
  int64_t p, f0, f1, width;
};

Block block_of(int64_t task, int64_t features, int64_t lanes) {
  const int64_t per_panel = (features + kFeatures - 1) / kFeatures, p = task / per_panel, f0 = task % per_panel * kFeatures;
  return {p, f0, std::min(features, f0 + kFeatures), panel_width(lanes, p)};
}

int64_t task_count(int64_t features, int64_t lanes) { return panel_count(lanes) * ((features + kFeatures - 1) / kFeatures); }

// Vectors of the compiler: both architectures have them and a shuffle of two.
typedef float Four __attribute__((vector_size(16)));

Four load(const float* p) {
  Four v;
  memcpy(&v, p, sizeof v);
  return v;
}

// out[c][r] = in[r][c], four by four.
void transpose_strip(const float* in, int64_t in_stride, int64_t rows, int64_t cols, float* out, int64_t out_stride) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const float* from = in + r * in_stride;
    int64_t c = 0;
    for (; c + 4 <= cols; c += 4) {
      const Four a = load(from + c), b = load(from + in_stride + c);
      const Four d = load(from + 2 * in_stride + c), e = load(from + 3 * in_stride + c);
      const Four ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
      const Four de0 = __builtin_shufflevector(d, e, 0, 4, 1, 5), de1 = __builtin_shufflevector(d, e, 2, 6, 3, 7);
      const Four columns[4] = {__builtin_shufflevector(ab0, de0, 0, 1, 4, 5), __builtin_shufflevector(ab0, de0, 2, 3, 6, 7),
                               __builtin_shufflevector(ab1, de1, 0, 1, 4, 5), __builtin_shufflevector(ab1, de1, 2, 3, 6, 7)};
      for (int64_t i = 0; i < 4; ++i) memcpy(out + (c + i) * out_stride + r, &columns[i], sizeof(Four));
    }
    for (; c < cols; ++c) {
      for (int64_t i = 0; i < 4; ++i) out[c * out_stride + r + i] = from[i * in_stride + c];
    }
  }
  for (; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) out[c * out_stride + r] = in[r * in_stride + c];
  }
}

// Blocks of 64 rows, in strips of `strip` columns: rows a power of two apart share a set of L1, so of what the caller holds only
// a few lines may be in use at a time. Reading X, a strip is a line; writing Y, four columns.
void transpose(const float* in, int64_t in_stride, int64_t rows, int64_t cols, float* out, int64_t out_stride, int64_t strip) {
  for (int64_t r = 0; r < rows; r += 64) {
    const int64_t n = std::min<int64_t>(64, rows - r);
    for (int64_t c = 0; c < cols; c += strip) {
      transpose_strip(in + r * in_stride + c, in_stride, n, std::min(strip, cols - c), out + c * out_stride + r, out_stride);
    }
  }
}

// The processor does not foresee rows with a gap between them: prefetched, a call with few entries was 6 % faster (256 x 1024,
// 98 %, Zen 3). Copies with vectors of 32 bytes were no faster.
template <int64_t Cols> void copy_fixed(const float* in, int64_t in_stride, int64_t rows, float* out, int64_t out_stride) {
  constexpr int64_t kAheadRows = 8;
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = in + r * in_stride;
    for (int64_t t = 0; t < Cols && r + kAheadRows < rows; t += 16) __builtin_prefetch(from + kAheadRows * in_stride + t);
    memcpy(out + r * out_stride, from, Cols * sizeof(float));
  }
}

void to_panels(const XView& x, int64_t features, int64_t lanes, float* panels, Pool& pool) {
  pool.parallel(task_count(features, lanes), [&](int64_t task, int) {
    const Block b = block_of(task, features, lanes);
    copy_in(x, b.f0, b.f1, lanes, b.p, panels + b.p * kPanel * features + b.f0 * b.width);
  });
}

}  // namespace

void copy_rows(const float* in, int64_t in_stride, int64_t rows, int64_t cols, float* out, int64_t out_stride) {
  switch (cols) {  // the usual widths, without a call for each row
    case 64: return copy_fixed<64>(in, in_stride, rows, out, out_stride);
    case 32: return copy_fixed<32>(in, in_stride, rows, out, out_stride);
    case 16: return copy_fixed<16>(in, in_stride, rows, out, out_stride);
    case 8: return copy_fixed<8>(in, in_stride, rows, out, out_stride);
  }
  for (int64_t r = 0; r < rows; ++r) memcpy(out + r * out_stride, in + r * in_stride, cols * sizeof(float));
}

void copy_in(const XView& x, int64_t f0, int64_t f1, int64_t lanes, int64_t p, float* out) {
  const int64_t width = panel_width(lanes, p), valid = std::min(kPanel, lanes - p * kPanel), n = f1 - f0;
  if (x.token_major) {
    transpose(x.data + p * kPanel * x.stride + f0, x.stride, valid, n, out, width, 16);
  } else {
    copy_rows(x.data + f0 * x.stride + p * kPanel, x.stride, n, valid, out, width);
  }
  for (int64_t f = 0; valid < width && f < n; ++f) {
    for (int64_t t = valid; t < width; ++t) out[f * width + t] = 0;
  }
}

void copy_out(const float* panel, int64_t r0, int64_t r1, int64_t lanes, int64_t p, const Output& y) {
  const int64_t width = panel_width(lanes, p), valid = std::min(kPanel, lanes - p * kPanel), n = r1 - r0;
  if (y.token_major) {
    transpose(panel, width, n, valid, y.data + p * kPanel * y.stride + r0, y.stride, 4);
  } else {
    copy_rows(panel, width, n, valid, y.data + r0 * y.stride + p * kPanel, y.stride);
  }
}

// Kept per calling thread so that repeated calls do not allocate.
float* panel_buffer(int slot, int64_t floats) {
  struct Buffer {
    void* data = nullptr;
    int64_t floats = 0;
    ~Buffer() { free(data); }
  };
  thread_local Buffer buffers[2];
  Buffer& b = buffers[slot];
  if (!b.data || b.floats < floats) {
    free(b.data);
    const int64_t bytes = (std::max<int64_t>(1, floats) * 4 + 4095) / 4096 * 4096;
    b.data = aligned_alloc(64, bytes);
    b.floats = b.data ? bytes / 4 : 0;
  }
  return static_cast<float*>(b.data);
}

XView in_panels(const XView& x, int64_t features, int64_t lanes, Pool& pool) {
  float* panels = panel_buffer(0, features * padded_lanes(lanes));
  if (!panels) return x;
  to_panels(x, features, lanes, panels, pool);
  return XView(panels);
}

void to_panels(const float* x, int64_t features, int64_t lanes, bool token_major, float* panels, Pool& pool) {
  to_panels(XView(x, token_major ? features : lanes, token_major), features, lanes, panels, pool);
}

void from_panels(const float* panels, int64_t features, int64_t lanes, bool token_major, float* out, Pool& pool) {
  const Output to{out, token_major ? features : lanes, token_major};
  pool.parallel(task_count(features, lanes), [&](int64_t task, int) {
    const Block b = block_of(task, features, lanes);
    copy_out(panels + b.p * kPanel * features + b.f0 * b.width, b.f0, b.f1, lanes, b.p, to);
  });
}

}  // namespace zs
