#include "reference.h"

#include <stdlib.h>

#include <algorithm>

namespace zs::test {
namespace {

// A matrix entry of either sign, away from zero so that a dropped one is seen.
float entry(Random& random) {
  const float v = random.symmetric();
  return v < 0 ? v - 0.25f : v + 0.25f;
}

}  // namespace

Floats::Floats(int64_t count, float fill, int64_t offset) : size_(count) {
  const size_t bytes = static_cast<size_t>(count + offset) * sizeof(float);
  void* block = nullptr;
  if (posix_memalign(&block, 64, bytes ? bytes : 1) != 0) abort();
  block_ = block;
  data_ = static_cast<float*>(block) + offset;
  for (int64_t i = 0; i < count; ++i) data_[i] = fill;
}

Floats::~Floats() { free(block_); }

double activate(double v, Activation activation) {
  switch (activation) {
    case Activation::none: return v;
    case Activation::relu: return v < 0 ? 0 : v;
    case Activation::gelu: return 0.5 * v * (1 + erf(v * 0.70710678118654752440));
    case Activation::gelu_tanh: return 0.5 * v * (1 + tanh(0.79788456080286535588 * (v + 0.044715 * v * v * v)));
    case Activation::silu: return v / (1 + exp(-v));
    case Activation::tanh: return tanh(v);
  }
  return v;
}

Matrix random_matrix(int64_t rows, int64_t cols, double density, uint64_t seed) {
  Matrix m{rows, cols, std::vector<float>(rows * cols), std::vector<uint8_t>(rows * cols), ""};
  Random random(seed);
  for (int64_t i = 0; i < rows * cols; ++i) {
    if (random.uniform() >= density) continue;
    m.values[i] = entry(random);
    m.stored[i] = 1;
  }
  m.what = std::to_string(rows) + "x" + std::to_string(cols) + " at density " + std::to_string(density);
  return m;
}

Matrix random_blocks(int64_t rows, int64_t cols, int64_t r, int64_t c, double density, uint64_t seed) {
  Matrix m{rows, cols, std::vector<float>(rows * cols), std::vector<uint8_t>(rows * cols), ""};
  Random random(seed);
  for (int64_t i = 0; i < rows / r; ++i) {
    for (int64_t j = 0; j < cols / c; ++j) {
      if (random.uniform() >= density) continue;
      for (int64_t e = 0; e < r * c; ++e) {
        const int64_t at = (i * r + e / c) * cols + j * c + e % c;
        m.values[at] = entry(random);
        m.stored[at] = 1;
      }
    }
  }
  m.what = std::to_string(rows) + "x" + std::to_string(cols) + " in blocks " + std::to_string(r) + "x" + std::to_string(c);
  return m;
}

Matrix random_nm(int64_t rows, int64_t cols, int64_t n, int64_t m, uint64_t seed) {
  Matrix out{rows, cols, std::vector<float>(rows * cols), std::vector<uint8_t>(rows * cols), ""};
  Random random(seed);
  for (int64_t group = 0; group < rows * cols / m; ++group) {
    for (int64_t left = n, i = 0; i < m; ++i) {  // each position with the chance that leaves exactly n
      if (random.below(m - i) >= left) continue;
      out.values[group * m + i] = entry(random);
      out.stored[group * m + i] = 1;
      --left;
    }
  }
  out.what = std::to_string(rows) + "x" + std::to_string(cols) + " " + std::to_string(n) + ":" + std::to_string(m);
  return out;
}

Matrix quantised(Matrix m, ValueType type, int64_t group, bool zeros, uint64_t seed) {
  Random random(seed);
  const int64_t groups = group ? (m.cols + group - 1) / group : 1, most = type == ValueType::i4 ? 7 : 127;
  m.group = group;
  m.codes.resize(m.rows * m.cols);
  for (int64_t i = 0; i < m.rows * groups; ++i) {
    m.scales.push_back(float_to_f16(0.001f + 0.01f * static_cast<float>(random.uniform())));
    if (zeros) m.zeros.push_back(static_cast<int8_t>(random.below(2 * most + 1) - most));
  }
  for (int64_t i = 0; i < m.rows * m.cols; ++i) {
    if (!m.stored[i]) continue;
    int64_t code = random.below(2 * most + 1) - most;
    if (random.below(4) == 0) code = random.below(2) ? most : -most;  // the ends, where sums are largest
    if (type == ValueType::i4 && random.below(16) == 0) code = -8;
    m.codes[i] = static_cast<int8_t>(code);
    const int64_t at = i / m.cols * groups + (group ? i % m.cols / group : 0);
    m.values[i] = static_cast<float>(code - (zeros ? m.zeros[at] : 0)) * f16_to_float(m.scales[at]);
  }
  m.what += ", scales for " + std::to_string(group) + " columns" + (zeros ? " and zero points" : "");
  return m;
}

float rounded(float value, ValueType type) {
  if (type == ValueType::bf16) return bf16_to_float(float_to_bf16(value));
  if (type == ValueType::f16) return f16_to_float(float_to_f16(value));
  return value;
}

const char* format_name(Format format) {
  constexpr const char* names[] = {"csr", "bitmask", "dense", "bsr", "nm", "ell", "sell", "vnm", "csc", "dia"};
  return names[static_cast<int>(format)];
}

const char* type_name(ValueType type) {
  constexpr const char* names[] = {"f32", "bf16", "f16", "i8", "i4"};
  return names[static_cast<int>(type)];
}

namespace {

// sell in slices of `height` rows, or ell, slices of one row that are all of one width: entries slot by slot, then the
// column -1 and the value 0.
template <class Push> void hold_slots(Held& held, const Matrix& m, bool ell, int64_t height, Push&& push) {
  std::vector<std::vector<int64_t>> cols(m.rows);
  size_t widest = 0;
  for (int64_t i = 0; i < m.rows; ++i) {
    held.order.push_back(static_cast<int32_t>(ell ? i : m.rows - 1 - i));
    for (int64_t col = 0; col < m.cols; ++col) {
      if (m.has(held.order[i], col)) cols[i].push_back(col);
    }
    widest = std::max(widest, cols[i].size());
  }
  held.indptr.push_back(0);
  for (int64_t begin = 0; begin < m.rows; begin += height) {
    const int64_t end = std::min(begin + height, m.rows);
    size_t width = ell ? widest : 0;
    for (int64_t i = begin; i < end; ++i) width = std::max(width, cols[i].size());
    for (size_t slot = 0; slot < width; ++slot) {
      for (int64_t i = begin; i < end; ++i) {
        const bool padding = slot >= cols[i].size();
        held.indices.push_back(padding ? -1 : static_cast<int32_t>(cols[i][slot]));
        push(padding ? -1 : held.order[i] * m.cols + cols[i][slot]);
      }
    }
    held.indptr.push_back(static_cast<int64_t>(held.indices.size()));
  }
}

// vnm with blocks of one row: the columns of each group that are stored, and the lowest of the others up to four.
void hold_four(Held& held, const Matrix& m, int64_t width) {
  for (int64_t group = 0; group < m.rows * m.cols / width; ++group) {
    const uint8_t* stored = m.stored.data() + group * width;
    int64_t missing = 4 - std::count(stored, stored + width, 1), slot = 0;
    for (int64_t i = 0; i < width; ++i) {
      if (!stored[i] && missing-- <= 0) continue;
      if (stored[i]) held.bits.push_back(static_cast<uint8_t>(slot));
      held.four.push_back(static_cast<uint8_t>(i));
      ++slot;
    }
  }
}

}  // namespace

Held hold(const Matrix& m, Format format, ValueType type, int64_t r, int64_t c) {
  Held held;
  const auto push_place = [&](int64_t place) {  // -1: padding
    const float v = place < 0 ? 0.0f : m.values[place];
    if (is_code(type)) held.codes.push_back(place < 0 ? int8_t{0} : m.codes[place]);
    if (type == ValueType::f32) held.f32.push_back(v);
    if (type == ValueType::bf16) held.f16.push_back(float_to_bf16(v));
    if (type == ValueType::f16) held.f16.push_back(float_to_f16(v));
  };
  const auto push = [&](int64_t row, int64_t col) { push_place(row * m.cols + col); };
  const bool slots = format == Format::ell || format == Format::sell;
  if (slots) hold_slots(held, m, format == Format::ell, format == Format::ell ? 1 : r, push_place);
  if (format == Format::vnm) hold_four(held, m, c);
  const int64_t mask_bytes = (m.cols + 7) / 8;
  if (format == Format::bitmask) held.bits.assign(m.rows * mask_bytes, 0);
  if (format == Format::csr || format == Format::bsr) held.indptr.push_back(0);
  if (format == Format::bsr) {
    for (int64_t i = 0; i < m.rows / r; ++i) {
      for (int64_t j = 0; j < m.cols / c; ++j) {
        if (!m.has(i * r, j * c)) continue;
        held.indices.push_back(static_cast<int32_t>(j));
        for (int64_t e = 0; e < r * c; ++e) push(i * r + e / c, j * c + e % c);
      }
      held.indptr.push_back(static_cast<int64_t>(held.indices.size()));
    }
  } else if (!slots) {
    for (int64_t row = 0; row < m.rows; ++row) {
      for (int64_t col = 0; col < m.cols; ++col) {
        if (format != Format::dense && !m.has(row, col)) continue;
        push(row, col);
        if (format == Format::csr) held.indices.push_back(static_cast<int32_t>(col));
        if (format == Format::bitmask) held.bits[row * mask_bytes + col / 8] |= static_cast<uint8_t>(1 << (col % 8));
        if (format == Format::nm) held.bits.push_back(static_cast<uint8_t>(col % c));
      }
      if (format == Format::csr) held.indptr.push_back(static_cast<int64_t>(held.indices.size()));
    }
  }
  Source& s = held.source;
  s.format = format;
  s.type = type;
  s.rows = m.rows;
  s.cols = m.cols;
  s.r = format == Format::ell ? static_cast<int64_t>(held.indices.size()) / m.rows : r;
  s.c = c;
  s.data = type == ValueType::f32 ? static_cast<const void*>(held.f32.data())
           : is_code(type)        ? static_cast<const void*>(held.codes.data())
                                  : held.f16.data();
  s.scales = is_code(type) ? m.scales.data() : nullptr;
  s.zeros = is_code(type) && !m.zeros.empty() ? m.zeros.data() : nullptr;
  s.scale_group = m.group;
  s.indptr = held.indptr.data();
  s.indices = held.indices.data();
  s.bits = held.bits.data();
  s.order = held.order.data();
  s.four = held.four.data();
  s.v = 1;
  return held;
}

Inputs random_inputs(const Matrix& matrix, int64_t lanes, uint64_t seed) {
  Inputs in;
  Random random(seed);
  in.lanes = lanes;
  in.x.resize(matrix.cols * lanes);
  for (float& v : in.x) v = random.symmetric();
  return in;
}

// The bound of CONTRIBUTING.md; src/zeroskip/testing/bounds.py derives it. A bias is one more term of the row.
Reference reference(const Matrix& a, ValueType type, bool dense, const Inputs& in) {
  Reference out{a.rows, in.lanes, std::vector<double>(a.rows * in.lanes), std::vector<double>(a.rows * in.lanes)};
  std::vector<double> sum(in.lanes), size(in.lanes);
  for (int64_t r = 0; r < a.rows; ++r) {
    const double bias = in.bias.empty() ? 0.0 : in.bias[r];
    std::fill(sum.begin(), sum.end(), bias);
    std::fill(size.begin(), size.end(), fabs(bias));
    int64_t entries = (in.bias.empty() ? 0 : 1) + (a.codes.empty() ? 0 : 1);  // a scale may come behind the sum
    for (int64_t c = 0; c < a.cols; ++c) {
      if (!dense && !a.has(r, c)) continue;
      ++entries;
      const double v = rounded(a.at(r, c), type);
      const float* x = in.x.data() + c * in.lanes;
      for (int64_t t = 0; t < in.lanes; ++t) {
        sum[t] += v * x[t];
        size[t] += fabs(v * x[t]);
      }
    }
    for (int64_t t = 0; t < in.lanes; ++t) {
      const bool activated = in.activation != Activation::none;
      double y = activate(sum[t], in.activation);
      double bound = static_cast<double>(entries + 1) * kU * size[t] * (activated ? 1.13 : 1.0);
      if (in.activation == Activation::tanh) bound += 8 * kU * fabs(y);
      if (activated && in.activation != Activation::tanh && in.activation != Activation::relu) bound += 8 * kU * fabs(sum[t]);
      if (!in.residual.empty()) {
        bound += kU * fabs(y);
        y += in.residual[r * in.lanes + t];
      }
      out.value[r * in.lanes + t] = y;
      out.bound[r * in.lanes + t] = bound + kU * fabs(y);
    }
  }
  return out;
}

}  // namespace zs::test
