// Cuts what an operation does into tasks for the pool.
#pragma once

#include "../runtime/pool.h"
#include "ops.h"

namespace zs {

// Work below this many floats is done by the caller: waking the pool costs about as much.
constexpr int64_t kInlineFloats = 16 * 1024;

template <class F> void for_tasks(int64_t tasks, int64_t floats, F&& body) {
  if (floats < kInlineFloats) {
    for (int64_t i = 0; i < tasks; ++i) body(i);
    return;
  }
  Pool::get().parallel(tasks, [&](int64_t task, int) { body(task); });
}

// body(panel, width, f0, f1): the panels of a buffer, each in runs of features of about 8192 floats.
template <class F> void for_feature_runs(int64_t lanes, int64_t features, F&& body) {
  const int64_t rows = max_of(1, 8192 / min_of(kPanel, padded_lanes(lanes)));
  const int64_t runs = (features + rows - 1) / rows;
  for_tasks(panel_count(lanes) * runs, features * lanes, [&](int64_t task) {
    const int64_t p = task / runs, f0 = task % runs * rows;
    body(p, panel_width(lanes, p), f0, min_of(features, f0 + rows));
  });
}

// Lanes beyond the last token of a buffer that is written lane by lane: finite, whatever was there before.
static inline void zero_padding(const View& v, int64_t lanes) {
  const int64_t p = panel_count(lanes) - 1, width = panel_width(lanes, p);
  for (int64_t f = 0; f < v.features; ++f) {
    for (int64_t t = lanes - p * kPanel; t < width; ++t) view_at(v, p, width, f)[t] = 0;
  }
}

}  // namespace zs
