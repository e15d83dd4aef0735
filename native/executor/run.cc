// One pass: plans the buffers, walks the steps, copies the outputs.
#include "run.h"

#include <algorithm>
#include <chrono>
#include <limits>

namespace zs {
namespace {

// Whole vectors are read at the end of a row of lanes: that much follows each buffer.
constexpr int64_t kSlack = kPanel;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

View Run::view(int slice) const {
  const Slice& s = program_.slices[slice];
  return {state_.arena + state_.starts[s.buffer], program_.buffers[s.buffer], s.first, s.features};
}

bool Run::plan(const std::vector<bool>& needed, const std::vector<int>& outputs, bool fill_nan) {
  const std::vector<int64_t>& buffers = program_.buffers;
  const std::vector<Slice>& slices = program_.slices;
  std::vector<int64_t> lanes(buffers.size(), 0);
  const auto use = [&](int slice, int64_t n) {
    if (slice >= 0) lanes[slices[slice].buffer] = std::max(lanes[slices[slice].buffer], n);
  };
  for (int b : outputs) lanes[b] = std::max<int64_t>(lanes[b], 1);
  for (size_t i = 0; i < program_.steps.size(); ++i) {
    if (!needed[i]) continue;
    const Step& s = program_.steps[i];
    const int64_t n = s.per_sequence ? batch_.sequences : batch_.tokens;
    for (int slice : {s.in, s.in2, s.in3, s.residual}) use(slice, n);
    use(s.out, s.op == Op::pool ? batch_.sequences : n);
  }
  int64_t total = 0;
  state_.starts.assign(buffers.size(), -1);
  for (size_t b = 0; b < buffers.size(); ++b) {
    if (!lanes[b]) continue;
    state_.starts[b] = total;
    total += (buffers[b] * padded_lanes(lanes[b]) + kSlack + 15) / 16 * 16;
  }
  if (total > state_.arena_floats) {
    free(state_.arena);
    const int64_t bytes = (total * 4 + 4095) / 4096 * 4096;
    state_.arena = static_cast<float*>(aligned_alloc(4096, bytes));
    state_.arena_floats = state_.arena ? bytes / 4 : 0;
    // Padding lanes are computed on but never read out; they must not start as NaN or denormals, which are slow.
    if (state_.arena) std::fill(state_.arena, state_.arena + state_.arena_floats, 0.0f);
  }
  if (state_.arena && fill_nan) {
    std::fill(state_.arena, state_.arena + state_.arena_floats, std::numeric_limits<float>::quiet_NaN());
  }
  return state_.arena != nullptr;
}

void Run::prepare() {
  state_.sequences.resize(batch_.sequences);
  state_.positions.resize(batch_.tokens);
  state_.tiles.clear();
  state_.singles.clear();
  state_.rotations_used = 0;
  state_.last_x = -1;
  for (int64_t b = 0; b < batch_.sequences; ++b) {
    Sequence& s = state_.sequences[b];
    s = {batch_.offsets[b], batch_.offsets[b + 1] - batch_.offsets[b], 0, nullptr, 0};
    if (!batch_.caches.empty()) {
      s.past = batch_.caches[b]->length;
      s.cache_tokens = batch_.caches[b]->capacity();
    }
    for (int64_t i = 0; i < s.length; ++i) state_.positions[s.first + i] = static_cast<int32_t>(s.past + i);
    if (!batch_.caches.empty() && s.length == 1) {
      state_.singles.push_back(static_cast<int>(b));
      continue;
    }
    for (int64_t q0 = 0; q0 < s.length; q0 += kPanel) {
      state_.tiles.push_back({static_cast<int>(b), q0, std::min(kPanel, s.length - q0)});
    }
  }
}

void Run::run_step(const Step& s) {
  const int64_t lanes = s.per_sequence ? batch_.sequences : batch_.tokens;
  switch (s.op) {
    case Op::embed: return run_embed(s);
    case Op::layernorm:
    case Op::rmsnorm: return run_norm(s, lanes);
    case Op::linear: return run_linear(s, lanes);
    case Op::rope: return run_rope(s);
    case Op::attention: return run_attention(s);
    case Op::glu:
    case Op::add:
    case Op::activation: return run_elementwise(s, lanes);
    case Op::pool: return run_pool(s);
  }
}

void Run::run_linear(const Step& s, int64_t lanes) {
  const Variant* variant = s.variants.data();
  while (lanes > variant->max_lanes) ++variant;
  Epilogue epilogue;
  epilogue.bias = s.bias;
  epilogue.activation = s.activation;
  if (s.residual >= 0) epilogue.residual = view(s.residual).data;
  epilogue.same_x = state_.last_x == program_.slices[s.in].buffer;
  state_.last_x = program_.slices[s.in].buffer;
  const Packed& packed = *variant->packed;
  packed.kernel->run(packed, view(s.in).data, lanes, Output{view(s.out).data, 0}, epilogue, Pool::get());
}

void Run::steps(const std::vector<bool>& needed, double* step_seconds) {
  prepare();
  double before = step_seconds ? now() : 0;
  for (size_t i = 0; i < program_.steps.size(); ++i) {
    if (!needed[i]) continue;
    const Step& s = program_.steps[i];
    run_step(s);
    const int written = s.op == Op::rope ? s.in : s.out;
    if (program_.slices[written].buffer == state_.last_x) state_.last_x = -1;
    if (step_seconds) {
      const double after = now();
      step_seconds[i] += after - before;
      before = after;
    }
  }
}

void Run::copy(int output, float* place) const {
  const int64_t lanes = program_.output_per_sequence(output) ? batch_.sequences : batch_.tokens;
  from_panels(state_.arena + state_.starts[output], program_.buffers[output], lanes, true, place, Pool::get());
}

}  // namespace zs
