// Row-major and token-major arrays to lane panels and back, against the layout as types.h words it.
#include <math.h>

#include "../kernels/kernel.h"
#include "check.h"

namespace zs::test {
namespace {

void check_layout(int64_t features, int64_t lanes, bool token_major) {
  const std::string what = std::to_string(features) + " features, " + std::to_string(lanes) + " lanes" +
                           (token_major ? ", token-major" : ", row-major");
  Floats x(features * lanes, 0);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i + 1);
  Floats panels(features * padded_lanes(lanes), NAN);
  to_panels(x.data(), features, lanes, token_major, panels.data(), Pool::get());
  bool placed = true;
  bool padded = true;
  for (int64_t f = 0; f < features; ++f) {
    for (int64_t t = 0; t < padded_lanes(lanes); ++t) {
      const int64_t p = t / kPanel;
      const float got = panels[p * kPanel * features + f * panel_width(lanes, p) + t % kPanel];
      if (t >= lanes) {
        padded = padded && isfinite(got);
      } else {
        placed = placed && got == x[token_major ? t * features + f : f * lanes + t];
      }
    }
  }
  check(placed, "to_panels puts a value in the wrong place: " + what);
  check(padded, "to_panels leaves padding unset: " + what);
  Floats back(features * lanes, NAN);
  from_panels(panels.data(), features, lanes, token_major, back.data(), Pool::get());
  bool same = true;
  for (int64_t i = 0; i < x.size(); ++i) same = same && back[i] == x[i];
  check(same, "from_panels does not undo to_panels: " + what);
}

}  // namespace

ZS_TEST(panels_round_trip) {
  for (int64_t features : {1, 3, 8, 63, 64, 65, 130}) {
    for (int64_t lanes : {1, 2, 7, 8, 9, 63, 64, 65, 72, 127, 128, 130, 200}) {
      check_layout(features, lanes, false);
      check_layout(features, lanes, true);
    }
  }
}

ZS_TEST(panels_widths_add_up) {
  for (int64_t lanes = 1; lanes <= 300; ++lanes) {
    int64_t width = 0;
    for (int64_t p = 0; p < panel_count(lanes); ++p) width += panel_width(lanes, p);
    check(width == padded_lanes(lanes), "the panels' widths do not add up to the padded lanes at " + std::to_string(lanes));
  }
}

}  // namespace zs::test
