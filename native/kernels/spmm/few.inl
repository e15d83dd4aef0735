// Dense matrices at few lanes, where a vector of lanes would be mostly empty: the elements of a vector are rows. Included
// behind micro.inl.

namespace zs {
namespace {

// Two quads by up to four lanes of a panel: values are read once, in their own type, and stay in the register that they were
// widened in; what is made of x serves both quads.
template <ValueType Type>
void quads_few_typed(const void* a, const void* b, int64_t n, const float* x, int64_t stride, float* sums) {
  int64_t k = 0;
#if defined(__AVX2__)
  __m256 acc[8];  // [quad][lane]; the halves of a vector are two columns
  for (int i = 0; i < 8; ++i) acc[i] = _mm256_setzero_ps();
  for (; k + 2 <= n; k += 2) {
    const float* from = x + k * stride;
    const __m256 xs = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm_loadu_ps(from + stride), 1);
    const __m256 lane[4] = {_mm256_permute_ps(xs, 0x00), _mm256_permute_ps(xs, 0x55), _mm256_permute_ps(xs, 0xaa),
                            _mm256_permute_ps(xs, 0xff)};
    const __m256 va = load8<Type>(a, 4 * k), vb = load8<Type>(b, 4 * k);
    for (int t = 0; t < 4; ++t) {
      acc[t] = _mm256_fmadd_ps(va, lane[t], acc[t]);
      acc[4 + t] = _mm256_fmadd_ps(vb, lane[t], acc[4 + t]);
    }
  }
  for (int i = 0; i < 8; ++i) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(acc[i]), _mm256_extractf128_ps(acc[i], 1));
    _mm_storeu_ps(sums + 4 * i, _mm_add_ps(_mm_loadu_ps(sums + 4 * i), four));
  }
#elif defined(__aarch64__)
  const auto four = [](const void* values, int64_t at) {
    if (Type == ValueType::f32) return vld1q_f32(static_cast<const float*>(values) + at);
    const uint16x4_t half = vld1_u16(static_cast<const uint16_t*>(values) + at);
    if (Type == ValueType::f16) return vcvt_f32_f16(vreinterpret_f16_u16(half));
    return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
  };
  float32x4_t acc[8];  // [quad][lane]
  for (int i = 0; i < 8; ++i) acc[i] = vld1q_f32(sums + 4 * i);
  for (; k < n; ++k) {
    const float32x4_t va = four(a, 4 * k), vb = four(b, 4 * k), xs = vld1q_f32(x + k * stride);
    acc[0] = vfmaq_laneq_f32(acc[0], va, xs, 0);
    acc[1] = vfmaq_laneq_f32(acc[1], va, xs, 1);
    acc[2] = vfmaq_laneq_f32(acc[2], va, xs, 2);
    acc[3] = vfmaq_laneq_f32(acc[3], va, xs, 3);
    acc[4] = vfmaq_laneq_f32(acc[4], vb, xs, 0);
    acc[5] = vfmaq_laneq_f32(acc[5], vb, xs, 1);
    acc[6] = vfmaq_laneq_f32(acc[6], vb, xs, 2);
    acc[7] = vfmaq_laneq_f32(acc[7], vb, xs, 3);
  }
  for (int i = 0; i < 8; ++i) vst1q_f32(sums + 4 * i, acc[i]);
#endif
  for (; k < n; ++k) {
    for (int i = 0; i < 8; ++i) {
      const void* values = i < 4 ? a : b;
      const int64_t at = 4 * k + i % 4;
      const float v = Type == ValueType::f32    ? static_cast<const float*>(values)[at]
                      : Type == ValueType::bf16 ? bf16_to_float(static_cast<const uint16_t*>(values)[at])
                                                : f16_to_float(static_cast<const uint16_t*>(values)[at]);
      for (int t = 0; t < 4; ++t) sums[16 * (i / 4) + 4 * t + i % 4] += v * x[k * stride + t];
    }
  }
}

void quads_few(const void* a, const void* b, ValueType type, int64_t n, const float* x, int64_t stride, float* sums) {
  switch (type) {
    case ValueType::f32: return quads_few_typed<ValueType::f32>(a, b, n, x, stride, sums);
    case ValueType::bf16: return quads_few_typed<ValueType::bf16>(a, b, n, x, stride, sums);
    case ValueType::f16: return quads_few_typed<ValueType::f16>(a, b, n, x, stride, sums);
    case ValueType::i8:
    case ValueType::i4: return;
  }
}

// Two quads by up to eight lanes, for processors whose vectors hold sixteen floats: four columns of a quad in one vector, a
// row in each of its quarters, and for each lane four elements of x in all quarters alike. Counted for eight rows and four columns: sixteen
// multiply-adds, two permutations and ten loads, where a vector of eight lanes would take 32 multiply-adds. x is turned for it
// once for all rows of a task: out[columns / 4][lane][4]. (Spread so that no permutation is needed, four times as
// many bytes, it left L1 no room for the weights: a tenth to a half slower.)
#if defined(__AVX512F__)
void turn(const float* x, int64_t n, float* out) {
  for (int64_t k = 0; k < n; k += 4, x += 4 * 8, out += 4 * 8) {
    __m256 row[4];
    for (int i = 0; i < 4; ++i) row[i] = k + i < n ? _mm256_loadu_ps(x + 8 * i) : _mm256_setzero_ps();
    const __m256 a = _mm256_unpacklo_ps(row[0], row[1]), b = _mm256_unpackhi_ps(row[0], row[1]);
    const __m256 c = _mm256_unpacklo_ps(row[2], row[3]), d = _mm256_unpackhi_ps(row[2], row[3]);
    const __m256 lane[4] = {_mm256_shuffle_ps(a, c, 0x44), _mm256_shuffle_ps(a, c, 0xee), _mm256_shuffle_ps(b, d, 0x44),
                            _mm256_shuffle_ps(b, d, 0xee)};  // and the lane four behind it in the high half
    for (int t = 0; t < 4; t += 2) {
      _mm256_storeu_ps(out + 4 * t, _mm256_permute2f128_ps(lane[t], lane[t + 1], 0x20));
      _mm256_storeu_ps(out + 4 * t + 16, _mm256_permute2f128_ps(lane[t], lane[t + 1], 0x31));
    }
  }
}

// The sums of four lanes, each over a quarter's four columns: [row][lane].
inline __m512 sums_of_four(const __m512* acc) {
  const auto pair = [](__m512 a, __m512 b) { return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); };
  const __m512 low = pair(acc[0], acc[1]), high = pair(acc[2], acc[3]);
  return _mm512_add_ps(_mm512_shuffle_ps(low, high, 0x44), _mm512_shuffle_ps(low, high, 0xee));
}

inline void add_rows(const __m512* acc, float* y, int64_t ldy, bool first) {
  const __m512 low = sums_of_four(acc), high = sums_of_four(acc + 4);
  const __m512i order = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  for (int r = 0; r < 4; r += 2) {
    const __m512 two = _mm512_permutex2var_ps(low, _mm512_add_epi32(order, _mm512_set1_epi32(4 * r)), high);
    const __m256 own = _mm512_castps512_ps256(two);
    const __m256 next = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(two), 1));
    float* out = y + r * ldy;
    _mm256_storeu_ps(out, first ? own : _mm256_add_ps(own, _mm256_loadu_ps(out)));
    _mm256_storeu_ps(out + ldy, first ? next : _mm256_add_ps(next, _mm256_loadu_ps(out + ldy)));
  }
}

template <ValueType Type, int Lanes>
void quads_turned_typed(const void* a, const void* b, int64_t n, const float* x, float* y, int64_t ldy, bool first) {
  __m512 acc[2][8];  // [quad][lane]
  for (int t = 0; t < 8; ++t) acc[0][t] = acc[1][t] = _mm512_setzero_ps();
  const __m512i by_row = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const auto step = [&](__m512 four_a, __m512 four_b, const float* from) {
    const __m512 va = _mm512_permutexvar_ps(by_row, four_a), vb = _mm512_permutexvar_ps(by_row, four_b);
    for (int t = 0; t < Lanes; ++t) {
      const __m512 xs = _mm512_broadcast_f32x4(_mm_loadu_ps(from + 4 * t));
      acc[0][t] = _mm512_fmadd_ps(va, xs, acc[0][t]);
      acc[1][t] = _mm512_fmadd_ps(vb, xs, acc[1][t]);
    }
  };
  int64_t k = 0;
  for (; k + 4 <= n; k += 4) {
    ask_ahead(a, 4 * k * kBytesOf<Type>);
    ask_ahead(b, 4 * k * kBytesOf<Type>);
    step(load16<Type>(a, 4 * k), load16<Type>(b, 4 * k), x + 8 * k);
  }
  if (k < n) {  // what lies behind is another row's, and may be infinite
    float rest[2][16] = {};
    const int64_t bytes = 4 * kBytesOf<Type>;
    memcpy(rest[0], static_cast<const char*>(a) + k * bytes, (n - k) * bytes);
    memcpy(rest[1], static_cast<const char*>(b) + k * bytes, (n - k) * bytes);
    step(load16<Type>(rest[0], 0), load16<Type>(rest[1], 0), x + 8 * k);
  }
  add_rows(acc[0], y, ldy, first);
  add_rows(acc[1], y + 4 * ldy, ldy, first);
}

template <ValueType Type>
void quads_turned_by(const void* a, const void* b, int64_t n, const float* x, int64_t lanes, float* y, int64_t ldy,
                     bool first) {
  if (lanes <= 4) return quads_turned_typed<Type, 4>(a, b, n, x, y, ldy, first);
  quads_turned_typed<Type, 8>(a, b, n, x, y, ldy, first);
}

void quads_turned(const void* a, const void* b, ValueType type, int64_t n, const float* x, int64_t lanes, float* y, int64_t ldy,
                  bool first) {
  switch (type) {
    case ValueType::f32: return quads_turned_by<ValueType::f32>(a, b, n, x, lanes, y, ldy, first);
    case ValueType::bf16: return quads_turned_by<ValueType::bf16>(a, b, n, x, lanes, y, ldy, first);
    case ValueType::f16: return quads_turned_by<ValueType::f16>(a, b, n, x, lanes, y, ldy, first);
    case ValueType::i8:
    case ValueType::i4: return;
  }
}
#endif

}  // namespace
}  // namespace zs
