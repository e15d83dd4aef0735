// Attention: every instruction set against sums in double, over rules, entries and blocks, whole sequences and new tokens.
#include "../kernels/attention/attention.h"

#include <math.h>

#include <string>
#include <vector>

#include "../kernels/kernel.h"
#include "../runtime/cpu.h"
#include "../runtime/pool.h"
#include "check.h"

namespace zs::test {
namespace {

constexpr Isa kTried[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::neon};

struct Shape {
  int64_t batch, heads, kv_heads, queries, keys, d, dv;
  bool causal;
};

// A mask, with the arrays that it views, and what it shows.
struct Pattern {
  AttentionMask mask;
  std::vector<int64_t> indptr;
  std::vector<int32_t> indices;

  bool stored(int64_t row, int64_t key) const {
    const int64_t line = row / mask.r;
    for (int64_t i = indptr[line]; i < indptr[line + 1]; ++i) {
      if (indices[i] == key / mask.c) return true;
    }
    return false;
  }

  bool sees(int64_t row, int64_t position, int64_t key) const {
    if (mask.kind != MaskKind::rule) return stored(row, key);
    const AttentionRule& rule = mask.rule;
    if (rule.causal && key > position) return false;
    if (key < rule.global || position < rule.global) return true;
    if (rule.window < 0 && rule.dilation == 1 && rule.global > 0) return false;
    if (rule.window >= 0 && llabs(position - key) > rule.window) return false;
    return (position - key) % rule.dilation == 0;
  }
};

Pattern rule_of(AttentionRule rule) {
  Pattern p;
  p.mask.rule = rule;
  return p;
}

void fill(Pattern& p, const Shape& s, int64_t r, int64_t c, double density, Random& random) {
  p.mask.kind = r * c > 1 ? MaskKind::bsr : MaskKind::csr;
  p.mask.r = r;
  p.mask.c = c;
  p.indptr.assign(1, 0);
  for (int64_t line = 0; line < s.queries / r; ++line) {
    for (int64_t column = 0; column < s.keys / c; ++column) {
      if (random.uniform() < density) p.indices.push_back(static_cast<int32_t>(column));
    }
    p.indptr.push_back(static_cast<int64_t>(p.indices.size()));
  }
  p.mask.indptr = p.indptr.data();
  p.mask.indices = p.indices.data();
}

struct Operands {
  Floats q, k, v;
  Operands(const Shape& s, Random& random)
      : q(s.batch * s.heads * s.queries * s.d, 0, 1),
        k(s.batch * s.kv_heads * s.keys * s.d, 0, 1),
        v(s.batch * s.kv_heads * s.keys * s.dv, 0, 1) {
    for (Floats* x : {&q, &k, &v}) {
      for (int64_t i = 0; i < x->size(); ++i) (*x)[i] = random.symmetric();
    }
  }
};

// Largest |found - exact| of one row, in steps of 2^-24 of the row's largest sum of |w v|.
double worst_of_row(const Shape& s, const Pattern& p, Operands& x, int64_t i, int64_t row, int64_t length, const float* found) {
  const int64_t kv = i / s.heads * s.kv_heads + i % s.heads / (s.heads / s.kv_heads);
  const int64_t position = row + (s.queries == s.keys ? 0 : length - s.queries);
  std::vector<double> out(s.dv, 0.0), size(s.dv, 0.0);
  double total = 0;
  for (int64_t key = 0; key < length && (s.queries != s.keys || row < length); ++key) {
    if ((s.causal && key > position) || !p.sees(row, position, key)) continue;
    double score = 0;
    for (int64_t f = 0; f < s.d; ++f) {
      score += static_cast<double>(x.q[(i * s.queries + row) * s.d + f]) * x.k[(kv * s.keys + key) * s.d + f];
    }
    const double w = exp(0.5 * score);
    total += w;
    for (int64_t f = 0; f < s.dv; ++f) {
      const double value = x.v[(kv * s.keys + key) * s.dv + f];
      out[f] += w * value;
      size[f] += w * fabs(value);
    }
  }
  double worst = 0;
  for (int64_t f = 0; f < s.dv; ++f) {
    const double exact = total > 0 ? out[f] / total : 0.0, scale = total > 0 ? size[f] / total : 0.0;
    const double error = fabs(found[f] - exact);
    if (!(error <= 1e30)) return 1e30;  // NaN: not written
    worst = fmax(worst, scale > 0 ? error / scale * 0x1p24 : error > 0 ? 1e30 : 0.0);
  }
  return worst;
}

// Scores stay below d / 2 and are off by (d + 2) d / 2 steps at most, weights by twice that and the sums by 2 N.
double allowed_steps(const Shape& s) {
  const double d = static_cast<double>(s.d), keys = static_cast<double>(s.keys);
  return d * (d + 2) + 2 * d + 2 * keys + 200;
}

void run(const std::string& what, const Shape& s, const Pattern& p, uint64_t seed, int64_t shorter = 0) {
  if (!sampled()) return;
  Random random(seed);
  Operands x(s, random);
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < s.batch; ++b) lengths.push_back(s.keys - b * shorter);
  for (Isa isa : kTried) {
    if (!attention_has(isa) || !isa_usable(isa)) continue;
    Floats out(s.batch * s.heads * s.queries * s.dv, NAN, 1);
    AttentionCall call{x.q.data(), x.k.data(), x.v.data(), out.data(), s.batch,  s.heads,        s.kv_heads, s.queries,
                       s.keys,     s.d,        s.dv,       0.5f,       s.causal, lengths.data(), &p.mask,    1};
    attention(isa, call, Pool::get());
    double worst = 0;
    for (int64_t i = 0; i < s.batch * s.heads; ++i) {
      for (int64_t row = 0; row < s.queries; ++row) {
        worst = fmax(worst, worst_of_row(s, p, x, i, row, lengths[i / s.heads], &out[(i * s.queries + row) * s.dv]));
      }
    }
    check(worst <= allowed_steps(s), isa,
          what + " on " + isa_name(isa) + ": " + std::to_string(worst) + " of " + std::to_string(allowed_steps(s)) + " steps");
  }
}

}  // namespace

ZS_TEST(attention_rules) {
  const AttentionRule rules[] = {{},
                                 {-1, 1, 0, true},
                                 {0, 1, 0, false},
                                 {9, 1, 0, false},
                                 {20, 1, 3, true},
                                 {30, 3, 0, false},
                                 {-1, 4, 5, false},
                                 {-1, 1, 2, false},
                                 {12, 2, 40, true}};
  int64_t n = 0;
  for (const AttentionRule& rule : rules) {
    for (int64_t size : {1, 7, 16, 33, 64, 65, 130}) {
      const std::string what = "rule " + std::to_string(n++) + " of " + std::to_string(size);
      run(what, {1, 2, 1, size, size, 16, 16, false}, rule_of(rule), n);
      run(what + ", new tokens", {2, 3, 1, (size + 9) / 10, size, 8, 12, true}, rule_of(rule), n);
    }
  }
}

ZS_TEST(attention_features) {
  for (int64_t d : {1, 2, 3, 5, 7, 8, 15, 17, 31, 33, 40}) {
    for (int64_t dv : {1, 4, 6, 9, 16, 37}) {
      const std::string what = std::to_string(d) + " and " + std::to_string(dv) + " features";
      run(what, {1, 1, 1, 20, 70, d, dv, false}, rule_of({10, 1, 2, false}), 3);
      run(what + ", one query", {1, 5, 1, 1, 300, d, dv, true}, rule_of({}), 3);
    }
  }
}

ZS_TEST(attention_stored_masks) {
  Random random(11);
  const std::pair<int64_t, int64_t> blocks[] = {{1, 1}, {1, 4}, {4, 1}, {4, 3}, {16, 12}, {24, 12}, {48, 36}};
  for (const auto& [r, c] : blocks) {
    for (double density : {0.0, 0.02, 0.1, 0.4, 1.0}) {
      for (bool causal : {false, true}) {
        const Shape s{1, 2, 2, 96, 144, 16, 16, causal};
        Pattern p;
        fill(p, s, r, c, density, random);
        run("blocks of " + std::to_string(r) + " x " + std::to_string(c) + ", " + std::to_string(density), s, p, 5);
      }
    }
  }
}

ZS_TEST(attention_lengths) {
  run("lengths", {3, 2, 1, 80, 80, 16, 16, true}, rule_of({15, 1, 0, false}), 6, 40);
  run("lengths of caches", {3, 2, 1, 4, 300, 16, 16, true}, rule_of({50, 1, 0, false}), 6, 120);
  run("lengths of caches, many new tokens", {2, 2, 1, 40, 300, 16, 16, true}, rule_of({-1, 2, 0, false}), 6, 120);
}

ZS_TEST(attention_ranges_of_keys) {
  Pool& pool = Pool::get();
  for (int threads : {1, 4}) {
    pool.resize(threads);
    for (int64_t keys : {255, 256, 511, 512, 1500}) {
      run(std::to_string(keys) + " keys, " + std::to_string(threads) + " threads", {1, 4, 1, 1, keys, 16, 16, true},
          rule_of({}), static_cast<uint64_t>(keys));
    }
  }
  pool.resize(0);
}

}  // namespace zs::test
