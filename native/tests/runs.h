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

// How X and Y lie. `padded`: X in panels, Y row-major with room for the padding of its last panel. `rows` and `tokens`: both
// as a caller holds them, for kernels that take any layout; X ends with its last value, and nothing but Y is written.
enum class Layout { panels, padded, rows, tokens };

struct Result {
  std::vector<float> y;  // [rows][lanes]
  bool inside = true;    // nothing was written beyond the output
};

// X of a call, and what holds it. Rows, or tokens, are a few floats further apart than they are long.
struct Given {
  std::unique_ptr<Floats> floats;
  XView x;
};

inline Given give_x(const Inputs& in, int64_t cols, Layout layout) {
  const int64_t lanes = in.lanes;
  if (layout == Layout::panels || layout == Layout::padded || lanes == 1) {
    auto panels = std::make_unique<Floats>(cols * padded_lanes(lanes), 0.0f, lanes == 1 ? kMisaligned : 0);
    to_panels(in.x.data(), cols, lanes, false, panels->data(), Pool::get());
    const float* data = panels->data();
    return {std::move(panels), XView(data)};
  }
  const bool tokens = layout == Layout::tokens;
  const int64_t outer = tokens ? lanes : cols, inner = tokens ? cols : lanes, stride = inner + 3;
  auto floats = std::make_unique<Floats>(outer > 0 ? outer * stride - 3 : 0, kGuard, kMisaligned);
  for (int64_t k = 0; k < cols; ++k) {
    for (int64_t t = 0; t < lanes; ++t) (*floats)[tokens ? t * stride + k : k * stride + t] = in.x[k * lanes + t];
  }
  const float* data = floats->data();
  return {std::move(floats), XView(data, stride, tokens)};
}

inline Result run(const Packed& packed, const Inputs& in, Layout layout) {
  const int64_t rows = packed.rows, lanes = in.lanes;
  const bool tokens = layout == Layout::tokens, flat = layout != Layout::panels, own = flat && layout != Layout::padded;
  const int64_t inner = tokens ? rows : own ? lanes : padded_lanes(lanes);  // what may be written of a row, or token
  const int64_t stride = flat ? inner + 3 : 0, count = tokens ? lanes : rows;
  const Given given = give_x(in, packed.cols, layout);
  Floats y(flat ? count * stride : rows * padded_lanes(lanes), NAN, flat || lanes == 1 ? kMisaligned : 0);
  Floats residual(in.residual.empty() ? 0 : y.size(), 0, flat || lanes == 1 ? kMisaligned : 0);
  for (int64_t i = 0; flat && i < count; ++i) {
    for (int64_t t = inner; t < stride; ++t) y[i * stride + t] = kGuard;
  }
  const auto place = [&](int64_t r, int64_t t) {
    if (flat) return tokens ? t * stride + r : r * stride + t;
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
  packed.kernel->run(packed, given.x, lanes, Output{y.data(), stride, tokens}, epilogue, Pool::get());
  Result out;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t t = 0; t < lanes; ++t) out.y.push_back(y[place(r, t)]);
  }
  for (int64_t i = 0; flat && i < count; ++i) {
    for (int64_t t = inner; t < stride; ++t) out.inside = out.inside && y[i * stride + t] == kGuard;
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
