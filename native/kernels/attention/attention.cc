// Cuts attention into tasks: a few groups of queries of one head; and where queries are few, one query of the heads that share
// their keys, or a range of its keys.
#include "attention.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "../../runtime/pool.h"
#include "seen.h"

namespace zs {
namespace {

constexpr int64_t kQueriesATask = 64;

int64_t up_to(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// What one worker needs beside its lists, in floats of the pool's scratch.
struct Space {
  LaneGroup lanes;
  RowGroup rows;
  int64_t* k_at;
  int64_t* v_at;

  static int64_t bytes(const AttentionCall& call, int64_t lanes) {
    const int64_t d = up_to(call.d, kMostVf), dv = up_to(call.dv, kMostVf);
    return 4 * (lanes * (d + dv + kChunkKeys + 2) + kMostRows * (d + dv + kRowKeys)) + 16 * (kRowKeys + kMostVf);
  }

  Space(const AttentionCall& call, int64_t lane_count, float* scratch) {
    const int64_t d = up_to(call.d, kMostVf), dv = up_to(call.dv, kMostVf);
    const auto take = [&scratch](int64_t floats) {
      float* at = scratch;
      scratch += floats;
      return at;
    };
    lanes = {call.d,  call.dv, take(lane_count * d), take(lane_count * dv), take(lane_count * kChunkKeys), nullptr,
             nullptr, true};
    rows = {call.d, call.dv, d, dv, 0, take(kMostRows * d), take(kMostRows * dv), take(kMostRows * kRowKeys), {}, {}};
    k_at = reinterpret_cast<int64_t*>(take(2 * (kRowKeys + kMostVf)));
    v_at = reinterpret_cast<int64_t*>(take(2 * (kRowKeys + kMostVf)));
    lanes.m = take(lane_count);
    lanes.l = take(lane_count);
  }
};

struct Head {
  const AttentionMask* mask;
  const float* q;
  const float* k;
  const float* v;
  float* out;
};

Head head_of(const AttentionCall& c, int64_t b, int64_t h) {
  const int64_t at = b * c.heads + h, kv = b * c.kv_heads + h / (c.heads / c.kv_heads);
  return {c.masks + (c.mask_count == 1         ? 0
                     : c.mask_count == c.heads ? h
                                               : at),
          c.q + at * c.queries * c.d, c.k + kv * c.keys * c.d, c.v + kv * c.keys * c.dv, c.out + at * c.queries * c.dv};
}

// Keys [from, from + count) of a list; what lies beyond repeats the last.
KeyChunk chunk_of(const AttentionCall& c, const Head& head, const std::vector<int64_t>& keys, int64_t from, int64_t count,
                  const Space& space) {
  for (int64_t t = 0; t < count; ++t) {
    space.k_at[t] = keys[from + t] * c.d;
    space.v_at[t] = keys[from + t] * c.dv;
  }
  for (int64_t t = count; t < count + kMostVf; ++t) space.k_at[t] = space.k_at[count - 1];
  return {head.k, head.v, space.k_at, space.v_at, count, nullptr};
}

// Queries of `rows` heads, `stride` heads' worth of floats apart, over keys [from, to) of their list.
void run_rows(const AttentionMicro& micro, const AttentionCall& c, const Head& head, int64_t row, int rows,
              const std::vector<int64_t>& keys, int64_t from, int64_t to, Space& space) {
  RowGroup& g = space.rows;
  g.rows = rows;
  for (int i = 0; i < rows; ++i) {
    const float* q = head.q + (i * c.queries + row) * c.d;
    float* scaled = g.q + i * g.q_stride;
    for (int64_t k = 0; k < c.d; ++k) scaled[k] = q[k] * c.scale;
    for (int64_t k = c.d; k < g.q_stride; ++k) scaled[k] = 0;
    g.m[i] = -INFINITY;
    g.l[i] = 0;
  }
  memset(g.o, 0, rows * g.o_stride * sizeof(float));
  for (; from < to; from += kRowKeys) micro.row_chunk(g, chunk_of(c, head, keys, from, std::min(kRowKeys, to - from), space));
}

void finish_row(const RowGroup& g, int i, float* out) {
  const float share = g.l[i] == 0 ? 0.0f : 1.0f / g.l[i];
  for (int64_t f = 0; f < g.dv; ++f) out[f] = g.o[i * g.o_stride + f] * share;
}

void run_group(const AttentionMicro& micro, const AttentionCall& c, const Head& head, const AttendedKeys& s,
               const Queries& queries, bool wild, KeyList& list, Space& space) {
  Way way = Way::rows;
  if (queries.count * 3 > micro.lanes) way = list_group(*head.mask, s, c.causal, queries, list);
  const auto hidden = [&list](int64_t from, int64_t to) {
    uint32_t all = ~0u;
    for (int64_t t = from; t < to; ++t) all &= list.seen[t];
    return all;
  };
  const uint32_t lanes = queries.count == 32 ? ~0u : (1u << queries.count) - 1;
  const int64_t size = static_cast<int64_t>(list.keys.size());
  // A weight of 0 times a value that is not finite would be NaN, for queries that do not see it.
  if (way == Way::lanes && wild && (hidden(0, size) & lanes) != lanes) way = Way::rows;
  if (way == Way::rows) {
    for (int64_t lane = 0; lane < queries.count; ++lane) {
      const int64_t row = queries.at(lane);
      list_row(*head.mask, s, c.causal, row, list.keys);
      run_rows(micro, c, head, row, 1, list.keys, 0, static_cast<int64_t>(list.keys.size()), space);
      finish_row(space.rows, 0, head.out + row * c.dv);
    }
    return;
  }
  micro.begin(space.lanes, head.q + queries.first * c.d, queries.step * c.d, queries.count, c.scale);
  for (int64_t from = 0; from < size; from += kChunkKeys) {
    const int64_t count = std::min(kChunkKeys, size - from);
    KeyChunk chunk = chunk_of(c, head, list.keys, from, count, space);
    if ((hidden(from, from + count) & lanes) != lanes) chunk.seen = list.seen.data() + from;
    micro.chunk(space.lanes, chunk);
  }
  micro.finish(space.lanes, head.out + queries.first * c.dv, queries.step * c.dv, queries.count);
}

// For each key head: whether a value in it is infinite or NaN.
std::vector<uint8_t> wild_heads(const AttentionMicro& micro, const AttentionCall& c, Pool& pool) {
  constexpr int64_t kPart = 1 << 16;
  const int64_t size = c.keys * c.dv, parts = (size + kPart - 1) / kPart, heads = c.batch * c.kv_heads;
  std::vector<std::atomic<uint8_t>> found(heads);
  pool.parallel(heads * parts, [&](int64_t task, int) {
    const int64_t from = task % parts * kPart;
    if (!micro.finite(c.v + task / parts * size + from, std::min(kPart, size - from))) found[task / parts] = 1;
  });
  return std::vector<uint8_t>(found.begin(), found.end());
}

// How the queries of one sequence and head are grouped: those `step` apart together, class by class.
struct Groups {
  int64_t step, a_class, count;

  Groups(const AttentionMask& mask, int64_t queries, int64_t lanes) : step(query_step(mask, queries, lanes)) {
    a_class = ((queries + step - 1) / step + lanes - 1) / lanes;
    count = step * a_class;
  }
  // Group `index`, the queries of [0, queries) in it.
  Queries at(int64_t index, int64_t queries, int64_t lanes) const {
    const int64_t first = index / a_class + index % a_class * lanes * step;
    return {first, step, first < queries ? std::min(lanes, (queries - first + step - 1) / step) : 0};
  }
};

void run_many(const AttentionMicro& micro, const AttentionCall& c, Pool& pool) {
  const std::vector<uint8_t> wild = wild_heads(micro, c, pool);
  const int64_t a_task = std::max<int64_t>(1, kQueriesATask / micro.lanes);
  std::vector<int64_t> first(1, 0);  // task of each head
  for (int64_t i = 0; i < c.batch * c.heads; ++i) {
    const Groups groups(*head_of(c, i / c.heads, i % c.heads).mask, c.queries, micro.lanes);
    first.push_back(first.back() + (groups.count + a_task - 1) / a_task);
  }
  std::vector<KeyList> lists(pool.size());
  pool.parallel(first.back(), [&](int64_t task, int worker) {
    const int64_t i = std::upper_bound(first.begin(), first.end(), task) - first.begin() - 1;
    const int64_t b = i / c.heads, h = i % c.heads, kv = b * c.kv_heads + h / (c.heads / c.kv_heads);
    const Head head = head_of(c, b, h);
    const AttendedKeys s = attended_keys(c, b);
    const Groups groups(*head.mask, c.queries, micro.lanes);
    Space space(c, micro.lanes, pool.scratch(worker, Space::bytes(c, micro.lanes)));
    // The last queries first: with a causal mask they have most to do.
    const int64_t end = groups.count - (task - first[i]) * a_task;
    for (int64_t g = end - 1; g >= std::max<int64_t>(0, end - a_task); --g) {
      const Queries all = groups.at(g, c.queries, micro.lanes), real = groups.at(g, s.queries, micro.lanes);
      for (int64_t lane = real.count; lane < all.count; ++lane) {
        memset(head.out + all.at(lane) * c.dv, 0, c.dv * sizeof(float));
      }
      if (real.count) run_group(micro, c, head, s, real, wild[kv], lists[worker], space);
    }
  });
}

// Joins ranges of keys: each {m, l, o[dv]} weighs l e^(m - the largest m).
void join(const float* parts, int64_t splits, int64_t part, int64_t dv, float* out) {
  float top = -INFINITY, sum = 0;
  for (int64_t i = 0; i < splits; ++i) top = fmaxf(top, parts[i * part]);
  std::fill(out, out + dv, 0.0f);
  const auto weight = [&](int64_t i) { return parts[i * part] == -INFINITY ? 0.0f : expf(parts[i * part] - top); };
  for (int64_t i = 0; i < splits; ++i) {
    const float* at = parts + i * part;
    const float w = at[1] != at[1] ? 1.0f : weight(i);  // all scores NaN: no largest one
    sum += at[1] * w;
    for (int64_t f = 0; f < dv; ++f) out[f] += at[2 + f] * w;
  }
  const float share = sum == 0 ? 0.0f : 1.0f / sum;
  for (int64_t f = 0; f < dv; ++f) out[f] *= share;
}

// Few queries, as when tokens follow a cache: keys and values are read once for up to kMostRows heads that share them.
void run_few(const AttentionMicro& micro, const AttentionCall& c, Pool& pool) {
  const int64_t group = c.mask_count == 1 ? c.heads / c.kv_heads : 1, most = std::min<int64_t>(group, kMostRows);
  const int64_t per_group = (group + most - 1) / most, packs = c.batch * (c.heads / group) * per_group * c.queries;
  const int64_t wanted = (3 * pool.size() + packs - 1) / packs;
  const int64_t splits = std::clamp<int64_t>(std::min(wanted, c.keys / kRowKeys), 1, 64), part = c.dv + 2;
  std::vector<KeyList> lists(pool.size());
  std::vector<float> parts(splits > 1 ? packs * most * splits * part : 0);
  const auto heads_of = [&](int64_t pack, int64_t& row, int64_t& b, int64_t& h) {
    row = pack % c.queries;
    const int64_t i = pack / c.queries;
    b = i / per_group / (c.heads / group);
    h = i / per_group % (c.heads / group) * group + i % per_group * most;
    return std::min(most, group - i % per_group * most);
  };
  pool.parallel(packs * splits, [&](int64_t task, int worker) {
    int64_t row, b, h;
    const int64_t pack = task / splits, rows = heads_of(pack, row, b, h), split = task % splits;
    const Head head = head_of(c, b, h);
    const AttendedKeys s = attended_keys(c, b);
    Space space(c, micro.lanes, pool.scratch(worker, Space::bytes(c, micro.lanes)));
    std::vector<int64_t>& keys = lists[worker].keys;
    keys.clear();
    if (row < s.queries) list_row(*head.mask, s, c.causal, row, keys);
    const int64_t size = static_cast<int64_t>(keys.size()), share = (size + splits - 1) / splits;
    run_rows(micro, c, head, row, static_cast<int>(rows), keys, std::min(size, split * share),
             std::min(size, (split + 1) * share), space);
    for (int i = 0; i < rows; ++i) {
      if (splits == 1) {
        finish_row(space.rows, i, head.out + (i * c.queries + row) * c.dv);
        continue;
      }
      float* at = parts.data() + ((pack * most + i) * splits + split) * part;
      at[0] = space.rows.m[i];
      at[1] = space.rows.l[i];
      memcpy(at + 2, space.rows.o + i * space.rows.o_stride, c.dv * sizeof(float));
    }
  });
  for (int64_t pack = 0; splits > 1 && pack < packs; ++pack) {
    int64_t row, b, h;
    const int64_t rows = heads_of(pack, row, b, h);
    for (int64_t i = 0; i < rows; ++i) {
      join(parts.data() + (pack * most + i) * splits * part, splits, part, c.dv,
           head_of(c, b, h).out + (i * c.queries + row) * c.dv);
    }
  }
}

const AttentionMicro& micro_for(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) return attention_avx2;
  if (isa == Isa::avx512) return attention_avx512;
#elif defined(__aarch64__)
  if (isa == Isa::neon) return attention_neon;
#endif
  return attention_scalar;
}

}  // namespace

bool attention_has(Isa isa) {
#if defined(__x86_64__)
  return isa == Isa::scalar || isa == Isa::avx2 || isa == Isa::avx512;
#elif defined(__aarch64__)
  return isa == Isa::scalar || isa == Isa::neon;
#else
  return isa == Isa::scalar;
#endif
}

void attention(Isa isa, const AttentionCall& call, Pool& pool) {
  const AttentionMicro& micro = micro_for(isa);
  if (!call.batch || !call.heads || !call.queries || !call.dv) return;
  if (call.queries * 3 <= micro.lanes) return run_few(micro, call, pool);
  run_many(micro, call, pool);
}

}  // namespace zs
