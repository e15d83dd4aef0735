// Which keys are seen: of one query, and of a group of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "attention.h"

namespace zs {

// One sequence of a batch. Query i sits at key position i + offset; queries from `queries` on are padding.
struct AttendedKeys {
  int64_t keys, queries, offset;
};

static inline AttendedKeys attended_keys(const AttentionCall& call, int64_t b) {
  const int64_t keys = call.lengths[b];
  if (call.queries == call.keys) return {keys, keys, 0};
  return {keys, call.queries, keys - call.queries};
}

// Queries first, first + step, ... of one sequence.
struct Queries {
  int64_t first, step, count;
  int64_t at(int64_t lane) const { return first + lane * step; }
};

// The keys that a group of queries meets, ascending, and who of them sees each. Kept by a worker between groups.
struct KeyList {
  std::vector<int64_t> keys;
  std::vector<uint32_t> seen;  // beside keys, once a group is listed
  std::vector<uint32_t> lanes_of;  // a word for each key, zero between groups
  std::vector<uint64_t> touched;  // a bit for each key, zero between groups
};

// How a group is to be done.
enum class Way : uint8_t { lanes, rows };

// Queries this far apart share their keys: the dilation of a rule.
int64_t query_step(const AttentionMask& mask, int64_t queries, int64_t lanes);
// The keys of one query, ascending.
void list_row(const AttentionMask& mask, const AttendedKeys& s, bool causal, int64_t row, std::vector<int64_t>& keys);
// The keys of a group in list.keys and, where the way is by lanes, who sees them. Queries are none of the padding.
Way list_group(const AttentionMask& mask, const AttendedKeys& s, bool causal, const Queries& queries, KeyList& list);

}  // namespace zs
