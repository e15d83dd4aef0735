// Running a kernel on what a test made, and saying where the result is wrong.
#pragma once

#include <stdio.h>
#include <string.h>

#include <memory>
#include <string>
#include <vector>

#include "reference.h"

namespace zs::test {

inline std::unique_ptr<Packed> packed_by(const Kernel& kernel, const Held& held) {
  std::unique_ptr<Packed> packed = kernel.pack(held.source);
  if (!packed) return nullptr;
  packed->rows = held.source.rows;
  packed->cols = held.source.cols;
  packed->kernel = &kernel;
  return packed;
}

// Where a row-major caller's array begins is anywhere: one lane, and row-major output, are used as they come.
constexpr int64_t kMisaligned = 1;
constexpr float kGuard = 12345.0f;

struct Result {
  std::vector<float> y;  // [rows][lanes]
  bool inside = true;    // nothing was written beyond the output
};

inline Result run(const Packed& packed, const Inputs& in, bool row_major) {
  const int64_t rows = packed.rows, lanes = in.lanes, padded = padded_lanes(lanes);
  Pool& pool = Pool::get();
  Floats x(packed.cols * padded, 0, lanes == 1 ? kMisaligned : 0);
  to_panels(in.x.data(), packed.cols, lanes, false, x.data(), pool);
  // Row-major output has room for the padding of its last panel, then columns that are not the kernel's.
  const int64_t stride = row_major ? padded + 3 : 0;
  Floats y(row_major ? rows * stride : rows * padded, NAN, row_major || lanes == 1 ? kMisaligned : 0);
  Floats residual(in.residual.empty() ? 0 : y.size(), 0, row_major || lanes == 1 ? kMisaligned : 0);
  for (int64_t r = 0; row_major && r < rows; ++r) {
    for (int64_t t = padded; t < stride; ++t) y[r * stride + t] = kGuard;
  }
  const auto place = [&](int64_t r, int64_t t) {
    if (row_major) return r * stride + t;
    const int64_t p = t / kPanel;
    return p * kPanel * rows + r * panel_width(lanes, p) + t % kPanel;
  };
  for (int64_t r = 0; !in.residual.empty() && r < rows; ++r) {
    for (int64_t t = 0; t < lanes; ++t) residual[place(r, t)] = in.residual[r * lanes + t];
  }
  Epilogue epilogue;
  epilogue.bias = in.bias.empty() ? nullptr : in.bias.data();
  epilogue.activation = in.activation;
  epilogue.residual = in.residual.empty() ? nullptr : residual.data();
  packed.kernel->run(packed, x.data(), lanes, Output{y.data(), stride}, epilogue, pool);
  Result out;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t t = 0; t < lanes; ++t) out.y.push_back(y[place(r, t)]);
    for (int64_t t = padded; t < stride; ++t) out.inside = out.inside && y[r * stride + t] == kGuard;
  }
  return out;
}

inline std::string difference(const Result& got, const Reference& want) {
  if (!got.inside) return "writes beyond the lanes of a row";
  for (size_t i = 0; i < want.value.size(); ++i) {
    const double y = got.y[i], v = want.value[i];
    if (isnan(v) ? isnan(y) : isinf(v) ? y == v : fabs(y - v) <= want.bound[i]) continue;
    char text[160];
    snprintf(text, sizeof text, "row %lld lane %lld is %.9g, not %.9g (bound %.3g)",
             static_cast<long long>(static_cast<int64_t>(i) / want.lanes),
             static_cast<long long>(static_cast<int64_t>(i) % want.lanes), y, v, want.bound[i]);
    return text;
  }
  return "";
}

}  // namespace zs::test
