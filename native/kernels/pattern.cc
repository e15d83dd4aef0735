#include "pattern.h"

#include <algorithm>

namespace zs {

std::vector<int64_t> row_offsets(const Pattern& p, int64_t (*count)(const uint8_t*, int64_t), Pool& pool) {
  constexpr int64_t kTaskBytes = 64 << 10;
  std::vector<int64_t> first(static_cast<size_t>(p.rows + 1), 0);
  int64_t* counts = first.data() + 1;
  const int64_t rows = std::max<int64_t>(1, kTaskBytes / std::max<int64_t>(1, p.row_bytes()));
  const int64_t tasks = (p.rows + rows - 1) / rows;
  pool.parallel(
      tasks,
      [&](int64_t task, int) {
        for (int64_t r = task * rows; r < std::min(p.rows, (task + 1) * rows); ++r) {
          counts[r] = count(p.bits + r * p.row_bytes(), p.row_bytes());
        }
      },
      tasks < 2);
  for (int64_t r = 1; r < p.rows; ++r) counts[r] += counts[r - 1];
  return first;
}

}  // namespace zs
