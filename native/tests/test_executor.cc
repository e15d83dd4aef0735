// What surrounds the matrices, for the instruction set that is selected: elementwise operations, norms, rotary positions,
// attention with and without a cache, pooling; against float64, with bounds from the number of roundings.
#include <math.h>

#include <algorithm>
#include <memory>

#include "../executor/program.h"
#include "../runtime/cpu.h"
#include "reference.h"

namespace zs::test {
namespace {

std::vector<float> random_floats(int64_t count, uint64_t seed, float scale = 1) {
  Random random(seed);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& v : out) v = scale * random.symmetric();
  return out;
}

void expect(bool ok, const std::string& what) { check(ok, cpu().selected, what); }

// Largest |got - want| / bound, NaN counted as infinite.
struct Worst {
  double ratio = 0;
  void add(double got, double want, double bound) {
    const double error = fabs(got - want);
    ratio = std::max(ratio, error <= bound               ? (bound > 0 ? error / bound : 0)
                            : isnan(error) || bound <= 0 ? INFINITY
                                                         : error / bound);
  }
};

void expect(const Worst& worst, const std::string& what) {
  expect(worst.ratio <= 1, what + " is off by " + std::to_string(worst.ratio) + " times its bound");
}

// How far float32 may be from an activation of an exact argument: 8 u |x|, or of tanh 8 u |f|.
double activation_bound(double v, Activation a) {
  if (a == Activation::none || a == Activation::relu) return 0;
  return 8 * kU * (a == Activation::tanh ? fabs(tanh(v)) : fabs(v)) + 0x1p-149;
}

// A program whose q, k and v (and pooled x) are rows of tables, so that every input of what is tested is known exactly.
struct Tables {
  std::vector<std::vector<float>> tables;  // [entries][features]
  std::vector<int64_t> widths;
  int64_t entries;
  Program program;

  explicit Tables(int64_t count) : entries(count) {}

  int buffer(int64_t features) {
    program.buffers.push_back(features);
    program.slices.push_back({static_cast<int>(program.buffers.size()) - 1, 0, features});
    return static_cast<int>(program.slices.size()) - 1;
  }

  // A buffer filled from a random table. All tables must be added before the program runs: steps point into them.
  int embedded(int64_t features, uint64_t seed) {
    const int slice = buffer(features);
    tables.push_back(random_floats(entries * features, seed));
    widths.push_back(features);
    Step step;
    step.op = Op::embed;
    step.out = slice;
    step.table = tables.back().data();
    step.entries = entries;
    program.steps.push_back(step);
    return slice;
  }

  const float* row(int table, int32_t id) const { return tables[table].data() + id * widths[table]; }
};

struct Packing {
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets{0};

  Packing(const std::vector<int64_t>& lengths, int64_t entries, uint64_t seed) {
    Random random(seed);
    for (int64_t length : lengths) {
      for (int64_t i = 0; i < length; ++i) ids.push_back(static_cast<int32_t>(random.below(entries)));
      offsets.push_back(static_cast<int64_t>(ids.size()));
    }
  }

  Batch batch() const {
    Batch b;
    b.ids = ids.data();
    b.tokens = static_cast<int64_t>(ids.size());
    b.offsets = offsets.data();
    b.sequences = static_cast<int64_t>(offsets.size()) - 1;
    return b;
  }
};

// Runs a program and gives the output buffer, token-major.
std::vector<float> run(Program& program, const Batch& batch, int buffer, const std::string& what) {
  const std::string wrong = program.check(batch);
  expect(wrong.empty(), what + " is refused: " + wrong);
  const int64_t lanes = program.output_per_sequence(buffer) ? batch.sequences : batch.tokens;
  std::vector<float> out(static_cast<size_t>(program.buffers[buffer] * lanes), NAN);
  if (wrong.empty()) expect(program.run(batch, {buffer}, {out.data()}, nullptr, true), what + " finds no memory");
  return out;
}

struct Shape {
  int64_t heads, kv_heads, head_dim;
  bool causal;
  bool bias;
};

std::string describe(const Shape& s) {
  return "attention of " + std::to_string(s.heads) + "/" + std::to_string(s.kv_heads) + " heads of " +
         std::to_string(s.head_dim) + (s.causal ? ", causal" : "") + (s.bias ? ", position bias" : "");
}

constexpr int64_t kReach = 200;

struct AttentionProgram : Tables {
  Shape shape;
  std::vector<float> bias;
  int out;

  AttentionProgram(const Shape& s, bool cached) : Tables(97), shape(s) {
    tables.reserve(3);
    const int q = embedded(s.heads * s.head_dim, 3), k = embedded(s.kv_heads * s.head_dim, 5),
              v = embedded(s.kv_heads * s.head_dim, 7);
    out = buffer(s.heads * s.head_dim);
    Step step;
    step.op = Op::attention;
    step.in = q;
    step.in2 = k;
    step.in3 = v;
    step.out = out;
    step.heads = s.heads;
    step.kv_heads = s.kv_heads;
    step.head_dim = s.head_dim;
    step.causal = s.causal;
    step.scale = static_cast<float>(2 / sqrt(static_cast<double>(s.head_dim)));
    if (cached) step.cache = 0;
    if (s.bias) {
      bias = random_floats(s.heads * (2 * kReach - 1), 11, 2);
      step.bias = bias.data();
      step.reach = kReach;
    }
    program.steps.push_back(step);
    const std::string wrong = program.check();
    expect(wrong.empty(), describe(s) + " is refused: " + wrong);
  }

  // The definition for query i of a sequence of `ids`, and how far float32 may be from it: a score is off by at most
  // e = (head_dim + 2) u |q| |k| scale, its exponential by e + 8 u of itself, and a weighted mean of v by twice the
  // largest of these plus the roundings of its two sums, times the weighted mean of |v|.
  void add_query(const std::vector<int32_t>& ids, int64_t i, const float* got, Worst& worst) const {
    const int64_t hd = shape.head_dim, n = shape.causal ? i + 1 : static_cast<int64_t>(ids.size());
    const double scale = program.steps[3].scale;
    std::vector<double> p(static_cast<size_t>(n));
    for (int64_t h = 0; h < shape.heads; ++h) {
      const int64_t kv = h / (shape.heads / shape.kv_heads);
      double top = -INFINITY, error = 0;
      for (int64_t j = 0; j < n; ++j) {
        double score = 0, size = 0;
        for (int64_t d = 0; d < hd; ++d) {
          const double product = static_cast<double>(row(0, ids[i])[h * hd + d]) * row(1, ids[j])[kv * hd + d];
          score += product;
          size += fabs(product);
        }
        p[j] = score * scale + (shape.bias ? bias[h * (2 * kReach - 1) + i - j + kReach - 1] : 0.0f);
        error = std::max(error, static_cast<double>(hd + 2) * kU * size * scale + 4 * kU * fabs(p[j]));
        top = std::max(top, p[j]);
      }
      double total = 0;
      for (double& v : p) total += v = exp(v - top);
      for (int64_t d = 0; d < hd; ++d) {
        double y = 0, size = 0;
        for (int64_t j = 0; j < n; ++j) {
          const double v = row(2, ids[j])[kv * hd + d];
          y += p[j] / total * v;
          size += p[j] / total * fabs(v);
        }
        worst.add(got[h * hd + d], y, (2 * error + static_cast<double>(2 * n + 24) * kU) * size + kU * fabs(y));
      }
    }
  }
};

}  // namespace

ZS_TEST(executor_is_scalar_only_where_nothing_else_is) {
  const Isa isa = cpu().selected;
  check(isa == Isa::scalar || &exec_ops() != &exec_ops_scalar, isa, std::string(isa_name(isa)) + " falls back to scalar code");
}

ZS_TEST(executor_elementwise) {
  const ExecOps& ops = exec_ops();
  for (int64_t n : {1, 8, 16, 24, 64, 72, 1000}) {
    const auto a = random_floats(n, 41, 9), b = random_floats(n, 43, 3);
    for (int i = 0; i < 6; ++i) {
      const Activation activation = static_cast<Activation>(i);
      Floats one(n, NAN), two(n, NAN);
      ops.activation(a.data(), one.data(), n, activation);
      ops.glu(a.data(), b.data(), two.data(), n, activation);
      Worst alone, gated;
      for (int64_t j = 0; j < n; ++j) {
        const double y = activate(a[j], activation), bound = activation_bound(a[j], activation);
        alone.add(one[j], y, bound + kU * fabs(y));
        gated.add(two[j], y * b[j], bound * fabs(b[j]) + 2 * kU * fabs(y * b[j]));
      }
      expect(alone, "activation " + std::to_string(i) + " of " + std::to_string(n));
      expect(gated, "glu " + std::to_string(i) + " of " + std::to_string(n));
    }
    Floats sum(n, NAN);
    ops.add(a.data(), b.data(), sum.data(), n);
    bool same = true;
    for (int64_t j = 0; j < n; ++j) same = same && sum[j] == a[j] + b[j];
    expect(same, "add of " + std::to_string(n));
  }
}

ZS_TEST(executor_activations_far_out) {
  const float far[] = {-INFINITY, -1e30f, -200, -90, -30, -0.0f, 0.0f, 1e-30f, 30, 90, 200, 1e30f, INFINITY, NAN, -15, 15};
  for (int i = 0; i < 6; ++i) {
    const Activation activation = static_cast<Activation>(i);
    float out[16];
    exec_ops().activation(far, out, 16, activation);
    for (int j = 0; j < 16; ++j) {
      const double want = activate(far[j], activation);
      // silu(-inf) and gelu(-inf) are -inf * 0: torch gives NaN, a limit would give 0.
      const bool open = isinf(far[j]) && far[j] < 0 && activation >= Activation::gelu && activation <= Activation::silu;
      const bool right = isnan(far[j]) ? isnan(out[j])
                         : isinf(want) ? out[j] == want
                                       : fabs(out[j] - want) <= activation_bound(far[j], activation) + kU * fabs(want);
      expect(open || right,
             "activation " + std::to_string(i) + " of " + std::to_string(far[j]) + " is " + std::to_string(out[j]));
    }
  }
}

ZS_TEST(executor_norm) {
  for (bool rms : {false, true}) {
    for (int64_t size : {1, 8, 31, 64, 384}) {
      for (int64_t width : {1, 8, 24, 64}) {
        const int64_t groups = size == 31 ? 3 : 1;
        auto x = random_floats(groups * size * width, 51);
        for (float& v : x) v += 0.5f;
        const auto weight = random_floats(size, 53), bias = random_floats(size, 59);
        Floats y(groups * size * width, NAN);
        NormArgs args{{x.data(), groups * size, 0, groups * size},
                      {y.data(), groups * size, 0, groups * size},
                      weight.data(),
                      rms ? nullptr : bias.data(),
                      groups,
                      size,
                      1e-5f,
                      rms};
        exec_ops().norm(args, 0, width, 0, width);
        Worst worst;
        for (int64_t t = 0; t < width; ++t) {
          for (int64_t g = 0; g < groups; ++g) {
            const auto at = [&](int64_t f) { return (g * size + f) * width + t; };
            double mean = 0, size_of = 0, var = 0;
            for (int64_t f = 0; f < size; ++f) {
              mean += rms ? 0 : x[at(f)];
              size_of += rms ? 0 : fabs(x[at(f)]);
            }
            mean /= static_cast<double>(size);
            size_of /= static_cast<double>(size);
            for (int64_t f = 0; f < size; ++f) var += (x[at(f)] - mean) * (x[at(f)] - mean);
            const double eps = 1e-5f, deviation = sqrt(var / static_cast<double>(size) + eps);
            // The mean is off by `off`; what is divided by, by half the roundings of its sum and off / deviation.
            const double n = static_cast<double>(size), off = (n + 1) * kU * size_of;
            for (int64_t f = 0; f < size; ++f) {
              const double centred = x[at(f)] - mean, y64 = centred / deviation * weight[f];
              const double bound = fabs(weight[f]) / deviation * (off + 2 * kU * (fabs(x[at(f)]) + fabs(mean))) +
                                   fabs(y64) * ((n + 3) / 2 * kU + 8 * kU + off / deviation);
              const double want = y64 + (rms ? 0.0 : bias[f]);
              worst.add(y[at(f)], want, bound + 2 * kU * fabs(want) + kU * fabs(y64));
            }
          }
        }
        expect(worst, std::string(rms ? "rmsnorm" : "layernorm") + " of " + std::to_string(groups) + " x " +
                          std::to_string(size) + ", width " + std::to_string(width));
      }
    }
  }
}

ZS_TEST(executor_rope) {
  for (int64_t n : {1, 8, 16, 40, 64, 320}) {
    const auto x1 = random_floats(n, 61), x2 = random_floats(n, 67), angle = random_floats(n, 71, 3);
    std::vector<float> c, s, a = x1, b = x2;
    for (float v : angle) {
      c.push_back(cosf(v));
      s.push_back(sinf(v));
    }
    exec_ops().rope(a.data(), b.data(), c.data(), s.data(), n);
    Worst worst;
    for (int64_t i = 0; i < n; ++i) {
      const double x = x1[i], y = x2[i];
      const double bound = 2 * kU * (fabs(x) + fabs(y));
      worst.add(a[i], x * c[i] - y * s[i], bound);
      worst.add(b[i], y * c[i] + x * s[i], bound);
    }
    expect(worst, "rope of " + std::to_string(n));
  }
}

ZS_TEST(executor_attention_of_packed_sequences) {
  const std::vector<std::vector<int64_t>> batches = {{1}, {2, 3, 1}, {8}, {17, 5, 1, 40}, {63}, {64}, {65}, {130, 9}};
  for (const Shape& shape : {Shape{2, 2, 32, false, false}, Shape{3, 1, 8, true, false}, Shape{4, 2, 64, true, false},
                             Shape{2, 2, 5, false, false}, Shape{2, 2, 16, false, true}}) {
    AttentionProgram p(shape, false);
    for (const auto& lengths : batches) {
      if (!sampled()) continue;
      const Packing packing(lengths, p.entries, 13);
      const auto got = run(p.program, packing.batch(), p.out, describe(shape));
      Worst worst;
      for (size_t b = 0; b + 1 < packing.offsets.size(); ++b) {
        const std::vector<int32_t> ids(packing.ids.begin() + packing.offsets[b], packing.ids.begin() + packing.offsets[b + 1]);
        for (size_t i = 0; i < ids.size(); ++i) {
          p.add_query(ids, static_cast<int64_t>(i), &got[(packing.offsets[b] + i) * shape.heads * shape.head_dim], worst);
        }
      }
      expect(worst, describe(shape) + ", " + std::to_string(packing.ids.size()) + " tokens");
    }
  }
}

ZS_TEST(executor_attention_with_a_cache) {
  // A prompt in pieces, then token by token: each must see all that came before.
  for (const Shape& shape : {Shape{3, 3, 16, true, false}, Shape{4, 2, 64, true, false}, Shape{9, 3, 8, true, false}}) {
    AttentionProgram p(shape, true);
    const Packing whole({150}, p.entries, 17);
    Cache cache(p.program.cache_layers(), 150);
    int64_t done = 0;
    for (int64_t piece : {1, 1, 5, 64, 1, 1, 1, 60, 1, 1, 1, 9, 1, 1, 1, 1}) {
      Batch batch;
      const int64_t offsets[] = {0, piece};
      batch.ids = whole.ids.data() + done;
      batch.tokens = piece;
      batch.offsets = offsets;
      batch.sequences = 1;
      batch.caches = {&cache};
      const auto got = run(p.program, batch, p.out, describe(shape));
      expect(cache.length == done + piece, describe(shape) + ": the cache counts wrongly");
      const std::vector<int32_t> seen(whole.ids.begin(), whole.ids.begin() + done + piece);
      Worst worst;
      for (int64_t i = 0; i < piece; ++i) p.add_query(seen, done + i, &got[i * shape.heads * shape.head_dim], worst);
      expect(worst, describe(shape) + ", " + std::to_string(piece) + " tokens after " + std::to_string(done));
      done += piece;
    }
  }
}

// Each worker takes sequences of its own through all steps: the same result, each output in its place, caches in step.
ZS_TEST(executor_parts) {
  const Shape shape{4, 2, 16, true, false};
  const int64_t features = shape.heads * shape.head_dim;
  Random random(31);
  std::vector<int64_t> lengths;
  for (int i = 0; i < 40; ++i) lengths.push_back(1 + static_cast<int64_t>(random.below(180)));
  for (int threads : {1, 2, 3, 5}) {
    for (bool cached : {false, true}) {
      const std::string what = std::to_string(threads) + " threads" + (cached ? ", cached" : "");
      Pool::get().resize(threads);
      AttentionProgram p(shape, cached);
      const int pooled = p.buffer(features);
      Step step;
      step.op = Op::pool;
      step.in = p.out;
      step.out = pooled;
      p.program.steps.push_back(step);
      const std::string wrong = p.program.check();
      expect(wrong.empty(), what + " is refused: " + wrong);
      const Packing packing(lengths, p.entries, 37);
      Batch batch = packing.batch();
      std::vector<std::unique_ptr<Cache>> caches;
      for (int64_t length : lengths) {
        if (!cached) break;
        caches.push_back(std::make_unique<Cache>(p.program.cache_layers(), length));
        batch.caches.push_back(caches.back().get());
      }
      const std::vector<int64_t> cuts = p.program.parts(batch);
      expect((cuts.size() > 2) == (threads > 1), what + ": " + std::to_string(cuts.size() - 1) + " parts");
      expect(cuts.front() == 0 && cuts.back() == batch.sequences && std::is_sorted(cuts.begin(), cuts.end()),
             what + ": parts do not cover the batch");
      std::vector<float> tokens(features * batch.tokens, NAN), means(features * batch.sequences, NAN);
      expect(p.program.run(batch, {p.out, pooled}, {tokens.data(), means.data()}, nullptr, true), what + " finds no memory");
      Worst worst;
      for (int64_t b = 0; b < batch.sequences; ++b) {
        const int64_t begin = batch.offsets[b], n = lengths[b];
        const std::vector<int32_t> ids(packing.ids.begin() + begin, packing.ids.begin() + begin + n);
        for (int64_t i = 0; i < n; ++i) p.add_query(ids, i, &tokens[(begin + i) * features], worst);
        for (int64_t f = 0; f < features; ++f) {
          double sum = 0, size = 0;
          for (int64_t i = 0; i < n; ++i) sum += tokens[(begin + i) * features + f];
          for (int64_t i = 0; i < n; ++i) size += fabs(tokens[(begin + i) * features + f]);
          worst.add(means[b * features + f], sum / static_cast<double>(n),
                    kU * (size + 2 * fabs(sum) / static_cast<double>(n)));
        }
        if (cached) expect(caches[b]->length == n, what + ": a cache counts wrongly");
      }
      expect(worst, what);
    }
  }
  Pool::get().resize(4);
  AttentionProgram p(shape, false);
  const Packing uneven({900, 20, 20, 20, 20}, p.entries, 41), few({30, 30, 30, 30}, p.entries, 43);
  expect(p.program.parts(uneven.batch()).size() == 2, "one long sequence keeps the others waiting");
  expect(p.program.parts(few.batch()).size() == 2, "parts of a few tokens");
  Pool::get().resize(0);
}

ZS_TEST(executor_pool) {
  for (PoolMode mode : {PoolMode::mean, PoolMode::max, PoolMode::first, PoolMode::last}) {
    for (bool normalize : {false, true}) {
      Tables p(50);
      p.tables.reserve(1);
      const int x = p.embedded(37, 23), y = p.buffer(37);
      Step step;
      step.op = Op::pool;
      step.in = x;
      step.out = y;
      step.mode = mode;
      step.normalize = normalize;
      p.program.steps.push_back(step);
      const std::string what = "pool " + std::to_string(static_cast<int>(mode)) + (normalize ? ", normalised" : "");
      const std::string wrong = p.program.check();
      expect(wrong.empty(), what + " is refused: " + wrong);
      const Packing packing({1, 70, 2, 64, 9, 3, 3, 3, 3}, p.entries, 29);
      const auto got = run(p.program, packing.batch(), y, what);
      Worst worst;
      for (size_t b = 0; b + 1 < packing.offsets.size(); ++b) {
        const int64_t begin = packing.offsets[b], end = packing.offsets[b + 1];
        std::vector<double> want(37), size(37);
        double norm = 0;
        for (int64_t f = 0; f < 37; ++f) {
          double top = -INFINITY, sum = 0;
          for (int64_t i = begin; i < end; ++i) {
            const double v = p.row(0, packing.ids[i])[f];
            top = std::max(top, v);
            sum += v;
            size[f] += fabs(v) / static_cast<double>(end - begin);
          }
          want[f] = mode == PoolMode::mean  ? sum / static_cast<double>(end - begin)
                    : mode == PoolMode::max ? top
                                            : p.row(0, packing.ids[mode == PoolMode::first ? begin : end - 1])[f];
          norm += want[f] * want[f];
        }
        const double n = static_cast<double>(end - begin), scale = normalize ? 1 / sqrt(norm) : 1;
        double worst_size = 0;
        for (double v : size) worst_size = std::max(worst_size, v);
        for (int64_t f = 0; f < 37; ++f) {
          const double mean_error = mode == PoolMode::mean ? (n + 2) * kU * worst_size : 0;
          const double norm_error = normalize ? fabs(want[f] * scale) * (24 * kU + 37 * mean_error * scale) : 0;
          worst.add(got[b * 37 + f], want[f] * scale, mean_error * scale + norm_error + kU * fabs(want[f] * scale));
        }
      }
      expect(worst, what);
    }
  }
}

}  // namespace zs::test
