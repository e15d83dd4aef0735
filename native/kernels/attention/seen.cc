#include "seen.h"

namespace zs {
namespace {

// Of the pairs that a union of scattered keys computes: with fewer seen ones, queries go one by one. Busy Zen 3, 2048 x 2048
// random, 64 features: a seen pair takes 40 ns in rows, a computed one 10 ns in lanes.
constexpr double kLeastFill = 0.25;

int64_t floor_mod(int64_t a, int64_t m) { return (a % m + m) % m; }

// Keys of a row end here: the sequence, or the query itself.
int64_t end_of(const AttentionMask& mask, const AttendedKeys& s, bool causal, int64_t row) {
  if (!causal && !(mask.kind == MaskKind::rule && mask.rule.causal)) return s.keys;
  return std::clamp<int64_t>(row + s.offset + 1, 0, s.keys);
}

bool has_window(const AttentionRule& rule) { return rule.window >= 0 || rule.dilation > 1 || rule.global == 0; }

// Keys first, first + step, ... below end.
struct Run {
  int64_t first, step, end;
  int64_t count() const { return first < end ? (end - first + step - 1) / step : 0; }
};

// What the window of a query at `position` reaches beyond the global keys, where its keys end at `end`.
Run window_of(const AttentionRule& rule, int64_t position, int64_t end) {
  const int64_t low = std::max(rule.global, rule.window < 0 ? 0 : std::max<int64_t>(0, position - rule.window));
  const int64_t high = rule.window < 0 ? end : std::min(end, position + rule.window + 1);
  return {low + floor_mod(position - low, rule.dilation), rule.dilation, high};
}

void add(const Run& run, std::vector<int64_t>& keys) {
  for (int64_t key = run.first; key < run.end; key += run.step) keys.push_back(key);
}

int64_t index_at(const AttentionMask& mask, int64_t i) {
  if (mask.index_bytes == 2) return static_cast<const uint16_t*>(mask.indices)[i];
  if (mask.index_bytes == 4) return static_cast<const int32_t*>(mask.indices)[i];
  return static_cast<const int64_t*>(mask.indices)[i];
}

// Calls f(first, end) for each run of stored columns of a row.
template <class F> void each_stored(const AttentionMask& mask, int64_t row, int64_t end, const F& f) {
  const int64_t line = row / mask.r;
  for (int64_t i = mask.indptr[line]; i < mask.indptr[line + 1]; ++i) {
    const int64_t first = index_at(mask, i) * mask.c;
    if (first >= end) return;
    f(first, std::min(end, first + mask.c));
  }
}

// Lane `lane` does not see list places [from, to).
void clear(KeyList& list, int64_t lane, int64_t from, int64_t to) {
  for (int64_t t = from; t < to; ++t) list.seen[t] &= ~(1u << lane);
}

// Where keys of each lane end: at one place where nothing is causal.
void clear_ends(const AttentionMask& mask, const AttendedKeys& s, bool causal, const Queries& queries, KeyList& list) {
  const int64_t size = static_cast<int64_t>(list.keys.size());
  for (int64_t lane = 0; lane < queries.count; ++lane) {
    const int64_t end = end_of(mask, s, causal, queries.at(lane));
    clear(list, lane, std::lower_bound(list.keys.begin(), list.keys.end(), end) - list.keys.begin(), size);
  }
}

Way rule_group(const AttentionMask& mask, const AttendedKeys& s, bool causal, const Queries& queries, KeyList& list) {
  const AttentionRule& rule = mask.rule;
  const int64_t first = queries.first + s.offset, last = queries.at(queries.count - 1) + s.offset;
  const int64_t end = end_of(mask, s, causal, queries.at(queries.count - 1));
  if (first >= 0 && last < rule.global) {
    add({0, 1, end}, list.keys);
    list.seen.assign(list.keys.size(), ~0u);
    clear_ends(mask, s, causal, queries, list);
    return Way::lanes;
  }
  if ((rule.global > 0 && first < rule.global) || (rule.dilation > 1 && queries.count > 1 && queries.step != rule.dilation))
    return Way::rows;
  add({0, 1, std::min(rule.global, end)}, list.keys);
  const int64_t before = static_cast<int64_t>(list.keys.size());
  if (!has_window(rule)) {
    list.seen.assign(list.keys.size(), ~0u);
    return Way::lanes;
  }
  Run all = window_of(rule, first, end);
  all.end = window_of(rule, last, end).end;
  add(all, list.keys);
  list.seen.assign(list.keys.size(), ~0u);
  const int64_t size = static_cast<int64_t>(list.keys.size());
  for (int64_t lane = 0; lane < queries.count; ++lane) {
    const int64_t row = queries.at(lane);
    const Run own = window_of(rule, row + s.offset, end_of(mask, s, causal, row));
    const int64_t from = std::min(size, before + std::max<int64_t>(0, (own.first - all.first) / all.step));
    clear(list, lane, before, from);
    clear(list, lane, std::min(size, from + own.count()), size);
  }
  return Way::lanes;
}

// The union of the lanes' keys, by a word for each key.
Way stored_group(const AttentionMask& mask, const AttendedKeys& s, bool causal, const Queries& queries, KeyList& list) {
  list.lanes_of.resize(s.keys > static_cast<int64_t>(list.lanes_of.size()) ? s.keys : list.lanes_of.size());
  list.touched.resize(list.lanes_of.size() / 64 + 1);
  int64_t entries = 0, low = s.keys, high = 0;
  for (int64_t lane = 0; lane < queries.count; ++lane) {
    const int64_t row = queries.at(lane);
    each_stored(mask, row, end_of(mask, s, causal, row), [&](int64_t from, int64_t to) {
      entries += to - from;
      low = std::min(low, from);
      high = std::max(high, to);
      for (int64_t key = from; key < to; ++key) {
        list.lanes_of[key] |= 1u << lane;
        list.touched[key / 64] |= uint64_t{1} << key % 64;
      }
    });
  }
  for (int64_t word = low / 64; word * 64 < high; ++word) {
    for (uint64_t bits = list.touched[word]; bits; bits &= bits - 1) {
      const int64_t key = word * 64 + __builtin_ctzll(bits);
      list.keys.push_back(key);
      list.seen.push_back(list.lanes_of[key]);
      list.lanes_of[key] = 0;
    }
    list.touched[word] = 0;
  }
  const double room = static_cast<double>(list.keys.size()) * static_cast<double>(queries.count);
  return static_cast<double>(entries) < kLeastFill * room ? Way::rows : Way::lanes;
}

}  // namespace

int64_t query_step(const AttentionMask& mask, int64_t queries, int64_t lanes) {
  if (mask.kind != MaskKind::rule || mask.rule.dilation == 1) return 1;
  return queries / mask.rule.dilation >= lanes / 2 ? mask.rule.dilation : 1;
}

void list_row(const AttentionMask& mask, const AttendedKeys& s, bool causal, int64_t row, std::vector<int64_t>& keys) {
  keys.clear();
  const int64_t position = row + s.offset, end = end_of(mask, s, causal, row);
  if (mask.kind != MaskKind::rule) {
    each_stored(mask, row, end, [&](int64_t from, int64_t to) { add({from, 1, to}, keys); });
    return;
  }
  if (position >= 0 && position < mask.rule.global) return add({0, 1, end}, keys);
  add({0, 1, std::min(mask.rule.global, end)}, keys);
  if (has_window(mask.rule)) add(window_of(mask.rule, position, end), keys);
}

Way list_group(const AttentionMask& mask, const AttendedKeys& s, bool causal, const Queries& queries, KeyList& list) {
  list.keys.clear();
  list.seen.clear();
  if (mask.kind == MaskKind::rule) return rule_group(mask, s, causal, queries, list);
  const int64_t last = queries.at(queries.count - 1);
  if (queries.first / mask.r != last / mask.r) return stored_group(mask, s, causal, queries, list);
  each_stored(mask, last, end_of(mask, s, causal, last), [&](int64_t from, int64_t to) { add({from, 1, to}, list.keys); });
  list.seen.assign(list.keys.size(), ~0u);
  clear_ends(mask, s, causal, queries, list);
  return Way::lanes;
}

}  // namespace zs
