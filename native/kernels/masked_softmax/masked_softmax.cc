// Cuts the softmax over a pattern into pieces of whole rows of about as many entries. Rows of BSR, which lie in parts, are put
// together in scratch.
#include "masked_softmax.h"

#include <string.h>

#include <algorithm>
#include <vector>

#include "../../runtime/numeric.h"

namespace zs {
namespace {

constexpr int64_t kPieceEntries = 1 << 13;  // worth a task: about 10 us
constexpr int64_t kPiecesAWorker = 8;

const SoftmaxMicro& micro_of([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) return masked_softmax_avx2;
  if (isa == Isa::avx512) return masked_softmax_avx512;
#elif defined(__aarch64__)
  if (isa == Isa::neon) return masked_softmax_neon;
#endif
  return masked_softmax_scalar;
}

struct Views {
  const float* scores;
  const float* bias;
  float* out;
};

Views views(const SoftmaxArgs& a, int64_t batch) {
  const int64_t at = batch * a.pattern.entries;
  return {a.scores + at, a.bias ? a.bias + batch * a.bias_stride : nullptr, a.out + at};
}

void bsr_rows(const SoftmaxArgs& a, const SoftmaxMicro& micro, const Views& v, int64_t block_row, int worker, Pool& pool) {
  const Pattern& p = a.pattern;
  const int64_t first = p.indptr[block_row], blocks = p.indptr[block_row + 1] - first, n = blocks * p.c;
  if (blocks == 0) return;
  float* scores = pool.scratch(worker, 2 * n * static_cast<int64_t>(sizeof(float)));
  float* bias = v.bias ? scores + n : nullptr;
  const size_t bytes = static_cast<size_t>(p.c) * sizeof(float);
  for (int64_t i = 0; i < p.r; ++i) {
    const auto place = [&](int64_t block) { return ((first + block) * p.r + i) * p.c; };
    for (int64_t q = 0; q < blocks; ++q) {
      memcpy(scores + q * p.c, v.scores + place(q), bytes);
      if (bias) memcpy(bias + q * p.c, v.bias + place(q), bytes);
    }
    micro.row(scores, bias, a.scale, n, scores);
    for (int64_t q = 0; q < blocks; ++q) memcpy(v.out + place(q), scores + q * p.c, bytes);
  }
}

// The lines, rows or rows of blocks, that begin in the n-th of `pieces` equal parts of what `first` counts.
struct Lines {
  int64_t begin, end;
  Lines(const int64_t* first, int64_t lines, int64_t n, int64_t pieces) {
    const int64_t size = first[lines] / pieces, more = first[lines] % pieces;
    const int64_t from = n * size + std::min(n, more), to = from + size + (n < more);
    begin = std::lower_bound(first, first + lines, from) - first;
    end = std::lower_bound(first, first + lines, to) - first;
  }
};

}  // namespace

bool run_masked_softmax(Isa isa, const SoftmaxArgs& a, Pool& pool) {
  const Pattern& p = a.pattern;
  const SoftmaxMicro& micro = micro_of(isa);
  const bool blocks = p.format == Format::bsr, bits = p.format == Format::bitmask;
  const std::vector<int64_t> counted = bits ? row_offsets(p, count_bits, pool) : std::vector<int64_t>();
  if (bits && counted.back() != p.entries) return false;
  if (a.batches == 0 || p.entries == 0) return true;
  const int64_t* first = bits ? counted.data() : p.indptr;
  const int64_t lines = blocks ? p.block_rows() : p.rows;
  const int64_t wanted = (kPiecesAWorker * pool.size() + a.batches - 1) / a.batches;
  const int64_t pieces = std::clamp(p.entries / kPieceEntries, int64_t{1}, wanted);
  pool.parallel(
      pieces * a.batches,
      [&](int64_t task, int worker) {
        const Views v = views(a, task / pieces);
        const Lines part(first, lines, task % pieces, pieces);
        for (int64_t line = part.begin; line < part.end; ++line) {
          const int64_t at = first[line], n = first[line + 1] - at;
          if (blocks) {
            bsr_rows(a, micro, v, line, worker, pool);
          } else if (n > 0) {
            micro.row(v.scores + at, v.bias ? v.bias + at : nullptr, a.scale, n, v.out + at);
          }
        }
      },
      static_cast<double>(p.entries) * static_cast<double>(a.batches) < kPieceEntries);
  return true;
}

}  // namespace zs
