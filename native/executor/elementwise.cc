#include "run.h"
#include "tasks.h"

namespace zs {

void Run::run_elementwise(const Step& s, int64_t lanes) {
  const View a = view(s.in), out = view(s.out);
  const View b = s.in2 >= 0 ? view(s.in2) : a;
  const ExecOps& ops = exec_ops();
  for_feature_runs(lanes, out.features, [&](int64_t p, int64_t width, int64_t f0, int64_t f1) {
    const float* x = view_at(a, p, width, f0);
    const float* y = view_at(b, p, width, f0);
    float* to = view_at(out, p, width, f0);
    const int64_t n = (f1 - f0) * width;
    if (s.op == Op::activation) ops.activation(x, to, n, s.activation);
    if (s.op == Op::glu) ops.glu(x, y, to, n, s.activation);
    if (s.op == Op::add) ops.add(x, y, to, n);
  });
}

}  // namespace zs
