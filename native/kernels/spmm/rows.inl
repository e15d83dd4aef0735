// One lane of X times rows of any length (rows.cc): eight elements of x are fetched one by one into a vector and multiplied by
// eight values. Included behind micro.inl.
//
// Measured, Zen 3, one core, x in L1, ns an entry at 20/50/100/400 entries a row: 0.43/0.31/0.26/0.22; scalar with four sums
// 0.47/0.40/0.40/0.40, the gather instruction 0.79/0.55/0.51/0.47, indices loaded one by one 0.41/0.32/0.30/0.28.
namespace zs {
namespace {

template <ValueType Type> inline float value_of(const void* values, int64_t i) {
  if constexpr (Type == ValueType::f32) return static_cast<const float*>(values)[i];
  if constexpr (Type == ValueType::bf16) return bf16_to_float(static_cast<const uint16_t*>(values)[i]);
  if constexpr (Type == ValueType::f16) return f16_to_float(static_cast<const uint16_t*>(values)[i]);
  return static_cast<float>(static_cast<const int8_t*>(values)[i]);
}

#if defined(__AVX2__)
inline __m128 fetch4(const uint16_t* columns, const float* x) {
  uint64_t four;
  memcpy(&four, columns, 8);
  __m128 v = _mm_load_ss(x + (four & 0xffff));
  v = _mm_insert_ps(v, _mm_load_ss(x + _bextr_u64(four, 16, 16)), 0x10);
  v = _mm_insert_ps(v, _mm_load_ss(x + _bextr_u64(four, 32, 16)), 0x20);
  return _mm_insert_ps(v, _mm_load_ss(x + (four >> 48)), 0x30);
}

inline __m256 fetch8(const uint16_t* columns, const float* x) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(fetch4(columns, x)), fetch4(columns + 4, x), 1);
}

template <ValueType Type>
inline float row_dot(const uint16_t* columns, const void* values, int64_t at, int64_t end, const float* x) {
  __m256 a = _mm256_setzero_ps(), b = _mm256_setzero_ps();
  for (; at + 16 <= end; at += 16) {
    a = _mm256_fmadd_ps(load8<Type>(values, at), fetch8(columns + at, x), a);
    b = _mm256_fmadd_ps(load8<Type>(values, at + 8), fetch8(columns + at + 8, x), b);
  }
  if (at + 8 <= end) {
    a = _mm256_fmadd_ps(load8<Type>(values, at), fetch8(columns + at, x), a);
    at += 8;
  }
  a = _mm256_add_ps(a, b);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  float sum = _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  for (; at < end; ++at) sum += value_of<Type>(values, at) * x[columns[at]];
  return sum;
}
#else
template <ValueType Type>
inline float row_dot(const uint16_t* columns, const void* values, int64_t at, int64_t end, const float* x) {
  float sum[4] = {};
  for (; at + 4 <= end; at += 4) {
    for (int s = 0; s < 4; ++s) sum[s] += value_of<Type>(values, at + s) * x[columns[at + s]];
  }
  for (; at < end; ++at) sum[0] += value_of<Type>(values, at) * x[columns[at]];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}
#endif

template <ValueType Type> void rows_one_typed(const RowsView& a, const float* x, float* y, bool first) {
  for (int64_t r = 0; r < a.rows; ++r) {
    float sum = row_dot<Type>(a.columns, a.values, a.starts[r], a.starts[r + 1], x);
    if (a.scales) sum *= a.scales[r];
    y[r] = first ? sum : y[r] + sum;
  }
}

template <ValueType Type> void rows_typed(const RowsView& a, const float* x, int64_t width, float* y, int64_t ldy, bool first) {
  if (width == 1) return rows_one_typed<Type>(a, x, y, first);
  for (int64_t r = 0; r < a.rows; ++r) {
    float* out = y + r * ldy;
    for (int64_t t = 0; t < width; t += kVf) {
      const int64_t n = width - t < kVf ? width - t : kVf;
      vf sum{};
      for (int64_t i = a.starts[r]; i < a.starts[r + 1]; ++i) {
        sum = vfma(vset(value_of<Type>(a.values, i)), vload_part(x + a.columns[i] * width + t, n), sum);
      }
      if (a.scales) sum *= vset(a.scales[r]);
      if (!first) sum += vload_part(out + t, n);
      vstore_part(out + t, sum, n);
    }
  }
}

void rows(const RowsView& a, ValueType type, const float* x, int64_t width, float* y, int64_t ldy, bool first) {
  switch (type) {
    case ValueType::f32: return rows_typed<ValueType::f32>(a, x, width, y, ldy, first);
    case ValueType::bf16: return rows_typed<ValueType::bf16>(a, x, width, y, ldy, first);
    case ValueType::f16: return rows_typed<ValueType::f16>(a, x, width, y, ldy, first);
    case ValueType::i8:
    case ValueType::i4: return rows_typed<ValueType::i8>(a, x, width, y, ldy, first);
  }
}

}  // namespace
}  // namespace zs
