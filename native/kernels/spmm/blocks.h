// What the drivers of cells and quads share: aligned storage, and how rows are cut into blocks.
#pragma once

#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <new>

#include "../../runtime/cpu.h"
#include "../../runtime/numeric.h"
#include "../../runtime/pool.h"
#include "spmm.h"

namespace zs {

// Bytes aligned to a cache line, with room behind them for one vector read past the end. Large ones lie in pages of 2 MB: reading
// in order from memory is 5 % faster (Zen 3, both cores), since the processor asks ahead within a page only.
class Buffer {
 public:
  static constexpr int64_t kSlack = 64, kHugePage = 2 << 20;

  Buffer() = default;
  explicit Buffer(int64_t bytes) : bytes_(bytes) {
    const int64_t size = (bytes + kSlack + 63) / 64 * 64;
    const bool large = size >= kHugePage;
    data_ = static_cast<uint8_t*>(
        aligned_alloc(large ? kHugePage : 64, large ? (size + kHugePage - 1) / kHugePage * kHugePage : size));
    if (!data_) throw std::bad_alloc();
#if defined(__linux__)
    // Whole pages only, so that no memory is taken that is not used. Refused where the system has none: no loss.
    if (large) madvise(data_, size / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
    memset(data_ + bytes, 0, size - bytes);
  }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer() { free(data_); }
  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Rows in blocks of nearly the same size, none above `most`; as many blocks as threads, or a multiple, where there are that
// many rows: five blocks for two threads would leave one idle for a sixth of the time.
struct RowBlocks {
  int64_t rows = 0, count = 0, size = 0;

  RowBlocks() = default;
  RowBlocks(int64_t rows_, int64_t most, int64_t unit) : rows(rows_) {
    const int64_t threads = Pool::get().size();
    int64_t wanted = std::max<int64_t>(1, (rows + most - 1) / most);
    if (wanted > 1 || rows > 16 * threads) wanted = (wanted + threads - 1) / threads * threads;
    size = ((rows + wanted - 1) / wanted + unit - 1) / unit * unit;
    if (size == 0) size = unit;
    count = (rows + size - 1) / size;
  }
  int64_t begin(int64_t block) const { return block * size; }
  int64_t end(int64_t block) const { return std::min(rows, (block + 1) * size); }
};

// n values, rounded to `type`, into `values` from entry `at` on. Codes are given as float32; those of 4 bits are added to bytes that
// are zero.
static inline void store_values(uint8_t* values, ValueType type, int64_t at, const float* from, int64_t n) {
  uint16_t* half = reinterpret_cast<uint16_t*>(values) + at;
  switch (type) {
    case ValueType::f32: std::copy_n(from, n, reinterpret_cast<float*>(values) + at); break;
    case ValueType::bf16:
      for (int64_t i = 0; i < n; ++i) half[i] = float_to_bf16(from[i]);
      break;
    case ValueType::f16:
      for (int64_t i = 0; i < n; ++i) half[i] = float_to_f16(from[i]);
      break;
    case ValueType::i8:
      for (int64_t i = 0; i < n; ++i) values[at + i] = static_cast<uint8_t>(static_cast<int>(from[i]));
      break;
    case ValueType::i4:
      for (int64_t i = 0; i < n; ++i) {
        uint8_t& byte = values[(at + i) / 2];
        byte = static_cast<uint8_t>(byte | (static_cast<int>(from[i]) & 15) << (at + i) % 2 * 4);
      }
      break;
  }
}

// What the codes of a packed matrix mean: value = (code - zero) * scale, in float32 and exact.
struct CodeScales {
  int64_t group = 0, groups = 0;  // columns that share a scale, 0 for all; scales of a row
  Buffer scales;                  // float16, [row][groups]
  Buffer zeros;                   // int8, the same; empty where there are none

  CodeScales() = default;
  explicit CodeScales(const Source& s) : group(s.scale_group), groups(group ? (s.cols + group - 1) / group : 1) {
    scales = Buffer(2 * s.rows * groups);
    memcpy(scales.data(), s.scales, scales.bytes());
    zeros = Buffer(s.zeros ? s.rows * groups : 0);
    if (s.zeros) memcpy(zeros.data(), s.zeros, zeros.bytes());
  }
  int64_t bytes() const { return scales.bytes() + zeros.bytes(); }
  const uint16_t* scale(int64_t row, int64_t index) const {
    return reinterpret_cast<const uint16_t*>(scales.data()) + row * groups + index;
  }
  const int8_t* zero(int64_t row, int64_t index) const {  // null where there are none
    return zeros.bytes() ? reinterpret_cast<const int8_t*>(zeros.data()) + row * groups + index : nullptr;
  }
};

// Where a block of rows of one panel of Y lies, and the residual beside it.
struct YTile {
  float* y;
  const float* residual;
  int64_t ldy;
};

static inline YTile tile_of(Output y, const float* residual, int64_t rows, int64_t row, int64_t panel, int64_t width) {
  const int64_t at = y.stride ? row * y.stride + panel * kPanel : panel * kPanel * rows + row * width;
  return {y.data + at, residual ? residual + at : nullptr, y.stride ? y.stride : width};
}

static inline void finish_tile(Finish finish, const YTile& tile, int64_t row, int64_t rows, int64_t width, const Epilogue& e) {
  if (!e.bias && !tile.residual && e.activation == Activation::none) return;
  finish(tile.y, tile.ldy, rows, width, e.bias ? e.bias + row : nullptr, e.activation, tile.residual);
}

// How many panels of X one task takes: enough to repay what it does once per block, few enough to feed every thread.
static inline int64_t panels_a_task(int64_t panels, int64_t row_blocks, int threads, int64_t most) {
  const int64_t tasks_wanted = 4 * threads;
  return std::clamp<int64_t>(panels * row_blocks / tasks_wanted, 1, most);
}

// x with one lane and a number of columns that is no multiple of 8: kernels read whole eights, so it needs room behind.
static inline const float* padded_lane(const float* x, int64_t cols, Buffer& room) {
  if (cols % 8 == 0) return x;
  room = Buffer((cols + 8) * 4);
  memcpy(room.data(), x, cols * 4);
  memset(room.data() + cols * 4, 0, 32);
  return reinterpret_cast<const float*>(room.data());
}

}  // namespace zs
