// One row of masked_softmax.cc, compiled once per instruction set. Three passes over a row that is in L1: the exponents and the
// largest of them, their exponentials and the sum, the quotients.
#include <stdint.h>
#include <string.h>

#include "../../runtime/vecmath.inl"
#include "masked_softmax.h"

namespace zs {
namespace {

static inline vf load_some(const float* p, int64_t n, float rest) {
  if (n >= kVf) return vload(p);
  vf x = vset(rest);
  for (int64_t i = 0; i < n; ++i) x[i] = p[i];
  return x;
}

static inline void store_some(float* p, vf x, int64_t n) {
  if (n >= kVf) return vstore(p, x);
  for (int64_t i = 0; i < n; ++i) p[i] = x[i];
}

// Lanes behind the last entry are -inf, which is neither the largest nor adds to the sum. A NaN is not the largest, stays NaN in its
// exponential, and so makes the sum NaN and with it the row.
static void softmax_row(const float* scores, const float* bias, float scale, int64_t n, float* out) {
  const float low = -__builtin_inff();
  vf most = vset(low);
  for (int64_t i = 0; i < n; i += kVf) {
    const vf s = load_some(scores + i, n - i, low);
    vf x = bias ? vfma(s, vset(scale), load_some(bias + i, n - i, 0.0f)) : s * vset(scale);
    store_some(out + i, x, n - i);
    if (n - i < kVf) x = load_some(out + i, n - i, low);  // a negative scale has turned the lanes behind the end to +inf
    most = vmax(x, most);
  }
  float m = low;
  for (int i = 0; i < kVf; ++i) m = most[i] > m ? most[i] : m;
  if (m == low) m = 0.0f;  // nothing but -inf: all weights are 0, unless there is a NaN
  vf sums = vset(0.0f);
  for (int64_t i = 0; i < n; i += kVf) {
    const vf e = vexp(load_some(out + i, n - i, low) - vset(m));
    store_some(out + i, e, n - i);
    sums += e;
  }
  const float sum = vsum(sums);
  const vf inverse = vset(sum == 0.0f ? 0.0f : 1.0f / sum);
  for (int64_t i = 0; i < n; i += kVf) store_some(out + i, load_some(out + i, n - i, 0.0f) * inverse, n - i);
}

}  // namespace
}  // namespace zs

#define ZS_MASKED_SOFTMAX(isa)                                    \
  namespace zs {                                                  \
  extern const SoftmaxMicro masked_softmax_##isa = {softmax_row}; \
  }
