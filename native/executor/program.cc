// Plans the buffers of a run, walks the steps, copies the outputs.
#include "program.h"

#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <limits>

namespace zs {
namespace {

// Whole vectors are read at the end of a row of lanes: that much follows each buffer.
constexpr int64_t kSlack = kPanel;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

Cache::Cache(std::vector<int64_t> layer_floats_per_token, int64_t tokens) : limit(tokens) {
  capacity_ = (tokens + kPanel - 1) / kPanel * kPanel;
  starts_.push_back(0);
  for (int64_t floats : layer_floats_per_token) starts_.push_back(starts_.back() + floats);
  // calloc: pages that no token has reached cost nothing.
  data_ = static_cast<float*>(calloc(starts_.back() * capacity_ + kSlack, sizeof(float)));
  if (!data_) throw std::bad_alloc();
}

Cache::~Cache() { free(data_); }

View Program::view(int slice) const {
  const Slice& s = slices[slice];
  return {state_.arena + state_.starts[s.buffer], buffers[s.buffer], s.first, s.features};
}

std::vector<bool> Program::needed(const std::vector<int>& outputs, bool caching) const {
  std::vector<bool> live(buffers.size(), false), run(steps.size(), false);
  for (int b : outputs) live[b] = true;
  for (size_t i = steps.size(); i-- > 0;) {
    const Step& s = steps[i];
    const int written = s.op == Op::rope ? s.in : s.out;
    // A cache must take every layer's keys and values, whatever the outputs need.
    const bool keeps = caching && s.op == Op::attention && s.cache >= 0;
    if (!live[slices[written].buffer] && !keeps) continue;
    run[i] = true;
    const bool replaces = s.op != Op::rope && !s.accumulate && slices[written].features == buffers[slices[written].buffer];
    if (replaces) live[slices[written].buffer] = false;
    for (int slice : {s.in, s.in2, s.in3, s.residual}) {
      if (slice >= 0) live[slices[slice].buffer] = true;
    }
  }
  return run;
}

bool Program::plan(const Batch& batch, const std::vector<bool>& run, const std::vector<int>& outputs) {
  std::vector<int64_t> lanes(buffers.size(), 0);
  const auto use = [&](int slice, int64_t n) {
    if (slice >= 0) lanes[slices[slice].buffer] = std::max(lanes[slices[slice].buffer], n);
  };
  for (int b : outputs) lanes[b] = std::max<int64_t>(lanes[b], 1);
  for (size_t i = 0; i < steps.size(); ++i) {
    if (!run[i]) continue;
    const Step& s = steps[i];
    const int64_t n = s.per_sequence ? batch.sequences : batch.tokens;
    for (int slice : {s.in, s.in2, s.in3, s.residual}) use(slice, n);
    use(s.out, s.op == Op::pool ? batch.sequences : n);
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
  return state_.arena != nullptr;
}

void Program::prepare(const Batch& batch) {
  state_.sequences.resize(batch.sequences);
  state_.positions.resize(batch.tokens);
  state_.tiles.clear();
  state_.singles.clear();
  state_.rotations_used = 0;
  for (int64_t b = 0; b < batch.sequences; ++b) {
    Sequence& s = state_.sequences[b];
    s = {batch.offsets[b], batch.offsets[b + 1] - batch.offsets[b], 0, nullptr, 0};
    if (!batch.caches.empty()) {
      s.past = batch.caches[b]->length;
      s.cache_tokens = batch.caches[b]->capacity();
    }
    for (int64_t i = 0; i < s.length; ++i) state_.positions[s.first + i] = static_cast<int32_t>(s.past + i);
    if (!batch.caches.empty() && s.length == 1) {
      state_.singles.push_back(static_cast<int>(b));
      continue;
    }
    for (int64_t q0 = 0; q0 < s.length; q0 += kPanel) {
      state_.tiles.push_back({static_cast<int>(b), q0, std::min(kPanel, s.length - q0)});
    }
  }
}

void Program::run_step(const Step& s, const Batch& batch) {
  const int64_t lanes = s.per_sequence ? batch.sequences : batch.tokens;
  switch (s.op) {
    case Op::embed: return run_embed(s, batch);
    case Op::layernorm:
    case Op::rmsnorm: return run_norm(s, lanes);
    case Op::linear: return run_linear(s, lanes);
    case Op::rope: return run_rope(s, batch);
    case Op::attention: return run_attention(s, batch);
    case Op::glu:
    case Op::add:
    case Op::activation: return run_elementwise(s, lanes);
    case Op::pool: return run_pool(s, batch);
  }
}

void Program::run_linear(const Step& s, int64_t lanes) {
  const Variant* variant = s.variants.data();
  while (lanes > variant->max_lanes) ++variant;
  Epilogue epilogue;
  epilogue.bias = s.bias;
  epilogue.activation = s.activation;
  if (s.residual >= 0) epilogue.residual = view(s.residual).data;
  epilogue.same_x = state_.last_x == slices[s.in].buffer;
  state_.last_x = slices[s.in].buffer;
  const Packed& packed = *variant->packed;
  packed.kernel->run(packed, view(s.in).data, lanes, Output{view(s.out).data, 0}, epilogue, Pool::get());
}

bool Program::run(const Batch& batch, const std::vector<int>& outputs, const std::vector<float*>& places, double* step_seconds,
                  bool fill_nan) {
  std::lock_guard<std::mutex> lock(mutex_);
  const std::vector<bool> run = needed(outputs, !batch.caches.empty());
  if (!plan(batch, run, outputs)) return false;
  if (fill_nan) std::fill(state_.arena, state_.arena + state_.arena_floats, std::numeric_limits<float>::quiet_NaN());
  prepare(batch);
  state_.last_x = -1;
  double before = step_seconds ? now() : 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (!run[i]) continue;
    run_step(steps[i], batch);
    const int written = steps[i].op == Op::rope ? steps[i].in : steps[i].out;
    if (slices[written].buffer == state_.last_x) state_.last_x = -1;
    if (step_seconds) {
      const double after = now();
      step_seconds[i] += after - before;
      before = after;
    }
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    const int64_t lanes = final_per_sequence_[outputs[i]] ? batch.sequences : batch.tokens;
    from_panels(state_.arena + state_.starts[outputs[i]], buffers[outputs[i]], lanes, true, places[i], Pool::get());
  }
  for (size_t b = 0; b < batch.caches.size(); ++b) batch.caches[b]->length += batch.offsets[b + 1] - batch.offsets[b];
  return true;
}

}  // namespace zs
