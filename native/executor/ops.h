// What the executor asks of an instruction set: one table of plain functions, each doing one task of an operation on lane
// panels. The drivers (embed.cc, norm.cc, ...) cut the work into tasks and hand them to the pool. C headers only.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "zeroskip/types.h"

namespace zs {

// A buffer, or some consecutive features of one. `rows` are the features of the whole buffer, which set the panel stride.
struct View {
  float* data = nullptr;
  int64_t rows = 0;
  int64_t first = 0;
  int64_t features = 0;
};

static inline float* view_at(const View& v, int64_t panel, int64_t width, int64_t feature) {
  return v.data + panel * kPanel * v.rows + (v.first + feature) * width;
}

struct EmbedArgs {
  const void* table;    // [entries][features]
  ValueType type;
  const int32_t* index; // one entry a lane, in range
  int64_t lanes;
  View out;
  bool add;
};

// y = (x - mean) / sqrt(var + eps) * weight + bias over each of `groups` runs of `size` features. rms: mean is 0.
struct NormArgs {
  View in, out;
  const float* weight;  // [size]
  const float* bias;    // [size] or null
  int64_t groups, size;
  float eps;
  bool rms;
};

// Keys [0, count) of one sequence that lie together: element d of key j at k[d * k_stride + j], v[d * v_feature + j * v_key].
struct KeyBlock {
  const float* k;
  const float* v;
  int64_t k_stride, v_feature, v_key;
  int64_t first, count;
};

// Keys and values of one layer and key head in a cache: keys in blocks [head_dim][kPanel], values [max_tokens][head_dim].
struct CacheHead {
  float* k;
  float* v;
};

struct AttentionArgs {
  View q, k, v, out;
  int64_t heads, kv_heads, head_dim;
  float scale;
  bool causal;
  const float* bias;     // [heads][bias_stride], entry (query - key) + reach - 1, padded by kPanel; or null
  int64_t reach, bias_stride;
  int64_t lanes;         // of the buffers
};

// One sequence of the batch: `length` new tokens at lane `first`, after `past` tokens that only the cache holds.
struct Sequence {
  int64_t first, length, past;
  float* cache;          // this layer of this sequence's cache, or null
  int64_t cache_tokens;  // its capacity, a multiple of kPanel
};

static inline CacheHead cache_head(const AttentionArgs& a, const Sequence& s, int64_t kv_head) {
  const int64_t size = s.cache_tokens * a.head_dim;
  return {s.cache + kv_head * 2 * size, s.cache + kv_head * 2 * size + size};
}

static inline int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

struct ExecOps {
  // Features [f0, f1) of a panel.
  void (*embed)(const EmbedArgs&, int64_t panel, int64_t f0, int64_t f1);
  // Lanes [lane0, lane1) of a panel of this width; multiples of kLaneUnit, or the one lane of width 1.
  void (*norm)(const NormArgs&, int64_t panel, int64_t width, int64_t lane0, int64_t lane1);
  // x1, x2: the halves of what rotates, n floats each; cosine and sine alike.
  void (*rope)(float* x1, float* x2, const float* cosine, const float* sine, int64_t n);
  void (*activation)(const float* x, float* out, int64_t n, Activation);
  void (*glu)(const float* gate, const float* up, float* out, int64_t n, Activation);
  void (*add)(const float* a, const float* b, float* out, int64_t n);
  // Queries [q0, q0 + count) of a sequence and head, count <= kPanel. scratch: attend_tile_floats(head_dim) floats.
  void (*attend_tile)(const AttentionArgs&, const Sequence&, int64_t head, int64_t q0, int64_t count, float* scratch);
  // The one query of a sequence in every head of a key head, over cached keys [key0, key1); writes for each head
  // {max, sum, out[head_dim]} to `partial`. scratch: attend_token_floats.
  void (*attend_token)(const AttentionArgs&, const Sequence&, int64_t kv_head, int64_t key0, int64_t key1, float* partial,
                       float* scratch);
  // Appends the new keys and values of one key head to the cache.
  void (*append)(const AttentionArgs&, const Sequence&, int64_t kv_head);
};

static inline int64_t attend_tile_floats(int64_t head_dim) { return kPanel * (2 * head_dim + kPanel + 2); }
static inline int64_t attend_token_floats(const AttentionArgs& a, int64_t keys) {
  return (a.heads / a.kv_heads) * ((keys + kPanel - 1) / kPanel * kPanel + a.head_dim);
}

extern const ExecOps exec_ops_scalar, exec_ops_avx2, exec_ops_avx512, exec_ops_neon;
const ExecOps& exec_ops();  // the table of cpu().selected

}  // namespace zs
