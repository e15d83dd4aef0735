// LayerNorm and RMSNorm down the features, each lane on its own: no sum across lanes. The variance is taken around the mean in
// a second pass, because sum(x^2) - n mean^2 cancels; a panel of 64 lanes stays in L2 between the passes.

namespace zs {
namespace {

// Sums over features in runs of kRun first: a rounding error of a plain sum grows with the square root of its length, and
// one in the scale moves every feature of a token alike, which models with a few huge features magnify from layer to layer.
constexpr int64_t kRun = 16;

// sum over features of (x - mean)^power, nv vectors of lanes side by side.
template <int nv, int part, int power>
static inline void sum_features(const float* x, int64_t width, int64_t size, const vf* mean, vf* sum) {
  for (int v = 0; v < nv; ++v) sum[v] = vset(0.0f);
  for (int64_t f0 = 0; f0 < size; f0 += kRun) {
    vf run[nv];
    for (int v = 0; v < nv; ++v) run[v] = vset(0.0f);
    for (int64_t f = f0; f < min_of(size, f0 + kRun); ++f) {
      for (int v = 0; v < nv; ++v) {
        const vf y = vload_part(x + f * width + v * kVf, part);
        if constexpr (power == 1) {
          run[v] += y;
        } else {
          run[v] = vfma(y - mean[v], y - mean[v], run[v]);
        }
      }
    }
    for (int v = 0; v < nv; ++v) sum[v] += run[v];
  }
}

// nv vectors of lanes; `part` lanes in each (kVf, or the 8 lanes that a 16-lane vector finds at a panel's end).
template <int nv, int part> static void norm_lanes(const NormArgs& a, const float* x, float* y, int64_t width) {
  const vf inverse = vset(1.0f / static_cast<float>(a.size));
  vf mean[nv], scale[nv];
  for (int v = 0; v < nv; ++v) mean[v] = vset(0.0f);
  if (!a.rms) {
    sum_features<nv, part, 1>(x, width, a.size, nullptr, mean);
    for (int v = 0; v < nv; ++v) mean[v] *= inverse;
  }
  sum_features<nv, part, 2>(x, width, a.size, mean, scale);
  for (int v = 0; v < nv; ++v) scale[v] = vset(1.0f) / vsqrt(vfma(scale[v], inverse, vset(a.eps)));
  for (int64_t f = 0; f < a.size; ++f) {
    const vf weight = vset(a.weight[f]);
    const vf bias = vset(a.bias ? a.bias[f] : 0.0f);
    for (int v = 0; v < nv; ++v) {
      const vf d = (vload_part(x + f * width + v * kVf, part) - mean[v]) * scale[v];
      vstore_part(y + f * width + v * kVf, vfma(d, weight, bias), part);
    }
  }
}

// One token: vectors lie along the features, four sums at once to hide the latency of an addition.
static void norm_one(const NormArgs& a, const float* x, float* y) {
  const int64_t n = a.size;
  const int64_t main = n / (4 * kVf) * (4 * kVf);
  vf s[4] = {};
  float mean = 0;
  if (!a.rms) {
    for (int64_t i = 0; i < main; i += 4 * kVf) {
      for (int u = 0; u < 4; ++u) s[u] += vload(x + i + u * kVf);
    }
    for (int64_t i = main; i < n; i += kVf) s[0] += vload_part(x + i, n - i);
    mean = vsum((s[0] + s[1]) + (s[2] + s[3])) / static_cast<float>(n);
  }
  const vf m = vset(mean);
  for (int u = 0; u < 4; ++u) s[u] = vset(0.0f);
  for (int64_t i = 0; i < main; i += 4 * kVf) {
    for (int u = 0; u < 4; ++u) {
      const vf d = vload(x + i + u * kVf) - m;
      s[u] = vfma(d, d, s[u]);
    }
  }
  float square = vsum((s[0] + s[1]) + (s[2] + s[3]));
  for (int64_t i = main; i < n; ++i) square += (x[i] - mean) * (x[i] - mean);
  const vf scale = vset(1.0f / __builtin_sqrtf(square / static_cast<float>(n) + a.eps));
  for (int64_t i = 0; i < n; i += kVf) {
    const vf d = (vload_part(x + i, n - i) - m) * scale;
    const vf bias = a.bias ? vload_part(a.bias + i, n - i) : vset(0.0f);
    vstore_part(y + i, vfma(d, vload_part(a.weight + i, n - i), bias), n - i);
  }
}

void norm(const NormArgs& a, int64_t panel, int64_t width, int64_t lane0, int64_t lane1) {
  for (int64_t g = 0; g < a.groups; ++g) {
    const float* x = view_at(a.in, panel, width, g * a.size);
    float* y = view_at(a.out, panel, width, g * a.size);
    if (width == 1) {
      norm_one(a, x, y);
      continue;
    }
    int64_t t = lane0;
    for (; lane1 - t >= 4 * kVf; t += 4 * kVf) norm_lanes<4, kVf>(a, x + t, y + t, width);
    for (; lane1 - t >= kVf; t += kVf) norm_lanes<1, kVf>(a, x + t, y + t, width);
    if (t < lane1) norm_lanes<1, kLaneUnit>(a, x + t, y + t, width);
  }
}

}  // namespace
}  // namespace zs
