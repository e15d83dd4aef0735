// The inspector: walks four rows at a time side by side, along their ascending columns.
#include "sddmm_tiles.h"

#include <algorithm>
#include <limits>
#include <new>

namespace zs {
namespace {

constexpr int64_t kWorthOneIn = 4;  // entries in tiles; with fewer, as graphs have, the pattern is better run as it is
constexpr int kWorthEight = 5;  // an entry of a mixed eight takes 1.5 to 1.7 times as long
constexpr int64_t kRowsATask = 64;
constexpr int64_t kTasksASample = 8;  // one in so many is walked first: a graph is told by it
constexpr int64_t kMost = std::numeric_limits<int32_t>::max();

// One task: records of the rows [from, to). C: how the pattern stores columns, I: how records do.
template <class C, class I> class Walk {
 public:
  explicit Walk(const Pattern& p) : p_(p), cols_(static_cast<const C*>(p.indices)) {}

  // False where an offset or a column is out of bounds. Every number is read once, so that what was checked is what is kept.
  bool rows(int64_t from, int64_t to, SddmmRecords<I>& out) {
    out_ = &out;
    int64_t last = p_.indptr[from];
    for (int64_t r = from; r < to; r += 4) {
      const int count = static_cast<int>(std::min<int64_t>(4, to - r));
      for (int i = 0; i < count; ++i) {
        at_[i] = last;
        end_[i] = last = p_.indptr[r + i + 1];
        if (at_[i] < 0 || at_[i] > end_[i] || end_[i] > p_.entries) return false;
        row_[i].row = static_cast<int32_t>(r + i);
        kept_[i] = 0;
      }
      if (count == 4) side_by_side();
      for (int i = 0; i < count; ++i) {
        while (at_[i] < end_[i]) single(i, column(i, 0));
        leave(i);
      }
    }
    while (mixed_kept_ > 0) mix(mixed_.row[0], mixed_.at[0], mixed_.col[0]);
    return right_;
  }

 private:
  int64_t column(int i, int64_t ahead) const { return static_cast<int64_t>(cols_[at_[i] + ahead]); }

  I checked(int64_t col) {
    right_ = right_ && col >= 0 && col < p_.cols;
    return static_cast<I>(col);
  }

  void side_by_side() {
    while (at_[0] < end_[0] && at_[1] < end_[1] && at_[2] < end_[2] && at_[3] < end_[3]) {
      const int64_t c[4] = {column(0, 0), column(1, 0), column(2, 0), column(3, 0)};
      const int64_t most = std::max(std::max(c[0], c[1]), std::max(c[2], c[3]));
      if (c[0] == c[1] && c[1] == c[2] && c[2] == c[3]) {
        if (tile()) continue;
        for (int i = 0; i < 4; ++i) single(i, c[i]);
      } else {
        for (int i = 0; i < 4; ++i) {
          for (int64_t col = c[i]; col < most; col = column(i, 0)) {
            single(i, col);
            if (at_[i] == end_[i]) return;
          }
        }
      }
    }
  }

  // Whether the next four columns of all four rows are the same; the rows have gone on then.
  bool tile() {
    SddmmTile<I> found;
    for (int i = 0; i < 4; ++i) {
      if (end_[i] - at_[i] < 4) return false;
    }
    for (int j = 0; j < 4; ++j) {
      const int64_t col = column(0, j);
      if (column(1, j) != col || column(2, j) != col || column(3, j) != col) return false;
      found.col[j] = checked(col);
    }
    found.row = row_[0].row;
    for (int i = 0; i < 4; ++i) {
      found.at[i] = static_cast<int32_t>(at_[i]);
      at_[i] += 4;
    }
    out_->tiles.push_back(found);
    return true;
  }

  void single(int i, int64_t col) {
    SddmmEight<I>& eight = row_[i];
    eight.at[kept_[i]] = static_cast<int32_t>(at_[i]++);
    eight.col[kept_[i]] = checked(col);
    if (++kept_[i] < 8) return;
    out_->eights.push_back(eight);
    kept_[i] = 0;
  }

  // What is left of a row: worth eight with places to spare, or mixed with what is left of others.
  void leave(int i) {
    const int kept = kept_[i];
    SddmmEight<I>& eight = row_[i];
    for (int j = 0; kept < kWorthEight && j < kept; ++j) mix(eight.row, eight.at[j], eight.col[j]);
    if (kept < kWorthEight) return;
    for (int j = kept; j < 8; ++j) {
      eight.at[j] = eight.at[0];
      eight.col[j] = eight.col[0];
    }
    out_->eights.push_back(eight);
  }

  void mix(int32_t row, int32_t at, I col) {
    mixed_.row[mixed_kept_] = row;
    mixed_.at[mixed_kept_] = at;
    mixed_.col[mixed_kept_] = col;
    if (++mixed_kept_ < 8) return;
    out_->mixed.push_back(mixed_);
    mixed_kept_ = 0;
  }

  const Pattern& p_;
  const C* cols_;
  SddmmRecords<I>* out_ = nullptr;
  int64_t at_[4] = {}, end_[4] = {};
  SddmmEight<I> row_[4] = {};  // of each of the four rows, what does not make eight yet
  int kept_[4] = {};
  SddmmMixed<I> mixed_ = {};
  int mixed_kept_ = 0;
  bool right_ = true;
};

template <class T> void append(std::vector<T>& to, const std::vector<T>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

// Whether it was worth it.
template <class C, class I> bool inspect(const Pattern& p, Pool& pool, SddmmRecords<I>& out) {
  const int64_t tasks = (p.rows + kRowsATask - 1) / kRowsATask;
  std::vector<SddmmRecords<I>> found(static_cast<size_t>(tasks));
  std::vector<uint8_t> right(static_cast<size_t>(tasks), 1);
  const auto walk = [&](int64_t task) {
    try {
      right[task] = Walk<C, I>(p).rows(task * kRowsATask, std::min(p.rows, (task + 1) * kRowsATask), found[task]);
    } catch (const std::bad_alloc&) {  // a worker has nobody to tell
      right[task] = 0;
    }
  };
  const int64_t samples = (tasks + kTasksASample - 1) / kTasksASample;
  pool.parallel(samples, [&](int64_t task, int) { walk(task * kTasksASample); });
  int64_t tiles = 0, seen = 0;
  for (int64_t task = 0; task < tasks; task += kTasksASample) {
    tiles += static_cast<int64_t>(found[task].tiles.size());
    seen += p.indptr[std::min(p.rows, (task + 1) * kRowsATask)] - p.indptr[task * kRowsATask];
  }
  if (16 * tiles * 2 * kWorthOneIn < seen) return false;
  pool.parallel(tasks - samples, [&](int64_t task, int) { walk(task + task / (kTasksASample - 1) + 1); });
  if (std::count(right.begin(), right.end(), 0)) return false;
  size_t sizes[3] = {};
  for (const SddmmRecords<I>& some : found) {
    sizes[0] += some.tiles.size();
    sizes[1] += some.eights.size();
    sizes[2] += some.mixed.size();
  }
  if (16 * static_cast<int64_t>(sizes[0]) * kWorthOneIn < p.entries) return false;
  out.tiles.reserve(sizes[0]);
  out.eights.reserve(sizes[1]);
  out.mixed.reserve(sizes[2]);
  for (const SddmmRecords<I>& some : found) {
    append(out.tiles, some.tiles);
    append(out.eights, some.eights);
    append(out.mixed, some.mixed);
  }
  return true;
}

template <class I> bool inspect_any(const Pattern& p, Pool& pool, SddmmRecords<I>& out) {
  switch (p.index) {
    case IndexType::u16: return inspect<uint16_t>(p, pool, out);
    case IndexType::i32: return inspect<int32_t>(p, pool, out);
    case IndexType::i64: return inspect<int64_t>(p, pool, out);
  }
  return false;
}

}  // namespace

int64_t SddmmTiles::nbytes() const {
  return visit([](const auto& r) {
    return static_cast<int64_t>(r.tiles.size() * sizeof r.tiles[0] + r.eights.size() * sizeof r.eights[0] +
                                r.mixed.size() * sizeof r.mixed[0]);
  });
}

std::unique_ptr<const SddmmTiles> find_tiles(const Pattern& p, Pool& pool) {
  if (p.format != Format::csr || p.entries == 0 || p.entries > kMost || p.rows > kMost || p.cols > kMost) return nullptr;
  auto found = std::make_unique<SddmmTiles>();
  found->wide = p.cols > 1 << 16;
  const bool worth = found->wide ? inspect_any(p, pool, found->wide_columns) : inspect_any(p, pool, found->narrow_columns);
  if (!worth) return nullptr;
  return found;
}

}  // namespace zs
