// Y = act(A X + bias) + residual without vector instructions: the variant that runs everywhere, and the plainest reading of
// the layout. One CSR copy of the matrix, values in the kernel's type; every format is read into it, dense too, which costs
// four bytes more an entry. Each row is applied to a panel of X with one accumulator a lane. Built without auto-vectorisation.
#include <math.h>
#include <string.h>

#include <algorithm>

#include "blocks.h"
#include "source.h"
#include "spmm.h"

namespace zs {
namespace {

struct ScalarCsr : Packed {
  ValueType type = ValueType::f32;
  std::vector<int64_t> indptr;
  std::vector<int32_t> indices;
  Buffer values;      // codes of 4 bits two a byte
  CodeScales scales;  // i8, i4

  int64_t bytes() const override {
    return static_cast<int64_t>(indptr.size() * 8 + indices.size() * 4) + values.bytes() + scales.bytes();
  }
};

float number_at(const ScalarCsr& a, int64_t row, int64_t i) {
  if (!is_code(a.type)) return value_at(a.values.data(), a.type, i);
  const int8_t byte = reinterpret_cast<const int8_t*>(a.values.data())[a.type == ValueType::i4 ? i / 2 : i];
  const int code = a.type == ValueType::i8 ? byte : (((byte >> i % 2 * 4) & 15) ^ 8) - 8;
  const int64_t index = a.scales.group ? a.indices[i] / a.scales.group : 0;
  const int8_t* zero = a.scales.zero(row, index);
  return static_cast<float>(code - (zero ? *zero : 0)) * f16_to_float(*a.scales.scale(row, index));
}

float activate(float v, Activation activation) {
  switch (activation) {
    case Activation::none: return v;
    case Activation::relu: return v < 0 ? 0 : v;  // NaN stays NaN
    case Activation::gelu: return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
    case Activation::gelu_tanh: return 0.5f * v * (1.0f + tanhf(0.79788456080286536f * (v + 0.044715f * v * v * v)));
    case Activation::silu: return v / (1.0f + expf(-v));
    case Activation::tanh: return tanhf(v);
  }
  return v;
}

}  // namespace

void finish_scalar(float* y, int64_t ldy, int64_t rows, int64_t width, const float* bias, Activation activation,
                   const float* residual) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t t = 0; t < width; ++t) {
      const float v = activate(y[r * ldy + t] + (bias ? bias[r] : 0.0f), activation);
      y[r * ldy + t] = residual ? v + residual[r * ldy + t] : v;
    }
  }
}

std::unique_ptr<Packed> pack_scalar(const Source& source, Format, ValueType type, Isa) {
  if (is_code(type) && source.type != type) return nullptr;
  auto packed = std::make_unique<ScalarCsr>();
  packed->type = type;
  if (is_code(type)) packed->scales = CodeScales(source);
  const RowReader reader(source);
  int64_t entries = 0;
  for (int64_t r = 0; r < source.rows; ++r) entries += reader.count(r);
  packed->values = Buffer(stored_bytes(type, entries));
  if (type == ValueType::i4) memset(packed->values.data(), 0, packed->values.bytes());
  packed->indices.reserve(entries);
  std::vector<int32_t> cols;
  std::vector<float> values;
  packed->indptr.assign(1, 0);
  for (int64_t r = 0; r < source.rows; ++r) {
    const int64_t n = reader.read(r, cols, values);
    packed->indices.insert(packed->indices.end(), cols.begin(), cols.begin() + n);
    store_values(packed->values.data(), type, packed->indptr.back(), values.data(), n);
    packed->indptr.push_back(packed->indptr.back() + n);
  }
  return packed;
}

void run_scalar(const Packed& base, const float* x, int64_t lanes, Output y, const Epilogue& epilogue, Pool& pool) {
  const auto& a = static_cast<const ScalarCsr&>(base);
  constexpr int64_t kRows = 32;
  const int64_t row_blocks = (a.rows + kRows - 1) / kRows;
  pool.parallel(row_blocks * panel_count(lanes), [&](int64_t task, int) {
    const int64_t p = task / row_blocks;
    const int64_t width = panel_width(lanes, p);
    const float* xp = x + p * kPanel * a.cols;
    const int64_t end = std::min(a.rows, (task % row_blocks + 1) * kRows);
    float sum[kPanel];
    for (int64_t r = task % row_blocks * kRows; r < end; ++r) {
      memset(sum, 0, sizeof sum);
      for (int64_t i = a.indptr[r]; i < a.indptr[r + 1]; ++i) {
        const float v = number_at(a, r, i);
        const float* row = xp + a.indices[i] * width;
        for (int64_t t = 0; t < width; ++t) sum[t] += v * row[t];
      }
      const int64_t at = y.stride ? r * y.stride + p * kPanel : p * kPanel * a.rows + r * width;
      memcpy(y.data + at, sum, width * sizeof(float));
      finish_scalar(y.data + at, width, 1, width, epilogue.bias ? epilogue.bias + r : nullptr, epilogue.activation,
                    epilogue.residual ? epilogue.residual + at : nullptr);
    }
  });
}

}  // namespace zs
