// Reads a Source row by row, whatever its format: what packing is made of.
#pragma once

#include <string.h>

#include <algorithm>
#include <vector>

#include "../../runtime/numeric.h"
#include "../kernel.h"

namespace zs {

// Of codes this is the code itself: what it means, its scale says.
static inline float value_at(const void* data, ValueType type, int64_t i) {
  switch (type) {
    case ValueType::f32: return static_cast<const float*>(data)[i];
    case ValueType::bf16: return bf16_to_float(static_cast<const uint16_t*>(data)[i]);
    case ValueType::f16: return f16_to_float(static_cast<const uint16_t*>(data)[i]);
    case ValueType::i8:
    case ValueType::i4: return static_cast<float>(static_cast<const int8_t*>(data)[i]);
  }
  return 0;
}

// The set bits of every byte, ascending, and how many there are.
struct BitTable {
  int32_t at[256][8] = {};
  uint8_t count[256] = {};
};

constexpr BitTable make_bit_table() {
  BitTable table;
  for (int byte = 0; byte < 256; ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      if (byte >> bit & 1) table.at[byte][table.count[byte]++] = bit;
    }
  }
  return table;
}

static constexpr BitTable kBits = make_bit_table();

// n values from entry `first` on, as float32; codes as they are.
static inline void values_at(const void* data, ValueType type, int64_t first, int64_t n, float* out) {
  const uint16_t* half = static_cast<const uint16_t*>(data) + first;
  switch (type) {
    case ValueType::f32: std::copy_n(static_cast<const float*>(data) + first, n, out); break;
    case ValueType::bf16:
      for (int64_t i = 0; i < n; ++i) out[i] = bf16_to_float(half[i]);
      break;
    case ValueType::f16:
      for (int64_t i = 0; i < n; ++i) out[i] = f16_to_float(half[i]);
      break;
    case ValueType::i8:
    case ValueType::i4:
      for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(static_cast<const int8_t*>(data)[first + i]);
      break;
  }
}

// The stored entries of one row at a time, columns ascending. `dense` rows give every column, zeros as well.
class RowReader {
 public:
  explicit RowReader(const Source& source) : s_(source) {
    if (s_.format == Format::bitmask) {
      const int64_t bytes = (s_.cols + 7) / 8;
      start_.resize(s_.rows + 1, 0);
      for (int64_t r = 0; r < s_.rows; ++r) {
        start_[r + 1] = start_[r] + count_bits(s_.bits + r * bytes, bytes);
      }
    }
    if (s_.format == Format::sell) {
      start_.resize(s_.rows);
      for (int64_t p = 0; p < s_.rows; ++p) start_[s_.order[p]] = p;
    }
  }

  int64_t count(int64_t row) const {
    switch (s_.format) {
      case Format::csr: return s_.indptr[row + 1] - s_.indptr[row];
      case Format::bitmask: return start_[row + 1] - start_[row];
      case Format::dense: return s_.cols;
      case Format::bsr: return (s_.indptr[row / s_.r + 1] - s_.indptr[row / s_.r]) * s_.c;
      case Format::nm:
      case Format::vnm: return s_.cols / s_.c * s_.r;
      case Format::ell:
      case Format::sell: {
        const Slots slots = slots_of(row);
        int64_t n = 0;
        while (n < slots.count && s_.indices[slots.first + n * slots.step] >= 0) ++n;  // padding comes last
        return n;
      }
      case Format::csc:
      case Format::dia: break;
    }
    return 0;
  }

  // Whether the values of a row follow each other.
  bool contiguous() const { return s_.format != Format::bsr && s_.format != Format::sell; }

  // The entry at which the row's values start, where they are contiguous; else -1.
  int64_t first(int64_t row) const {
    switch (s_.format) {
      case Format::csr: return s_.indptr[row];
      case Format::bitmask: return start_[row];
      case Format::dense:
      case Format::nm:
      case Format::vnm: return row * count(row);
      case Format::ell: return row * s_.r;
      case Format::bsr:
      case Format::sell:
      case Format::csc:
      case Format::dia: break;
    }
    return -1;
  }

  // Fills cols with the columns of the row's entries, then maybe more, and returns how many there are.
  int64_t columns(int64_t row, std::vector<int32_t>& cols) const {
    const int64_t n = count(row);
    cols.resize(n);
    int64_t at = 0;
    switch (s_.format) {
      case Format::csr: std::copy_n(s_.indices + s_.indptr[row], n, cols.data()); break;
      case Format::bitmask: {
        const int64_t bytes = (s_.cols + 7) / 8;
        const uint8_t* bits = s_.bits + row * bytes;
        cols.resize(n + 8);  // each byte writes eight; a loop over its bits, mispredicted every time, took half of all packing
        for (int64_t b = 0; b < bytes; ++b) {
          const uint8_t byte = bits[b];
          int32_t* out = cols.data() + at;
          for (int j = 0; j < 8; ++j) out[j] = static_cast<int32_t>(8 * b) + kBits.at[byte][j];
          at += kBits.count[byte];
        }
        break;
      }
      case Format::dense:
        for (int64_t c = 0; c < n; ++c) cols[c] = static_cast<int32_t>(c);
        break;
      case Format::bsr:
        for (int64_t b = s_.indptr[row / s_.r]; b < s_.indptr[row / s_.r + 1]; ++b) {
          for (int64_t j = 0; j < s_.c; ++j) cols[at++] = static_cast<int32_t>(s_.indices[b] * s_.c + j);
        }
        break;
      case Format::nm:
        for (int64_t g = 0; at < n; ++g) {
          for (int64_t i = 0; i < s_.r; ++i, ++at) cols[at] = static_cast<int32_t>(g * s_.c + s_.bits[row * n + at]);
        }
        break;
      case Format::vnm: {
        const uint8_t* four = s_.four + row / s_.v * (s_.cols / s_.c) * 4;
        for (int64_t g = 0; at < n; ++g) {
          for (int64_t i = 0; i < s_.r; ++i, ++at)
            cols[at] = static_cast<int32_t>(g * s_.c + four[4 * g + s_.bits[row * n + at]]);
        }
        break;
      }
      case Format::ell:
      case Format::sell: {
        const Slots slots = slots_of(row);
        for (; at < n; ++at) cols[at] = s_.indices[slots.first + at * slots.step];
        break;
      }
      case Format::csc:
      case Format::dia: break;
    }
    return n;
  }

  // Fills cols and values with the row's entries and returns how many there are.
  int64_t read(int64_t row, std::vector<int32_t>& cols, std::vector<float>& values) const {
    const int64_t n = columns(row, cols);
    values.resize(n);
    if (contiguous()) {
      values_at(s_.data, s_.type, first(row), n, values.data());
      return n;
    }
    if (s_.format == Format::sell) {
      const Slots slots = slots_of(row);
      for (int64_t i = 0; i < n; ++i) values[i] = value_at(s_.data, s_.type, slots.first + i * slots.step);
      return n;
    }
    const int64_t begin = s_.indptr[row / s_.r];
    for (int64_t i = 0; i < n; ++i) {
      values[i] = value_at(s_.data, s_.type, ((begin + i / s_.c) * s_.r + row % s_.r) * s_.c + i % s_.c);
    }
    return n;
  }

 private:
  // Where the slots of a row of ell or sell lie.
  struct Slots {
    int64_t first, step, count;
  };

  Slots slots_of(int64_t row) const {
    if (s_.format == Format::ell) return {row * s_.r, 1, s_.r};
    const int64_t place = start_[row], slice = place / s_.r;
    const int64_t height = std::min(s_.r, s_.rows - slice * s_.r);
    return {s_.indptr[slice] + place % s_.r, height, (s_.indptr[slice + 1] - s_.indptr[slice]) / height};
  }

  const Source& s_;
  std::vector<int64_t> start_;  // bitmask: first value of each row; sell: where each row is stored
};

}  // namespace zs
