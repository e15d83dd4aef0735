// Reads a Source row by row, whatever its format: what packing is made of.
#pragma once

#include <vector>

#include "../../runtime/numeric.h"
#include "../kernel.h"

namespace zs {

static inline float value_at(const void* data, ValueType type, int64_t i) {
  switch (type) {
    case ValueType::f32: return static_cast<const float*>(data)[i];
    case ValueType::bf16: return bf16_to_float(static_cast<const uint16_t*>(data)[i]);
    case ValueType::f16: return f16_to_float(static_cast<const uint16_t*>(data)[i]);
  }
  return 0;
}

// The stored entries of one row at a time, columns ascending. `dense` rows give every column, zeros as well.
class RowReader {
 public:
  explicit RowReader(const Source& source) : s_(source) {
    if (s_.format == Format::bitmask) {
      const int64_t bytes = (s_.cols + 7) / 8;
      start_.resize(s_.rows + 1, 0);
      for (int64_t r = 0; r < s_.rows; ++r) {
        int64_t count = 0;
        for (int64_t b = 0; b < bytes; ++b) count += __builtin_popcount(s_.bits[r * bytes + b]);
        start_[r + 1] = start_[r] + count;
      }
    }
  }

  int64_t count(int64_t row) const {
    switch (s_.format) {
      case Format::csr: return s_.indptr[row + 1] - s_.indptr[row];
      case Format::bitmask: return start_[row + 1] - start_[row];
      case Format::dense: return s_.cols;
      case Format::bsr: return (s_.indptr[row / s_.r + 1] - s_.indptr[row / s_.r]) * s_.c;
      case Format::nm: return s_.cols / s_.c * s_.r;
    }
    return 0;
  }

  // Fills cols and values with the row's entries and returns how many there are.
  int64_t read(int64_t row, std::vector<int32_t>& cols, std::vector<float>& values) const {
    const int64_t n = count(row);
    cols.resize(n);
    values.resize(n);
    int64_t at = 0;
    switch (s_.format) {
      case Format::csr:
        for (int64_t i = 0; i < n; ++i) {
          cols[i] = s_.indices[s_.indptr[row] + i];
          values[i] = value_at(s_.data, s_.type, s_.indptr[row] + i);
        }
        break;
      case Format::bitmask: {
        const uint8_t* bits = s_.bits + row * ((s_.cols + 7) / 8);
        for (int64_t c = 0; c < s_.cols; ++c) {
          if (!(bits[c >> 3] >> (c & 7) & 1)) continue;
          cols[at] = static_cast<int32_t>(c);
          values[at] = value_at(s_.data, s_.type, start_[row] + at);
          ++at;
        }
        break;
      }
      case Format::dense:
        for (int64_t c = 0; c < n; ++c) {
          cols[c] = static_cast<int32_t>(c);
          values[c] = value_at(s_.data, s_.type, row * s_.cols + c);
        }
        break;
      case Format::bsr: {
        const int64_t block_row = row / s_.r;
        for (int64_t b = s_.indptr[block_row]; b < s_.indptr[block_row + 1]; ++b) {
          for (int64_t j = 0; j < s_.c; ++j, ++at) {
            cols[at] = static_cast<int32_t>(s_.indices[b] * s_.c + j);
            values[at] = value_at(s_.data, s_.type, (b * s_.r + row % s_.r) * s_.c + j);
          }
        }
        break;
      }
      case Format::nm: {
        const int64_t groups = s_.cols / s_.c;
        for (int64_t g = 0; g < groups; ++g) {
          for (int64_t i = 0; i < s_.r; ++i, ++at) {
            cols[at] = static_cast<int32_t>(g * s_.c + s_.bits[row * n + at]);
            values[at] = value_at(s_.data, s_.type, row * n + at);
          }
        }
        break;
      }
    }
    return n;
  }

 private:
  const Source& s_;
  std::vector<int64_t> start_;
};

}  // namespace zs
