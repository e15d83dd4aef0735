// A graph cut into tasks of about as many entries each: rows together, and rows that are longer than a task in parts.
#pragma once

#include <stdint.h>

#include <algorithm>
#include <vector>

#include "gspmm.h"

namespace zs {

// Rows [begin, end); or, where `part` is not -1, the entries [begin, end) of row `row`, whose result is the part-th.
struct GraphTask {
  int64_t begin, end;
  int64_t row = -1, part = -1;
};

struct GraphCut {
  std::vector<GraphTask> tasks;
  int64_t parts = 0;
};

// A row counts as one entry more: to begin and to end one takes time, too. `least`: entries that a task is worth.
inline GraphCut cut_graph(const Graph& graph, int threads, int64_t least) {
  constexpr int64_t kTasksAThread = 16;
  const auto place = [&](int64_t row) { return graph.indptr[row] + row; };
  const int64_t share = std::max(least, place(graph.rows) / (threads * kTasksAThread) + 1);
  const auto is_long = [&](int64_t row) { return threads > 1 && row_length(graph, row) > 2 * share; };
  GraphCut cut;
  int64_t row = 0;
  while (row < graph.rows) {
    if (is_long(row)) {
      const int64_t first = graph.indptr[row], length = row_length(graph, row), parts = (length + share - 1) / share;
      for (int64_t p = 0; p < parts; ++p) {
        cut.tasks.push_back({first + length * p / parts, first + length * (p + 1) / parts, row, cut.parts++});
      }
      ++row;
      continue;
    }
    // The first row at which the share is full; only the one before it can be a long one.
    const int64_t want = place(row) + share;
    int64_t low = row + 1, high = graph.rows;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (place(middle) < want) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    if (low - 1 > row && is_long(low - 1)) --low;
    cut.tasks.push_back({row, low});
    row = low;
  }
  return cut;
}

}  // namespace zs
