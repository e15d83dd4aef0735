// Loops over the records of sddmm_tiles.h, included by sddmm.inl.
#pragma once

#include "sddmm_tiles.h"

namespace zs {
namespace {

// Four rows at once where there are registers for sixteen sums, else twice two: the rows of B^T are in L1 the second time.
#if ZS_VECTOR_BYTES == 64 || defined(__aarch64__)
constexpr int kTileRows = 4;
#else
constexpr int kTileRows = 2;
#endif
// Eights whose sums across lanes are made together: sixteen take 45 instructions on vectors of 64 bytes, twice eight 74.
constexpr int kTogether = ZS_VECTOR_BYTES == 64 ? 2 : 1;

template <class T> static inline const T* row_at(const void* from, int64_t row, int64_t stride) {
  return static_cast<const T*>(from) + row * stride;
}

// Eight sums or sixteen, times alpha, in memory: GCC would keep them in registers and shuffle each of them out.
template <int n> static inline __attribute__((always_inline)) void sum_all(const vf* acc, float alpha, float (&sums)[n]) {
  if constexpr (n == 2 * kDots) {
    sum_16_lanes(acc, sums);
  } else {
    sum_lanes(acc, sums);
  }
  for (int i = 0; i < n; ++i) sums[i] *= alpha;
  asm volatile("" : "+m"(sums));
}

template <class T, class Tile> static void tiles_of(const SddmmListed& l) {
  const Tile* tiles = static_cast<const Tile*>(l.records);
  for (int64_t t = 0; t < l.count; ++t) {
    const Tile& tile = tiles[t];
    const T* b[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) b[j] = row_at<T>(l.b, tile.col[j], l.ldb);
    for (int half = 0; half < 4; half += kTileRows) {
      const T* a[kTileRows];
#pragma GCC unroll 4
      for (int i = 0; i < kTileRows; ++i) a[i] = row_at<T>(l.a, tile.row + half + i, l.lda);
      vf acc[4 * kTileRows] = {};
      accumulate<T, kTileRows, 4>(a, b, l.depth, acc);
      float sums[4 * kTileRows];
      sum_all(acc, l.alpha, sums);
#pragma GCC unroll 4
      for (int i = 0; i < kTileRows; ++i) {
        const int64_t at = tile.at[half + i];
        v4 found, factors;
        memcpy(&found, sums + 4 * i, sizeof found);
        if (l.values) {
          memcpy(&factors, l.values + at, sizeof factors);
          found *= factors;
        }
        memcpy(l.out + at, &found, sizeof found);
      }
    }
  }
}

static inline __attribute__((always_inline)) void put_eight(const SddmmListed& l, float* sums, const int32_t* at) {
  if (l.values) {
    for (int j = 0; j < kDots; ++j) sums[j] *= l.values[at[j]];
  }
  if (at[kDots - 1] - at[0] == kDots - 1) {  // neighbours
    memcpy(l.out + at[0], sums, kDots * sizeof(float));
    return;
  }
#pragma GCC unroll 8
  for (int j = 0; j < kDots; ++j) l.out[at[j]] = sums[j];
}

template <class T, class I>
static inline __attribute__((always_inline)) void add_record(const SddmmListed& l, const SddmmEight<I>& e, const T* const* b,
                                                             vf* acc) {
  const T* a = row_at<T>(l.a, e.row, l.lda);
  accumulate<T, 1, kDots>(&a, b, l.depth, acc);
}

template <class T, class I>
static inline __attribute__((always_inline)) void add_record(const SddmmListed& l, const SddmmMixed<I>& e, const T* const* b,
                                                             vf* acc) {
  const T* a[kDots];
#pragma GCC unroll 8
  for (int j = 0; j < kDots; ++j) a[j] = row_at<T>(l.a, e.row[j], l.lda);
  accumulate<T, kDots, kDots, Of::pairs>(a, b, l.depth, acc);
}

template <class T, class R, int n>
static inline __attribute__((always_inline)) void put_records(const SddmmListed& l, const R* records, int64_t r) {
  vf acc[kDots * n] = {};
  float sums[kDots * n];
#pragma GCC unroll 2
  for (int u = 0; u < n; ++u) {
    const T* b[kDots];
#pragma GCC unroll 8
    for (int j = 0; j < kDots; ++j) b[j] = row_at<T>(l.b, records[r + u].col[j], l.ldb);
    add_record<T>(l, records[r + u], b, acc + kDots * u);
  }
  sum_all(acc, l.alpha, sums);
#pragma GCC unroll 2
  for (int u = 0; u < n; ++u) put_eight(l, sums + kDots * u, records[r + u].at);
}

// Of one row, or mixed.
template <class T, class R> static void eights_of(const SddmmListed& l) {
  const R* records = static_cast<const R*>(l.records);
  int64_t r = 0;
  for (; r + kTogether <= l.count; r += kTogether) put_records<T, R, kTogether>(l, records, r);
  for (; r < l.count; ++r) put_records<T, R, 1>(l, records, r);
}

}  // namespace
}  // namespace zs

// clang-format off
#define ZS_SDDMM_RECORDS(loop, Record)                         \
  {{loop<float, Record<uint16_t>>, loop<float, Record<int32_t>>}, \
   {loop<uint16_t, Record<uint16_t>>, loop<uint16_t, Record<int32_t>>}}
#define ZS_SDDMM_LISTED                      \
  {ZS_SDDMM_RECORDS(tiles_of, SddmmTile),    \
   ZS_SDDMM_RECORDS(eights_of, SddmmEight),  \
   ZS_SDDMM_RECORDS(eights_of, SddmmMixed)}
// clang-format on
