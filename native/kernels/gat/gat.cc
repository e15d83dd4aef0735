// Attention over the edges of a graph: cuts the work by entries, joins the parts of long rows (README.md).
#include "api.h"

#include <math.h>

#include "../gspmm/api.h"
#include "../gspmm/cut.h"

namespace zs {
namespace {

const GatMicro& micro_for(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) return gat_avx2;
  if (isa == Isa::avx512) return gat_avx512;
#elif defined(__aarch64__)
  if (isa == Isa::neon) return gat_neon;
#endif
  return gat_scalar;
}

// The parts of one row, of which each has its own largest score.
struct Partial {
  int64_t heads;
  std::vector<float> most, sum;
  explicit Partial(int64_t parts, int64_t heads_)
      : heads(heads_), most(static_cast<size_t>(parts * heads_)), sum(static_cast<size_t>(parts * heads_)) {}
  float* most_of(int64_t p) { return most.data() + p * heads; }
  float* sum_of(int64_t p) { return sum.data() + p * heads; }

  // What the parts [p0, p1) of one head are multiplied by, in place of `most`: e^(most - largest) / sum of all.
  void to_factors(int64_t p0, int64_t p1, int64_t h) {
    float largest = -INFINITY, all = 0;
    for (int64_t p = p0; p < p1; ++p) largest = std::max(largest, most_of(p)[h]);
    const float base = largest == -INFINITY ? 0.0f : largest;
    for (int64_t p = p0; p < p1; ++p) {
      most_of(p)[h] = expf(most_of(p)[h] - base);
      all += most_of(p)[h] * sum_of(p)[h];
    }
    for (int64_t p = p0; p < p1; ++p) most_of(p)[h] /= all;
  }
};

// Calls f(row, first part, end of parts) for every row that was cut, and gives the parts their factors.
template <class F> void join(const GraphCut& cut, Partial& partial, const F& f) {
  for (size_t t = 0; t < cut.tasks.size();) {
    if (cut.tasks[t].part < 0) {
      ++t;
      continue;
    }
    const int64_t row = cut.tasks[t].row, p0 = cut.tasks[t].part;
    while (t < cut.tasks.size() && cut.tasks[t].part >= 0 && cut.tasks[t].row == row) ++t;
    const int64_t p1 = cut.tasks[t - 1].part + 1;
    for (int64_t h = 0; h < partial.heads; ++h) partial.to_factors(p0, p1, h);
    f(row, p0, p1);
  }
}

template <class F> void for_tasks(const GraphCut& cut, Pool& pool, const F& f) {
  const auto body = [&](int64_t index, int worker) { f(cut.tasks[static_cast<size_t>(index)], worker); };
  pool.parallel(static_cast<int64_t>(cut.tasks.size()), body, cut.tasks.size() == 1);
}

}  // namespace

void run_gat(Isa isa, Gat a, Pool& pool) {
  const int64_t size = a.heads * a.features;
  if (!a.graph.rows || !size) return;
  a.ahead = entries_ahead(a.graph.cols, size);
  const GatMicro& micro = micro_for(isa);
  const GraphCut cut = cut_graph(a.graph, pool.size(), least_entries(size));
  std::vector<float> sums(static_cast<size_t>(cut.parts * size));
  Partial partial(cut.parts, a.heads);
  for_tasks(cut, pool, [&](const GraphTask& task, int worker) {
    float* scratch = pool.scratch(worker, a.features * 4);
    if (task.part < 0) return micro.rows(a, task.begin, task.end, scratch);
    micro.part(a, task.row, task.begin, task.end, sums.data() + task.part * size, partial.most_of(task.part),
               partial.sum_of(task.part), scratch);
  });
  join(cut, partial, [&](int64_t row, int64_t p0, int64_t p1) {
    for (int64_t f = 0; f < size; ++f) {
      float sum = 0;
      for (int64_t p = p0; p < p1; ++p) sum += partial.most_of(p)[f / a.features] * sums[static_cast<size_t>(p * size + f)];
      a.y[row * size + f] = sum;
    }
  });
}

void run_edge_softmax(Isa isa, const EdgeScores& a, Pool& pool) {
  if (!a.graph.rows || !a.heads) return;
  const GatMicro& micro = micro_for(isa);
  const GraphCut cut = cut_graph(a.graph, pool.size(), least_entries(8 * a.heads));
  Partial partial(cut.parts, a.heads);
  for_tasks(cut, pool, [&](const GraphTask& task, int) {
    if (task.part < 0) return micro.softmax(a, task.begin, task.end);
    micro.softmax_part(a, task.begin, task.end, partial.most_of(task.part), partial.sum_of(task.part));
  });
  if (!cut.parts) return;
  join(cut, partial, [](int64_t, int64_t, int64_t) {});
  for_tasks(cut, pool, [&](const GraphTask& task, int) {
    if (task.part < 0) return;
    const float* by = partial.most_of(task.part);
    for (int64_t e = task.begin; e < task.end; ++e) {
      for (int64_t h = 0; h < a.heads; ++h) a.out[e * a.heads + h] *= by[h];
    }
  });
}

void run_sddmm_add(Isa isa, const EdgeScores& a, Pool& pool) {
  if (!a.graph.rows || !a.heads) return;
  const GatMicro& micro = micro_for(isa);
  const GraphCut cut = cut_graph(a.graph, pool.size(), least_entries(2 * a.heads));
  for_tasks(cut, pool, [&](const GraphTask& task, int) {
    if (task.part < 0) return micro.add(a, task.begin, task.end);
    micro.add_part(a, task.row, task.begin, task.end);
  });
}

}  // namespace zs
