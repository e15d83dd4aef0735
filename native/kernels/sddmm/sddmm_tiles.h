// What a pattern gives once and for all: tiles of four rows that have the same four columns side by side, and everything else in
// records of eight. The records hold all that a call reads, so whatever happens to the pattern's arrays, none leaves its bounds.
#pragma once

#include <stdint.h>

#include <memory>
#include <vector>

#include "../../runtime/pool.h"
#include "../pattern.h"

namespace zs {

// Four rows from `row` on and four columns: entries at[i] to at[i] + 3 of row + i.
template <class I> struct SddmmTile {
  int32_t row;
  int32_t at[4];
  I col[4];
};

// Entries of one row, ascending. Where there are fewer than eight, the first stands in for the others: so at[7] - at[0] is 7 only
// where all eight are neighbours.
template <class I> struct SddmmEight {
  int32_t row;
  int32_t at[8];
  I col[8];
};

// The same of any rows, ascending too: what is left of each.
template <class I> struct SddmmMixed {
  int32_t row[8];
  int32_t at[8];
  I col[8];
};

template <class I> struct SddmmRecords {
  std::vector<SddmmTile<I>> tiles;
  std::vector<SddmmEight<I>> eights;
  std::vector<SddmmMixed<I>> mixed;
};

struct SddmmTiles {
  bool wide = false;  // which of the two is filled: columns of 32 bits, or of 16 where they fit
  SddmmRecords<uint16_t> narrow_columns;
  SddmmRecords<int32_t> wide_columns;

  template <class F> auto visit(const F& body) const { return wide ? body(wide_columns) : body(narrow_columns); }
  int64_t nbytes() const;
};

// Null where it would not pay (too few entries in tiles), for other formats than CSR, where 32 bits cannot count the entries, and
// where the arrays are damaged.
std::unique_ptr<const SddmmTiles> find_tiles(const Pattern& p, Pool& pool);

}  // namespace zs
