// Cuts SDDMM into pieces of about as many entries, finds the rows of each and calls the loops of sddmm.inl. README.md says why.
#include "sddmm.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "../../runtime/cpu.h"
#include "sddmm_tiles.h"

namespace zs {
namespace {

constexpr int64_t kPieceWork = 1 << 18;  // multiply-adds that are worth a task: about 10 us
constexpr int64_t kPiecesAWorker = 8;
constexpr int64_t kAloneWork = 1 << 18;
constexpr int64_t kChunkBytes = 24 << 10;  // of B^T, most of L1
constexpr int64_t kBlockRows = 64;
// Zen 3 shared with other work, one thread, 2026-11, ns an entry row by row and in chunks: 4096 columns at 80 %, d = 64: 5.9 and 4.6,
// d = 128: 13.2 and 8.5; 1024 columns at 90 %, d = 64, ten entries in a chunk: 3.4 and 5.5.
constexpr double kWorthDensity = 0.15;

const SddmmMicro& micro_of([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) return sddmm_avx2;
  if (isa == Isa::avx512) return sddmm_avx512;
#elif defined(__aarch64__)
  if (isa == Isa::neon) return sddmm_neon;
#endif
  return sddmm_scalar;
}

// Rows of a pattern that a task works on: entries [begin[i], end[i]) of row first + i, whose columns begin at cols[begin[i] - base].
struct Rows {
  int64_t first = 0, count = 0;
  int64_t begin[kBlockRows], end[kBlockRows];
};

struct Call {
  const SddmmArgs& args;
  const SddmmMicro& micro;
  int64_t bytes;  // of an element
  int64_t chunk;  // columns
  bool chunked;  // by blocks of rows and chunks of columns, so that a chunk stays in L1
  bool far;  // B^T does not fit L2: rows are asked for ahead. Where it does, asking costs a tenth (Zen 3)

  Call(const SddmmArgs& given, const SddmmMicro& loops) : args(given), micro(loops) {
    const Pattern& p = args.pattern;
    bytes = value_bytes(args.type);
    const int64_t row = std::max<int64_t>(1, args.depth * bytes);
    chunk = std::max<int64_t>(8, kChunkBytes / row);
    const double density = static_cast<double>(p.entries) / (static_cast<double>(p.rows) * static_cast<double>(p.cols));
    const bool large = p.cols > cpu().l2_bytes / row;
    chunked = large && density >= kWorthDensity;
    far = large && !chunked;
  }
  const void* a(int64_t batch, int64_t row) const { return at(args.a, args.a_at[batch] + row * args.lda); }
  const void* b(int64_t batch, int64_t row) const { return at(args.b, args.b_at[batch] + row * args.ldb); }
  float* out(int64_t batch, int64_t entry) const { return args.out + batch * args.pattern.entries + entry; }
  int type() const { return args.type == ValueType::bf16; }

 private:
  const void* at(const void* from, int64_t element) const { return static_cast<const char*>(from) + element * bytes; }
};

template <class I> constexpr IndexType index_of() {
  return sizeof(I) == 2 ? IndexType::u16 : sizeof(I) == 4 ? IndexType::i32 : IndexType::i64;
}

template <class I>
void one_row(const Call& call, int64_t batch, int64_t row, const I* cols, int64_t count, int64_t readable, int64_t entry) {
  const SddmmRow r{call.a(batch, row),      call.b(batch, 0),      call.args.ldb, call.args.depth, cols, count,
                   call.far ? readable : 0, call.out(batch, entry)};
  call.micro.row[call.type()][static_cast<int>(index_of<I>())](r);
}

// The first entry from `at` on whose column is not below `limit`.
template <class I> int64_t skip_below(const I* cols, int64_t at, int64_t end, int64_t limit) {
  while (at + 8 <= end && static_cast<int64_t>(cols[at + 7]) < limit) at += 8;
  while (at < end && static_cast<int64_t>(cols[at]) < limit) ++at;
  return at;
}

template <class I> void block_of_rows(const Call& call, int64_t batch, Rows& rows, const I* cols, int64_t base, int64_t limit) {
  if (!call.chunked) {
    for (int64_t i = 0; i < rows.count; ++i) {
      const int64_t begin = rows.begin[i], n = rows.end[i] - begin;
      if (n > 0) one_row(call, batch, rows.first + i, cols + (begin - base), n, limit - begin, begin);
    }
    return;
  }
  for (int64_t to = call.chunk; to < call.args.pattern.cols + call.chunk; to += call.chunk) {
    for (int64_t i = 0; i < rows.count; ++i) {
      const int64_t begin = rows.begin[i], end = skip_below(cols, begin - base, rows.end[i] - base, to) + base;
      if (end > begin) one_row(call, batch, rows.first + i, cols + (begin - base), end - begin, 0, begin);
      rows.begin[i] = end;
    }
  }
}

void scale(const Call& call, int64_t batch, int64_t begin, int64_t end) {
  const SddmmArgs& a = call.args;
  if (a.alpha == 1.0f && !a.values) return;
  call.micro.scale(call.out(batch, begin), a.values ? a.values + begin : nullptr, a.alpha, end - begin);
}

// The row that holds an entry.
int64_t row_at(const int64_t* indptr, int64_t rows, int64_t entry) {
  return std::upper_bound(indptr, indptr + rows + 1, entry) - indptr - 1;
}

template <class I> void csr_piece(const Call& call, int64_t batch, int64_t from, int64_t to) {
  const Pattern& p = call.args.pattern;
  const I* cols = static_cast<const I*>(p.indices);
  Rows rows;
  for (int64_t r = row_at(p.indptr, p.rows, from); r < p.rows && p.indptr[r] < to;) {
    rows.first = r;
    for (rows.count = 0; rows.count < kBlockRows && r < p.rows && p.indptr[r] < to; ++rows.count, ++r) {
      rows.begin[rows.count] = std::max(from, p.indptr[r]);
      rows.end[rows.count] = std::min(to, p.indptr[r + 1]);
    }
    block_of_rows(call, batch, rows, cols, 0, to);
  }
  scale(call, batch, from, to);
}

void csr_any(const Call& call, int64_t batch, int64_t from, int64_t to) {
  switch (call.args.pattern.index) {
    case IndexType::u16: return csr_piece<uint16_t>(call, batch, from, to);
    case IndexType::i32: return csr_piece<int32_t>(call, batch, from, to);
    case IndexType::i64: return csr_piece<int64_t>(call, batch, from, to);
  }
}

// Blocks lie in C order, so a row of one is a run of entries; where blocks are narrow, so that a run would be short, its columns are
// taken instead.
void bsr_block(const Call& call, int64_t batch, int64_t block_row, int64_t block) {
  const SddmmArgs& args = call.args;
  const Pattern& p = args.pattern;
  const int64_t row = block_row * p.r, col = static_cast<const int32_t*>(p.indices)[block] * p.c;
  float* out = call.out(batch, block * p.r * p.c);
  const auto run = call.micro.run[call.type()];
  if (p.c < 8 && p.r > p.c) {
    for (int64_t j = 0; j < p.c; ++j) {
      run({call.b(batch, col + j), call.a(batch, row), args.lda, args.depth, p.r, out + j, p.c});
    }
    return;
  }
  for (int64_t j = 0; j < p.c; j += call.chunk) {
    const int64_t n = std::min(call.chunk, p.c - j);
    for (int64_t i = 0; i < p.r; ++i) {
      run({call.a(batch, row + i), call.b(batch, col + j), args.ldb, args.depth, n, out + i * p.c + j, 1});
    }
  }
}

void bsr_piece(const Call& call, int64_t batch, int64_t from, int64_t to) {
  const Pattern& p = call.args.pattern;
  int64_t row = row_at(p.indptr, p.block_rows(), from);
  for (int64_t q = from; q < to; ++q) {
    while (p.indptr[row + 1] <= q) ++row;
    bsr_block(call, batch, row, q);
  }
  scale(call, batch, from * p.r * p.c, to * p.r * p.c);
}

// Whole rows: those that begin in [from, to). Columns of the bits are written to scratch, a block of rows at a time.
void bitmask_piece(const Call& call, const std::vector<int64_t>& indptr, int64_t batch, int64_t from, int64_t to, int worker,
                   Pool& pool) {
  const Pattern& p = call.args.pattern;
  const int64_t first = std::lower_bound(indptr.begin(), indptr.end() - 1, from) - indptr.begin();
  const int64_t last = std::lower_bound(indptr.begin(), indptr.end() - 1, to) - indptr.begin();
  Rows rows;
  for (int64_t r = first; r < last; r += kBlockRows) {
    const int64_t until = std::min(last, r + kBlockRows), base = indptr[r], size = indptr[until] - base;
    int32_t* cols = reinterpret_cast<int32_t*>(pool.scratch(worker, (size + 1) * static_cast<int64_t>(sizeof(int32_t))));
    rows.first = r;
    rows.count = until - r;
    for (int64_t i = 0; i < rows.count; ++i) {
      rows.begin[i] = indptr[r + i];
      rows.end[i] = indptr[r + i + 1];
      call.micro.columns(p.bits + (r + i) * p.row_bytes(), p.row_bytes(), cols + (rows.begin[i] - base));
    }
    block_of_rows(call, batch, rows, static_cast<const int32_t*>(cols), base, base + size);
  }
  scale(call, batch, indptr[first], indptr[last]);
}

// So many of `units` are the piece's: not piece * units / pieces, which might not fit 64 bits.
std::pair<int64_t, int64_t> share(int64_t units, int64_t piece, int64_t pieces) {
  const int64_t size = units / pieces, more = units % pieces, from = piece * size + std::min(piece, more);
  return {from, from + size + (piece < more)};
}

// The piece's share of each kind of record. All of them are as much work as others of their kind, wherever they are.
template <class R>
void listed_piece(const Call& call, int kind, const std::vector<R>& records, int64_t batch, int64_t piece, int64_t pieces) {
  const auto [from, to] = share(static_cast<int64_t>(records.size()), piece, pieces);
  if (from == to) return;
  const SddmmArgs& a = call.args;
  const SddmmListed listed{call.a(batch, 0),      a.lda,     call.b(batch, 0), a.ldb,    a.depth,
                           records.data() + from, to - from, a.alpha,          a.values, call.out(batch, 0)};
  call.micro.listed[kind][call.type()][sizeof(records[0].col[0]) == sizeof(int32_t)](listed);
}

}  // namespace

bool run_sddmm(Isa isa, const SddmmArgs& args, Pool& pool) {
  const Pattern& p = args.pattern;
  const SddmmMicro& micro = micro_of(isa);
  const bool bits = p.format == Format::bitmask;
  const std::vector<int64_t> indptr = bits ? row_offsets(p, micro.count, pool) : std::vector<int64_t>();
  if (bits && indptr.back() != p.entries) return false;
  if (args.batches == 0 || p.entries == 0) return true;
  const Call call(args, micro);
  const int64_t entries_a_unit = p.format == Format::bsr ? p.r * p.c : 1, units = p.entries / entries_a_unit;
  const double work = static_cast<double>(p.entries) * static_cast<double>(std::max<int64_t>(args.depth, 16));
  const int64_t wanted = (kPiecesAWorker * pool.size() + args.batches - 1) / args.batches;
  // As many for each worker: with five for two of them the one waits for the other.
  const int64_t enough = static_cast<int64_t>(work / kPieceWork) + 1,
                each = (enough + pool.size() - 1) / pool.size() * pool.size();
  const int64_t pieces = std::min(std::min(each, wanted), units);
  pool.parallel(
      pieces * args.batches,
      [&](int64_t task, int worker) {
        const int64_t batch = task / pieces, piece = task % pieces;
        if (args.tiles) {
          return args.tiles->visit([&](const auto& records) {
            listed_piece(call, 0, records.tiles, batch, piece, pieces);
            listed_piece(call, 1, records.eights, batch, piece, pieces);
            listed_piece(call, 2, records.mixed, batch, piece, pieces);
          });
        }
        const auto [from, to] = share(units, piece, pieces);
        if (p.format == Format::bsr) return bsr_piece(call, batch, from, to);
        if (bits) return bitmask_piece(call, indptr, batch, from, to, worker, pool);
        csr_any(call, batch, from, to);
      },
      work * static_cast<double>(args.batches) < kAloneWork);
  return true;
}

}  // namespace zs
