// Sums and attention over the edges of a graph, against float64: every instruction set, all index widths, rows around a block
// of the loop, long rows that are cut, and memory that ends where x does.
#include <math.h>

#include <algorithm>

#include "../kernels/gat/api.h"
#include "../kernels/gspmm/api.h"
#include "../runtime/cpu.h"
#include "check.h"

namespace zs::test {
namespace {

constexpr double kU = 0x1p-24;
constexpr Isa kIsasToTry[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::neon};

// Rows of so many entries, ascending columns.
struct TestGraph {
  int64_t cols;
  std::vector<int64_t> indptr{0}, wide;
  std::vector<int32_t> middle;
  std::vector<uint16_t> narrow;

  TestGraph(const std::vector<int64_t>& lengths, int64_t cols_, uint64_t seed) : cols(cols_) {
    Random random(seed);
    for (int64_t length : lengths) {
      const int64_t start = random.below(cols - length + 1);
      for (int64_t i = 0; i < length; ++i) wide.push_back(start + i);
      indptr.push_back(static_cast<int64_t>(wide.size()));
    }
    for (int64_t column : wide) {
      middle.push_back(static_cast<int32_t>(column));
      narrow.push_back(static_cast<uint16_t>(column));
    }
  }
  int64_t rows() const { return static_cast<int64_t>(indptr.size()) - 1; }
  int64_t entries() const { return indptr.back(); }
  Graph view(int bytes) const {
    const void* indices = bytes == 2   ? static_cast<const void*>(narrow.data())
                          : bytes == 4 ? static_cast<const void*>(middle.data())
                                       : static_cast<const void*>(wide.data());
    return {rows(), cols, indptr.data(), indices, bytes};
  }
};

void fill(Floats& values, uint64_t seed) {
  Random random(seed);
  for (int64_t i = 0; i < values.size(); ++i) values[i] = random.symmetric();
}

struct Expected {
  std::vector<double> value, allowed;
};

Expected gspmm_reference(const TestGraph& g, const Gspmm& a) {
  const int64_t size = a.heads * a.features;
  Expected want{std::vector<double>(static_cast<size_t>(g.rows() * size)), {}};
  want.allowed = want.value;
  for (int64_t r = 0; r < g.rows(); ++r) {
    const double n = static_cast<double>(g.indptr[r + 1] - g.indptr[r]);
    for (int64_t f = 0; f < size; ++f) {
      double value = a.reduce == Reduce::max ? -INFINITY : a.reduce == Reduce::min ? INFINITY : 0.0, sum = 0;
      for (int64_t e = g.indptr[r]; e < g.indptr[r + 1]; ++e) {
        const double w = a.weights ? a.weights[e * a.heads + f / a.features] : 1.0;
        const double v = w * a.x[g.wide[e] * size + f];
        sum += fabs(v);
        value = a.reduce == Reduce::max ? std::max(value, v) : a.reduce == Reduce::min ? std::min(value, v) : value + v;
      }
      if (n == 0) value = 0;
      const double by = a.reduce == Reduce::mean && n > 0 ? n : 1;
      want.value[r * size + f] = value / by;
      want.allowed[r * size + f] = (n + 2) * kU * sum / by + 1e-40;
    }
  }
  return want;
}

Expected gat_reference(const TestGraph& g, const Gat& a) {
  const int64_t size = a.heads * a.features;
  Expected want{std::vector<double>(static_cast<size_t>(g.rows() * size)), {}};
  want.allowed = want.value;
  const auto score = [&](int64_t r, int64_t e, int64_t h) {
    const double s = static_cast<double>(a.left[r * a.heads + h]) + a.right[g.wide[e] * a.heads + h];
    return s >= 0 ? s : a.slope * s;
  };
  for (int64_t r = 0; r < g.rows(); ++r) {
    const double n = static_cast<double>(g.indptr[r + 1] - g.indptr[r]);
    for (int64_t h = 0; h < a.heads; ++h) {
      double all = 0;
      for (int64_t e = g.indptr[r]; e < g.indptr[r + 1]; ++e) all += exp(score(r, e, h));
      for (int64_t f = h * a.features; f < (h + 1) * a.features; ++f) {
        double value = 0, sum = 0;
        for (int64_t e = g.indptr[r]; e < g.indptr[r + 1]; ++e) {
          const double v = exp(score(r, e, h)) / all * a.x[g.wide[e] * size + f];
          value += v;
          sum += fabs(v);
        }
        want.value[r * size + f] = value;
        want.allowed[r * size + f] = (60 + 3 * n + n / 4) * kU * sum + 1e-30;  // scores of at most 2: testing/graph_bounds.py
      }
    }
  }
  return want;
}

void compare(Floats& found, const Expected& want, Isa isa, const std::string& what) {
  bool ok = true;
  for (int64_t i = 0; i < found.size(); ++i) ok = ok && fabs(found[i] - want.value[i]) <= want.allowed[i];
  check(ok, isa, what);
}

// All reductions by all instruction sets; indices of 4 bytes without weights.
void gspmm_of(const TestGraph& g, int64_t heads, int64_t features, uint64_t seed, const std::vector<int>& widths) {
  Floats x(g.cols * heads * features, 0, seed % 3), y(g.rows() * heads * features, NAN, 1);
  Floats weights(std::max<int64_t>(1, g.entries() * heads), 0);
  fill(x, seed);
  fill(weights, seed + 1);
  for (Reduce reduce : {Reduce::sum, Reduce::mean, Reduce::max, Reduce::min}) {
    for (int bytes : widths) {
      if (!sampled()) continue;
      const Gspmm a{g.view(bytes), x.data(), bytes == 4 ? nullptr : weights.data(), y.data(), heads, features, reduce};
      const Expected want = gspmm_reference(g, a);
      for (Isa isa : kIsasToTry) {
        if (!graph_isa(isa) || !isa_usable(isa)) continue;
        for (int64_t i = 0; i < y.size(); ++i) y[i] = NAN;
        run_gspmm(isa, a, Pool::get());
        compare(y, want, isa, "gspmm, " + std::to_string(features) + " features, " + std::to_string(bytes) + " bytes");
      }
    }
  }
}

const std::vector<std::vector<int64_t>> kLengths = {
    {1}, {0, 3, 0, 1}, {47, 48, 49, 96, 97, 0, 2}, {5, 9000, 9000, 0, 3, 1, 9000}};

}  // namespace

ZS_TEST(gspmm_of_all_shapes) {
  uint64_t seed = 100;
  for (const auto& lengths : kLengths) {
    const TestGraph g(lengths, 9000, ++seed);
    for (const auto& shape : {std::pair<int64_t, int64_t>{1, 1}, {1, 7}, {1, 33}, {3, 5}, {2, 129}}) {
      gspmm_of(g, shape.first, shape.second, seed, {2, 4, 8});
    }
  }
}

// x is larger than the 32 MB that are believed, 64 columns of it are not twice as large: gone through in panels.
ZS_TEST(gspmm_in_panels) {
  const TestGraph g({5, 9000, 0, 49, 1}, 130000, 300);
  for (const auto& shape : {std::pair<int64_t, int64_t>{1, 80}, {1, 67}, {5, 16}, {2, 65}}) {
    gspmm_of(g, shape.first, shape.second, 301, {4, 8});
  }
}

ZS_TEST(gat_of_all_shapes) {
  uint64_t seed = 200;
  for (const auto& lengths : kLengths) {
    const TestGraph g(lengths, 9000, ++seed);
    for (const auto& shape : {std::pair<int64_t, int64_t>{1, 1}, {1, 7}, {4, 32}, {3, 5}, {2, 129}}) {
      Floats x(g.cols * shape.first * shape.second, 0, seed % 3), y(g.rows() * shape.first * shape.second, NAN, 1);
      Floats left(g.rows() * shape.first, 0, 1), right(g.cols * shape.first, 0, 2);
      fill(x, seed);
      fill(left, seed + 1);
      fill(right, seed + 2);
      for (int bytes : {2, 4, 8}) {
        if (!sampled()) continue;
        const Gat a{g.view(bytes), x.data(), left.data(), right.data(), 0.2f, y.data(), shape.first, shape.second, 0};
        const Expected want = gat_reference(g, a);
        for (Isa isa : kIsasToTry) {
          if (!graph_isa(isa) || !isa_usable(isa)) continue;
          for (int64_t i = 0; i < y.size(); ++i) y[i] = NAN;
          run_gat(isa, a, Pool::get());
          compare(y, want, isa, "gat, " + std::to_string(shape.second) + " features, " + std::to_string(bytes) + " bytes");
        }
      }
    }
  }
}

ZS_TEST(scores_of_edges) {
  const TestGraph g(kLengths.back(), 9000, 300);
  for (int64_t heads : {1, 3, 8}) {
    Floats left(g.rows() * heads, 0), right(g.cols * heads, 0), scores(g.entries() * heads, NAN), p(g.entries() * heads, NAN);
    fill(left, 301);
    fill(right, 302);
    EdgeScores a{g.view(4), nullptr, left.data(), right.data(), scores.data(), heads};
    EdgeScores b{g.view(4), scores.data(), nullptr, nullptr, p.data(), heads};
    for (Isa isa : kIsasToTry) {
      if (!graph_isa(isa) || !isa_usable(isa)) continue;
      run_sddmm_add(isa, a, Pool::get());
      run_edge_softmax(isa, b, Pool::get());
      bool added = true, summed = true;
      for (int64_t r = 0; r < g.rows(); ++r) {
        std::vector<double> total(static_cast<size_t>(heads));
        for (int64_t e = g.indptr[r]; e < g.indptr[r + 1]; ++e) {
          for (int64_t h = 0; h < heads; ++h) {
            added = added && scores[e * heads + h] == left[r * heads + h] + right[g.wide[e] * heads + h];
            total[h] += p[e * heads + h];
          }
        }
        for (double sum : total) summed = summed && (g.indptr[r] == g.indptr[r + 1] || fabs(sum - 1) < 9100 * 2 * kU);
      }
      check(added, isa, "left + right");
      check(summed, isa, "weights of a row add up to 1");
    }
  }
}

}  // namespace zs::test
