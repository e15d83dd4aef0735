#include "given.h"

#include <algorithm>
#include <vector>

#include "../runtime/numeric.h"

namespace zs {
namespace {

constexpr int64_t kMaxGroup = 1 << 20;  // of scales: room above the 128 that Python allows, and no sum of it overflows

constexpr int64_t kNothing = 0;

// Each check returns null, or what is wrong; ZS_REQUIRE leaves the check with it.
#define ZS_REQUIRE(ok, message) \
  do {                          \
    if (!(ok)) return message;  \
  } while (false)
#define ZS_CHECKED(call)                          \
  do {                                            \
    if (const char* wrong = (call)) return wrong; \
  } while (false)

template <class T, class U> const char* take(const GivenArray<T>& array, int64_t size, const U*& out) {
  ZS_REQUIRE(array.size >= 0, "an array of this format is missing");
  ZS_REQUIRE(array.size >= size, "an array is shorter than the shape says");
  // An empty array may have no address, and kernels count on from it.
  out = array.data ? static_cast<const U*>(array.data) : static_cast<const U*>(static_cast<const void*>(&kNothing));
  return nullptr;
}

// Offsets of `count` rows, before anything is read that they point to.
const char* take_indptr(const Given& given, int64_t count, const int64_t*& out) {
  ZS_CHECKED(take(given.indptr, count + 1, out));
  ZS_REQUIRE(out[0] == 0, "indptr[0] is not 0");
  for (int64_t i = 0; i < count; ++i) ZS_REQUIRE(out[i] <= out[i + 1], "indptr decreases");
  return nullptr;
}

// csr, and bsr in blocks.
const char* check_rows(const Given& given, Source& s, int64_t rows, int64_t cols) {
  ZS_CHECKED(take_indptr(given, rows, s.indptr));
  ZS_CHECKED(take(given.indices, s.indptr[rows], s.indices));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = s.indptr[r]; i < s.indptr[r + 1]; ++i) {
      ZS_REQUIRE(s.indices[i] >= 0 && s.indices[i] < cols, "a column index is out of range");
      ZS_REQUIRE(i == s.indptr[r] || s.indices[i - 1] < s.indices[i], "column indices of a row are not ascending");
    }
  }
  return nullptr;
}

const char* check_bsr(const Given& given, Source& s) {
  s.r = given.r;
  s.c = given.c;
  ZS_REQUIRE(s.r > 0 && s.c > 0 && s.rows % s.r == 0 && s.cols % s.c == 0, "the block does not divide the shape");
  ZS_CHECKED(check_rows(given, s, s.rows / s.r, s.cols / s.c));
  return take(given.data, s.indptr[s.rows / s.r] * s.r * s.c, s.data);
}

const char* check_bitmask(const Given& given, Source& s) {
  const int64_t bytes = (s.cols + 7) / 8;
  ZS_CHECKED(take(given.bits, s.rows * bytes, s.bits));
  for (int64_t r = 0; s.cols % 8 && r < s.rows; ++r) {
    ZS_REQUIRE((s.bits[(r + 1) * bytes - 1] >> (s.cols % 8)) == 0, "bits are set beyond the last column");
  }
  return take(given.data, count_bits(s.bits, s.rows * bytes), s.data);
}

const char* check_nm(const Given& given, Source& s) {
  s.r = given.n;
  s.c = given.m;
  ZS_REQUIRE(s.r > 0 && s.c >= s.r && s.c <= 256 && s.cols % s.c == 0, "n:m does not divide the columns");
  const int64_t count = s.rows * (s.cols / s.c) * s.r;
  ZS_CHECKED(take(given.positions, count, s.bits));
  for (int64_t i = 0; i < count; ++i) {
    ZS_REQUIRE(s.bits[i] < s.c, "a position is outside its group");
    ZS_REQUIRE(i % s.r == 0 || s.bits[i - 1] < s.bits[i], "positions of a group are not ascending");
  }
  return take(given.data, count, s.data);
}

const char* check_vnm(const Given& given, Source& s) {
  s.v = given.v;
  s.r = given.n;
  s.c = given.m;
  ZS_REQUIRE(s.r > 0 && s.r <= 4 && s.c >= 4 && s.c <= 256 && s.cols % s.c == 0, "n:m does not divide the columns");
  ZS_REQUIRE(s.v > 0 && s.rows % s.v == 0, "v does not divide the rows");
  const int64_t kept = s.rows / s.v * (s.cols / s.c) * 4, count = s.rows * (s.cols / s.c) * s.r;
  ZS_CHECKED(take(given.columns, kept, s.four));
  ZS_CHECKED(take(given.positions, count, s.bits));
  for (int64_t i = 0; i < kept; ++i) {
    ZS_REQUIRE(s.four[i] < s.c && (i % 4 == 0 || s.four[i - 1] < s.four[i]), "kept columns are outside, or not ascending");
  }
  for (int64_t i = 0; i < count; ++i) {
    ZS_REQUIRE(s.bits[i] < 4 && (i % s.r == 0 || s.bits[i - 1] < s.bits[i]), "positions are outside, or not ascending");
  }
  return take(given.data, count, s.data);
}

// Rows of slots as ell and sell have them: `step` apart, columns ascending, then padding.
const char* check_slots(const int32_t* indices, int64_t count, int64_t step, int64_t cols) {
  for (int64_t i = 0; i < count; ++i) {
    const int32_t now = indices[i * step], before = i ? indices[(i - 1) * step] : -1;
    ZS_REQUIRE(now >= -1 && now < cols, "a column index is out of range");
    ZS_REQUIRE(now == -1 || i == 0 || (before != -1 && before < now), "column indices of a row are not ascending");
  }
  return nullptr;
}

const char* check_ell(const Given& given, Source& s) {
  s.r = given.width;
  ZS_REQUIRE(s.r >= 0 && s.r < INT32_MAX, "the width is negative or too large");
  ZS_CHECKED(take(given.indices, s.rows * s.r, s.indices));
  // Without slots no array bounds the rows: two thousand million empty ones would take a second to look at.
  for (int64_t r = 0; s.r > 0 && r < s.rows; ++r) ZS_CHECKED(check_slots(s.indices + r * s.r, s.r, 1, s.cols));
  return take(given.data, s.rows * s.r, s.data);
}

const char* check_sell(const Given& given, Source& s) {
  s.r = given.c;
  ZS_REQUIRE(s.r > 0, "a slice has no rows");
  const int64_t slices = s.rows / s.r + (s.rows % s.r != 0);
  ZS_CHECKED(take_indptr(given, slices, s.indptr));
  ZS_CHECKED(take(given.indices, s.indptr[slices], s.indices));
  for (int64_t i = 0; i < slices; ++i) {
    const int64_t height = std::min(s.r, s.rows - i * s.r), size = s.indptr[i + 1] - s.indptr[i];
    ZS_REQUIRE(size % height == 0, "the rows of a slice are not of equal width");
    for (int64_t r = 0; r < height; ++r) {
      ZS_CHECKED(check_slots(s.indices + s.indptr[i] + r, size / height, height, s.cols));
    }
  }
  ZS_CHECKED(take(given.order, s.rows, s.order));
  std::vector<bool> seen(static_cast<size_t>(s.rows));
  for (int64_t i = 0; i < s.rows; ++i) {
    ZS_REQUIRE(s.order[i] >= 0 && s.order[i] < s.rows && !seen[s.order[i]], "rows is no permutation");
    seen[s.order[i]] = true;
  }
  return take(given.data, s.indptr[slices], s.data);
}

const char* check_scales(const Given& given, Source& s) {
  s.scale_group = given.group;
  ZS_REQUIRE(s.scale_group >= 0 && s.scale_group <= kMaxGroup && s.scale_group % 32 == 0,
             "a scale covers 32, 64, ... columns, or a row");
  const int64_t count = s.rows * (s.scale_group ? (s.cols + s.scale_group - 1) / s.scale_group : 1);
  ZS_CHECKED(take(given.scales, count, s.scales));
  return given.zeros.size < 0 ? nullptr : take(given.zeros, count, s.zeros);
}

}  // namespace

const char* check_given(const Given& given, Source& s) {
  s = Source{};
  s.format = given.format;
  s.type = given.type;
  s.rows = given.rows;
  s.cols = given.cols;
  // As in Python a matrix has no empty side; packing counts on it.
  ZS_REQUIRE(s.rows > 0 && s.cols > 0 && s.cols < INT32_MAX && s.rows < INT32_MAX, "shape is below 1 or too large");
  if (is_code(s.type)) ZS_CHECKED(check_scales(given, s));
  switch (s.format) {
    case Format::dense: return take(given.data, s.rows * s.cols, s.data);
    case Format::csr: ZS_CHECKED(check_rows(given, s, s.rows, s.cols)); return take(given.data, s.indptr[s.rows], s.data);
    case Format::bitmask: return check_bitmask(given, s);
    case Format::bsr: return check_bsr(given, s);
    case Format::nm: return check_nm(given, s);
    case Format::ell: return check_ell(given, s);
    case Format::sell: return check_sell(given, s);
    case Format::vnm: return check_vnm(given, s);
    case Format::csc:
    case Format::dia: break;
  }
  return "csc and dia are handed over as csr";
}

#undef ZS_CHECKED
#undef ZS_REQUIRE

}  // namespace zs
