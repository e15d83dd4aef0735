// Sums over the edges of a graph: cuts the work by entries, adds the parts of long rows (README.md).
#include "../../runtime/cpu.h"
#include "api.h"
#include "cut.h"

namespace zs {
namespace {

const GspmmMicro& micro_for(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) return gspmm_avx2;
  if (isa == Isa::avx512) return gspmm_avx512;
#elif defined(__aarch64__)
  if (isa == Isa::neon) return gspmm_neon;
#endif
  return gspmm_scalar;
}

float join(Reduce reduce, float found, float v) {
  if (reduce == Reduce::max) return v > found || v != v ? v : found;
  if (reduce == Reduce::min) return v < found || v != v ? v : found;
  return found + v;
}

int64_t cache_bytes() {
  constexpr int64_t kMost = 32 << 20;  // processors of many parts claim the caches of all of them
  return std::max(cpu().l2_bytes, std::min(cpu().l3_bytes, kMost));
}

// Whether y, with x, is larger than the caches, and lines of it are whole lines of one head.
bool goes_past(const Gspmm& a) {
  constexpr int64_t kLineBytes = 64;
  const bool lines = reinterpret_cast<uintptr_t>(a.y) % kLineBytes == 0 && a.features * 4 % kLineBytes == 0;
  return lines && (a.graph.rows + a.graph.cols) * row_size(a) * 4 > cache_bytes();
}

// Panels of columns that are gone through one after the other: where x is larger than the caches and a panel of it is not, or not
// by much. Whole heads, or, where all heads are weighted alike, any columns.
struct Panels {
  int64_t heads, features;  // of a panel; the last may have fewer
};

Panels panels_of(const Gspmm& a) {
  constexpr int64_t kPanelFloats = 64;
  const int64_t x_bytes = a.graph.cols * row_size(a) * 4, panel_bytes = a.graph.cols * kPanelFloats * 4;
  if (x_bytes <= cache_bytes() || panel_bytes > 2 * cache_bytes()) return {a.heads, a.features};
  if (a.heads == 1) return {1, std::min(a.features, kPanelFloats)};
  return {std::min(a.heads, std::max<int64_t>(1, kPanelFloats / a.features)), a.features};
}

// Heads that are weighted alike are columns of one.
Gspmm one_head(Gspmm a) {
  a.features *= a.heads;
  a.heads = 1;
  return a;
}

// The parts of one row lie behind each other.
void join_parts(const Gspmm& a, const std::vector<GraphTask>& tasks, const std::vector<float>& partial) {
  const int64_t size = row_size(a);
  for (const GraphTask& task : tasks) {
    if (task.part < 0) continue;
    const float* from = partial.data() + task.part * size;
    float* y = a.y + task.row * a.stride;
    const bool first = task.begin == a.graph.indptr[task.row], last = task.end == a.graph.indptr[task.row + 1];
    for (int64_t f = 0; f < size; ++f) y[f] = first ? from[f] : join(a.reduce, y[f], from[f]);
    if (!last || a.reduce != Reduce::mean) continue;
    const float count = static_cast<float>(row_length(a.graph, task.row));
    for (int64_t f = 0; f < size; ++f) y[f] /= count;
  }
}

void run_panel(const GspmmMicro& micro, const Gspmm& a, Pool& pool) {
  const GraphCut cut = cut_graph(a.graph, pool.size(), least_entries(row_size(a)));
  std::vector<float> partial(static_cast<size_t>(cut.parts * row_size(a)));
  pool.parallel(
      static_cast<int64_t>(cut.tasks.size()),
      [&](int64_t index, int) {
        const GraphTask& task = cut.tasks[static_cast<size_t>(index)];
        if (task.part < 0) return micro.rows(a, task.begin, task.end);
        micro.part(a, task.begin, task.end, partial.data() + task.part * row_size(a));
      },
      cut.tasks.size() == 1);
  join_parts(a, cut.tasks, partial);
}

}  // namespace

bool graph_isa(Isa isa) {
#if defined(__x86_64__)
  return isa == Isa::scalar || isa == Isa::avx2 || isa == Isa::avx512;
#elif defined(__aarch64__)
  return isa == Isa::scalar || isa == Isa::neon;
#else
  return isa == Isa::scalar;
#endif
}

int64_t entries_ahead(int64_t sources, int64_t row_size) {
  constexpr int64_t kFloatsAhead = 1024;  // half of that: attention a seventh slower, sums equal (Zen 3, not idle)
  if (sources * row_size * 4 <= cpu().l2_bytes / 2) return 0;
  return std::clamp<int64_t>(kFloatsAhead / std::max<int64_t>(row_size, 1), 2, 32);
}

int64_t least_entries(int64_t row_size) { return std::max<int64_t>(64, (int64_t{1} << 16) / (row_size + 16)); }

void run_gspmm(Isa isa, Gspmm a, Pool& pool) {
  if (!a.graph.rows || !row_size(a)) return;
  a.stride = row_size(a);
  a.weight_step = a.heads;
  if (!a.weights) a = one_head(a);
  a.past = goes_past(a);
  const GspmmMicro& micro = micro_for(isa);
  const Panels panels = panels_of(a);
  for (int64_t h = 0; h < a.heads; h += panels.heads) {
    for (int64_t f = 0; f < a.features; f += panels.features) {
      Gspmm panel = a;
      panel.heads = std::min(panels.heads, a.heads - h);
      panel.features = std::min(panels.features, a.features - f);
      panel.x += h * a.features + f;
      panel.y += h * a.features + f;
      if (a.weights) panel.weights += h;
      panel.ahead = entries_ahead(a.graph.cols, row_size(panel));
      run_panel(micro, panel, pool);
    }
  }
}

}  // namespace zs
