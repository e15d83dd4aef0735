// A whole forward pass: steps over named buffers of lane panels. Built once, checked once, then run on any batch.
#pragma once

#include <stdlib.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../kernels/kernel.h"
#include "../runtime/pool.h"
#include "ops.h"

namespace zs {

enum class Op : uint8_t { embed, layernorm, rmsnorm, linear, rope, attention, glu, add, activation, pool };
enum class PoolMode : uint8_t { mean = 0, max = 1, first = 2, last = 3 };
enum class Input : uint8_t { ids = 0, positions = 1, types = 2 };

// Consecutive features of a buffer.
struct Slice {
  int buffer;
  int64_t first, features;
};

// A weight matrix, packed once for each range of lanes: variant i serves up to max_lanes, the last any number.
struct Variant {
  int64_t max_lanes;
  std::shared_ptr<Packed> packed;
};

// One operation. Slices are indices into Program::slices, -1 where absent; tensors are borrowed from who builds the program.
struct Step {
  Op op;
  int in = -1;   // embed: none; attention: q; glu: gate; add: first term
  int in2 = -1;  // attention: k; glu: up; add: second term
  int in3 = -1;  // attention: v
  int out = -1;
  int residual = -1;
  const float* weight = nullptr;  // norms
  const float* bias = nullptr;    // norms, linear; attention: [heads][2 * reach - 1]
  const float* freqs = nullptr;   // rope: half of the rotated features
  const void* table = nullptr;    // embed
  ValueType table_type = ValueType::f32;
  int64_t entries = 0;            // embed: rows of the table
  int64_t offset = 0;             // embed: added to the input
  Input input = Input::ids;
  bool accumulate = false;        // embed: out += instead of out =
  float eps = 0, scale = 1;       // norms; attention, rope
  int64_t groups = 1;             // norms: runs of features with one weight
  int64_t heads = 0, kv_heads = 0, head_dim = 0, half = 0, reach = 0;
  bool causal = false;
  int64_t cache = -1;             // attention: layer of the cache
  Activation activation = Activation::none;
  PoolMode mode = PoolMode::mean;
  bool normalize = false;
  std::vector<Variant> variants;  // linear
  bool per_sequence = false;      // lanes are sequences, no longer tokens: set by Program::check
  std::vector<float> padded_bias; // attention: each row followed by kPanel zeros, made by Program::check
};

// Keys and values of one sequence, all layers. Capacity is a multiple of kPanel; memory is touched as it fills.
class Cache {
 public:
  Cache(std::vector<int64_t> layer_floats_per_token, int64_t tokens);
  ~Cache();
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;
  float* layer(int64_t index) const { return data_ + starts_[index] * capacity_; }
  int64_t layers() const { return static_cast<int64_t>(starts_.size()) - 1; }
  int64_t layer_floats(int64_t index) const { return starts_[index + 1] - starts_[index]; }
  int64_t capacity() const { return capacity_; }
  int64_t bytes() const { return starts_.back() * capacity_ * 4; }
  int64_t length = 0;  // tokens held
  int64_t limit = 0;   // tokens that may be held: what was asked for
  // Set while a run uses it: what one run checked of a cache must not be changed by another.
  std::atomic<bool> busy{false};

 private:
  float* data_ = nullptr;
  int64_t capacity_ = 0;
  std::vector<int64_t> starts_;
};

// Tokens of all sequences one behind the other; sequence b is [offsets[b], offsets[b + 1]).
struct Batch {
  const int32_t* ids = nullptr;
  const int32_t* types = nullptr;  // null: zeros
  int64_t tokens = 0;
  const int64_t* offsets = nullptr;
  int64_t sequences = 0;
  std::vector<Cache*> caches;  // empty, or one a sequence
};

struct RunState;

class Program {
 public:
  Program();
  ~Program();
  std::vector<int64_t> buffers;  // features
  std::vector<Slice> slices;
  std::vector<Step> steps;
  int64_t max_positions = 0;  // 0: no limit

  // Empty, or what is wrong with the program. Must be called, and be empty, before anything else.
  std::string check();
  std::vector<int64_t> cache_layers() const;  // floats a token in each layer
  bool output_per_sequence(int buffer) const { return final_per_sequence_[buffer]; }
  // Empty, or what is wrong with the batch.
  std::string check(const Batch& batch) const;
  // Where a batch is cut, from 0 to its sequences, so that each worker takes a part through all steps alone; {0, sequences} where
  // that would leave workers idle.
  std::vector<int64_t> parts(const Batch& batch) const;
  // Runs what the outputs need and copies each to its place, token-major. step_seconds: null, or one a step, added to.
  // False: no memory.
  bool run(const Batch& batch, const std::vector<int>& outputs, const std::vector<float*>& places, double* step_seconds,
           bool fill_nan);

 private:
  std::string check_step(Step& step, std::vector<int>& lanes);
  std::vector<bool> needed(const std::vector<int>& outputs, bool caching) const;
  bool run_parts(const std::vector<int64_t>& parts, const Batch& batch, const std::vector<int>& outputs,
                 const std::vector<float*>& places, bool fill_nan);

  std::vector<bool> final_per_sequence_;
  std::vector<std::unique_ptr<RunState>> states_;  // one a worker
  std::mutex mutex_;
};

}  // namespace zs
