// Cuts a batch into parts that workers run alone, or runs it as one.
#include "program.h"

#include <math.h>
#include <stdlib.h>

#include <algorithm>
#include <new>

#include "run.h"

namespace zs {
namespace {

// Tokens of a part at least, where there is more than one: below, a product reads its weights for too few. And at most, if
// sequences allow: its activations should stay in its core's cache.
constexpr int64_t kLeastPart = 192, kMostPart = 512;

// How much more than its share the busiest worker may get: what waiting for the slowest at the end of each step costs
// otherwise, about a twentieth for each doubling of the threads (a fifth of the time with 16, Sapphire Rapids).
double tolerable(int64_t workers) { return 1 + 0.05 * log2(static_cast<double>(workers)); }

// Of several parts, taken in order by whoever is free: what the busiest of the workers gets over what each should.
double unevenness(const std::vector<int64_t>& parts, const Batch& batch, int64_t workers) {
  std::vector<int64_t> tokens(workers, 0);
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    *std::min_element(tokens.begin(), tokens.end()) += batch.offsets[parts[i + 1]] - batch.offsets[parts[i]];
  }
  return static_cast<double>(*std::max_element(tokens.begin(), tokens.end()) * workers) / static_cast<double>(batch.tokens);
}

bool run_part(const Program& program, RunState& state, const Batch& batch, const std::vector<bool>& needed,
              const std::vector<int>& outputs, const std::vector<float*>& places, double* step_seconds, bool fill_nan) {
  Run run(program, state, batch);
  if (!run.plan(needed, outputs, fill_nan)) return false;
  run.steps(needed, step_seconds);
  for (size_t i = 0; i < outputs.size(); ++i) run.copy(outputs[i], places[i]);
  return true;
}

// Sequences [first, last) of a batch, as a batch.
Batch part_of(const Batch& batch, int64_t first, int64_t last, std::vector<int64_t>& offsets) {
  const int64_t start = batch.offsets[first];
  offsets.resize(last - first + 1);
  for (int64_t b = first; b <= last; ++b) offsets[b - first] = batch.offsets[b] - start;
  Batch part;
  part.ids = batch.ids + start;
  part.types = batch.types ? batch.types + start : nullptr;
  part.tokens = offsets.back();
  part.offsets = offsets.data();
  part.sequences = last - first;
  if (!batch.caches.empty()) part.caches.assign(batch.caches.begin() + first, batch.caches.begin() + last);
  return part;
}

}  // namespace

Program::Program() = default;
Program::~Program() = default;

Cache::Cache(std::vector<int64_t> layer_floats_per_token, int64_t tokens) : limit(tokens) {
  capacity_ = (tokens + kPanel - 1) / kPanel * kPanel;
  starts_.push_back(0);
  for (int64_t floats : layer_floats_per_token) starts_.push_back(starts_.back() + floats);
  // calloc: pages that no token has reached cost nothing.
  data_ = static_cast<float*>(calloc(starts_.back() * capacity_ + kPanel, sizeof(float)));
  if (!data_) throw std::bad_alloc();
}

Cache::~Cache() { free(data_); }

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

std::vector<int64_t> Program::parts(const Batch& batch) const {
  const std::vector<int64_t> whole = {0, batch.sequences};
  const int64_t workers = Pool::get().available();
  if (workers == 1 || batch.tokens < workers * kLeastPart) return whole;
  std::vector<int64_t> cuts = {0};
  // Smaller ones towards the end, so that workers finish together.
  const auto size = [&](int64_t start) { return std::clamp((batch.tokens - start) / (2 * workers), kLeastPart, kMostPart); };
  int64_t start = 0, wanted = size(0);
  for (int64_t b = 1; b < batch.sequences; ++b) {
    const int64_t middle = (batch.offsets[b] + batch.offsets[b + 1]) / 2;
    if (middle - start <= wanted) continue;
    cuts.push_back(b);
    start = batch.offsets[b];
    wanted = size(start);
  }
  cuts.push_back(batch.sequences);
  return unevenness(cuts, batch, workers) > tolerable(workers) ? whole : cuts;
}

bool Program::run_parts(const std::vector<int64_t>& parts, const Batch& batch, const std::vector<int>& outputs,
                        const std::vector<float*>& places, bool fill_nan) {
  const std::vector<bool> needed = this->needed(outputs, !batch.caches.empty());
  std::atomic<bool> ok{true};
  Pool::get().parallel(static_cast<int64_t>(parts.size()) - 1, [&](int64_t i, int worker) {
    try {
      RunState own;  // for a worker that came since the states were made
      RunState& state = worker < static_cast<int>(states_.size()) ? *states_[worker] : own;
      const int64_t first = parts[i];
      const Batch part = part_of(batch, first, parts[i + 1], state.offsets);
      std::vector<float*> at = places;
      for (size_t o = 0; o < outputs.size(); ++o) {
        at[o] += (output_per_sequence(outputs[o]) ? first : batch.offsets[first]) * buffers[outputs[o]];
      }
      if (!run_part(*this, state, part, needed, outputs, at, nullptr, fill_nan)) ok = false;
    } catch (const std::bad_alloc&) {
      ok = false;
    }
  });
  return ok;
}

bool Program::run(const Batch& batch, const std::vector<int>& outputs, const std::vector<float*>& places, double* step_seconds,
                  bool fill_nan) {
  std::lock_guard<std::mutex> lock(mutex_);
  while (states_.size() < static_cast<size_t>(Pool::get().size())) states_.push_back(std::make_unique<RunState>());
  const std::vector<int64_t> cuts = parts(batch);
  // Times of steps are those of all workers together.
  const bool one = cuts.size() == 2 || step_seconds;
  const bool ok =
      one ? run_part(*this, *states_[0], batch, needed(outputs, !batch.caches.empty()), outputs, places, step_seconds, fill_nan)
          : run_parts(cuts, batch, outputs, places, fill_nan);
  if (!ok) return false;
  for (size_t b = 0; b < batch.caches.size(); ++b) batch.caches[b]->length += batch.offsets[b + 1] - batch.offsets[b];
  return true;
}

}  // namespace zs
