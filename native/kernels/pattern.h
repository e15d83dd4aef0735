// A pattern as the operations on it see it: the arrays of a CSR, BSR or bitmask matrix, borrowed. Entries are numbered as the
// format stores its values: row by row, and in BSR block by block, each block row by row.
#pragma once

#include <stdint.h>

#include <vector>

#include "../runtime/pool.h"
#include "zeroskip/types.h"

namespace zs {

enum class IndexType : uint8_t { u16 = 0, i32 = 1, i64 = 2 };

struct Pattern {
  Format format = Format::csr;  // csr, bsr or bitmask
  int64_t rows = 0, cols = 0;
  int64_t entries = 0;
  const int64_t* indptr = nullptr;  // csr: [rows + 1], entries; bsr: [rows / r + 1], blocks
  const void* indices = nullptr;  // columns, for bsr of blocks
  IndexType index = IndexType::i32;
  int64_t r = 1, c = 1;  // bsr: a block
  const uint8_t* bits = nullptr;  // bitmask: [rows][(cols + 7) / 8], the lowest bit first

  int64_t row_bytes() const { return (cols + 7) / 8; }
  int64_t block_rows() const { return rows / r; }
};

// The first entry of each row of a bitmask, and the end: [rows + 1]. `count` counts the set bits of so many bytes.
std::vector<int64_t> row_offsets(const Pattern& p, int64_t (*count)(const uint8_t*, int64_t), Pool& pool);

}  // namespace zs
