#include "run.h"
#include "tasks.h"

namespace zs {

void Run::run_norm(const Step& s, int64_t lanes) {
  const View in = view(s.in);
  const NormArgs args = {in, view(s.out), s.weight, s.bias, s.groups, in.features / s.groups, s.eps, s.op == Op::rmsnorm};
  // Whole panels stream best; a few panels are split, down to a cache line of lanes, so that every thread has some.
  const int64_t panels = panel_count(lanes);
  const int64_t span = panels >= 2 * Pool::get().available() ? kPanel : 16;
  const int64_t spans = kPanel / span;
  for_tasks(panels * spans, in.features * lanes, [&](int64_t task) {
    const int64_t p = task / spans, width = panel_width(lanes, p), lane = task % spans * span;
    if (lane < width) exec_ops().norm(args, p, width, lane, min_of(width, lane + span));
  });
}

}  // namespace zs
