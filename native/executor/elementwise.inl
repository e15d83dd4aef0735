// Loops over contiguous floats: the features of a panel lie one behind the other, and so do those of a single token.

namespace zs {
namespace {

template <Activation kind> static inline vf activated(vf x) {
  if constexpr (kind == Activation::relu) return vrelu(x);
  if constexpr (kind == Activation::gelu) return vgelu(x);
  if constexpr (kind == Activation::gelu_tanh) return vgelu_tanh(x);
  if constexpr (kind == Activation::silu) return vsilu(x);
  if constexpr (kind == Activation::tanh) return vtanh(x);
  return x;
}

template <Activation kind> static void activate_run(const float* x, const float* up, float* out, int64_t n) {
  for (int64_t i = 0; i < n; i += kVf) {
    vf y = activated<kind>(vload_part(x + i, n - i));
    if (up) y *= vload_part(up + i, n - i);
    vstore_part(out + i, y, n - i);
  }
}

static void activate_any(const float* x, const float* up, float* out, int64_t n, Activation kind) {
  switch (kind) {
    case Activation::none: return activate_run<Activation::none>(x, up, out, n);
    case Activation::relu: return activate_run<Activation::relu>(x, up, out, n);
    case Activation::gelu: return activate_run<Activation::gelu>(x, up, out, n);
    case Activation::gelu_tanh: return activate_run<Activation::gelu_tanh>(x, up, out, n);
    case Activation::silu: return activate_run<Activation::silu>(x, up, out, n);
    case Activation::tanh: return activate_run<Activation::tanh>(x, up, out, n);
  }
}

void activation(const float* x, float* out, int64_t n, Activation kind) { activate_any(x, nullptr, out, n, kind); }

void glu(const float* gate, const float* up, float* out, int64_t n, Activation kind) { activate_any(gate, up, out, n, kind); }

void add(const float* a, const float* b, float* out, int64_t n) {
  for (int64_t i = 0; i < n; i += kVf) vstore_part(out + i, vload_part(a + i, n - i) + vload_part(b + i, n - i), n - i);
}

void rope(float* x1, float* x2, const float* cosine, const float* sine, int64_t n) {
  for (int64_t i = 0; i < n; i += kVf) {
    const vf a = vload_part(x1 + i, n - i), b = vload_part(x2 + i, n - i);
    const vf c = vload_part(cosine + i, n - i), s = vload_part(sine + i, n - i);
    vstore_part(x1 + i, vfma(a, c, -(b * s)), n - i);
    vstore_part(x2 + i, vfma(b, c, a * s), n - i);
  }
}

}  // namespace
}  // namespace zs
