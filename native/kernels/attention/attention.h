// Attention over a pattern of seen keys in one pass; README.md has the maths. The driver (attention.cc) says which keys a group
// of queries meets, a table of plain functions for each instruction set does the sums. C headers only.
#pragma once

#include <stdint.h>

#include "zeroskip/types.h"

namespace zs {

class Pool;

constexpr int64_t kChunkKeys = 64;  // of a group of queries: keys between two updates of the running softmax
constexpr int64_t kRowKeys = 256;  // of a query by itself
constexpr int kMostRows = 3;  // queries by themselves that share their keys: heads over one key head
constexpr int64_t kMostLanes = 32;
constexpr int64_t kMostVf = 16;

// Keys met together: key t at k + k_at[t], its value at v + v_at[t]. The lists have room for kMostVf entries more.
struct KeyChunk {
  const float* k;
  const float* v;
  const int64_t* k_at;
  const int64_t* v_at;
  int64_t count;
  const uint32_t* seen;  // bit l of seen[t]: lane l sees key t; null where every lane sees all
};

// A group of queries, one a lane.
struct LaneGroup {
  int64_t d, dv;
  float* q;  // [d][lanes], scaled
  float* o;  // [dv][lanes], not yet divided by l
  float* s;  // [kChunkKeys][lanes]
  float* m;  // [lanes], the largest score yet
  float* l;  // [lanes], the sum of weights relative to m
  bool fresh;  // o is undefined
};

// Up to kMostRows queries by themselves, vectors along d. Rows are padded to whole vectors.
struct RowGroup {
  int64_t d, dv, q_stride, o_stride;
  int rows;
  float* q;  // [rows][q_stride], scaled
  float* o;  // [rows][o_stride]
  float* s;  // [rows][kRowKeys]
  float m[kMostRows], l[kMostRows];
};

struct AttentionMicro {
  int64_t lanes;
  // Queries `stride` floats apart into lanes, times scale; lanes from `count` on are zero.
  void (*begin)(LaneGroup&, const float* q, int64_t stride, int64_t count, float scale);
  void (*chunk)(LaneGroup&, const KeyChunk&);
  void (*finish)(const LaneGroup&, float* out, int64_t stride, int64_t count);  // o / l; zeros where no key was seen
  void (*row_chunk)(RowGroup&, const KeyChunk&);  // at most kRowKeys keys
  bool (*finite)(const float* x, int64_t n);
};

extern const AttentionMicro attention_scalar, attention_avx2, attention_avx512, attention_neon;

// Query at position p (of keys) and key j: seen if j < global, 0 <= p < global, or |p - j| <= window and (p - j) % dilation == 0;
// and, if causal, j <= p. window -1: no limit, and no such term where there are global tokens and dilation is 1.
struct AttentionRule {
  int64_t window = -1, dilation = 1, global = 0;
  bool causal = false;
};

enum class MaskKind : uint8_t { rule, csr, bsr };

struct AttentionMask {
  MaskKind kind = MaskKind::rule;
  AttentionRule rule;
  const int64_t* indptr = nullptr;  // [queries + 1], of bsr [queries / r + 1]
  const void* indices = nullptr;  // increasing within a row
  int index_bytes = 4;  // 2 unsigned, 4 or 8 signed
  int64_t r = 1, c = 1;
};

struct AttentionCall {
  const float* q;  // [batch][heads][queries][d]
  const float* k;  // [batch][kv_heads][keys][d]
  const float* v;  // [batch][kv_heads][keys][dv]
  float* out;  // [batch][heads][queries][dv]
  int64_t batch, heads, kv_heads, queries, keys, d, dv;
  float scale;
  bool causal;
  const int64_t* lengths;  // [batch]: keys of each sequence; where queries == keys, its queries too
  const AttentionMask* masks;
  int64_t mask_count;  // 1, heads, or batch * heads
};

bool attention_has(Isa isa);  // in this binary
void attention(Isa isa, const AttentionCall& call, Pool& pool);

}  // namespace zs
