// Codes of a cell (cells.cc) to float32. Included behind micro.inl.
//
//   value = (code - zero) * scale
//
// is exact: the difference has 8 bits, the scale 11. Eight codes a step, whatever the instruction set. The scales of a cell's groups
// of columns, eight at most, are a table in registers, from which each entry takes the one of its column.
namespace zs {
namespace {

#if defined(__AVX2__)
struct Codes {
  typedef __m256 V;
  typedef __m256i Groups;
  static V scales(const uint16_t* from) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))); }
  static V codes(const int8_t* from) { return load8<ValueType::i8>(from, 0); }
  static V first(V table) { return _mm256_broadcastss_ps(_mm256_castps256_ps128(table)); }
  static Groups groups(const uint8_t* columns, int before, int shift) {
    const __m256i all = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(columns)));
    return _mm256_srl_epi32(_mm256_add_epi32(all, _mm256_set1_epi32(before)), _mm_cvtsi32_si128(shift));
  }
  static V pick(V table, Groups groups) { return _mm256_permutevar8x32_ps(table, groups); }
  static V sub(V a, V b) { return _mm256_sub_ps(a, b); }
  static V mul(V a, V b) { return _mm256_mul_ps(a, b); }
  static void store(float* out, V v) { _mm256_storeu_ps(out, v); }
};
#elif defined(__aarch64__)
struct Codes {
  typedef float32x4x2_t V;
  typedef uint32x4x2_t Groups;
  static V numbers(int32x4_t low, int32x4_t high) { return {{vcvtq_f32_s32(low), vcvtq_f32_s32(high)}}; }
  static V scales(const uint16_t* from) {
    const float16x8_t all = vreinterpretq_f16_u16(vld1q_u16(from));
    return {{vcvt_f32_f16(vget_low_f16(all)), vcvt_high_f32_f16(all)}};
  }
  static V codes(const int8_t* from) {
    const int16x8_t all = vmovl_s8(vld1_s8(from));
    return numbers(vmovl_s16(vget_low_s16(all)), vmovl_high_s16(all));
  }
  static V first(V table) {
    const float32x4_t all = vdupq_laneq_f32(table.val[0], 0);
    return {{all, all}};
  }
  static Groups groups(const uint8_t* columns, int before, int shift) {
    const uint16x8_t all = vshlq_u16(vaddw_u8(vdupq_n_u16(static_cast<uint16_t>(before)), vld1_u8(columns)),
                                     vdupq_n_s16(static_cast<int16_t>(-shift)));
    return {{vmovl_u16(vget_low_u16(all)), vmovl_high_u16(all)}};
  }
  static float32x4_t pick(V table, uint32x4_t groups) {  // the four bytes of a number follow each other
    const uint8x16x2_t bytes = {{vreinterpretq_u8_f32(table.val[0]), vreinterpretq_u8_f32(table.val[1])}};
    const uint32x4_t places = vmlaq_n_u32(vdupq_n_u32(0x03020100), groups, 0x04040404);
    return vreinterpretq_f32_u8(vqtbl2q_u8(bytes, vreinterpretq_u8_u32(places)));
  }
  static V pick(V table, Groups groups) { return {{pick(table, groups.val[0]), pick(table, groups.val[1])}}; }
  static V sub(V a, V b) { return {{vsubq_f32(a.val[0], b.val[0]), vsubq_f32(a.val[1], b.val[1])}}; }
  static V mul(V a, V b) { return {{vmulq_f32(a.val[0], b.val[0]), vmulq_f32(a.val[1], b.val[1])}}; }
  static void store(float* out, V v) {
    vst1q_f32(out, v.val[0]);
    vst1q_f32(out + 4, v.val[1]);
  }
};
#endif

template <bool Zeros, bool Grouped> void decode_rows(const CellView& cell, const CodesView& c, float* out) {
  typedef Codes::V V;
  int64_t at = 0;
  for (int64_t i = 0; i < cell.rows; ++i) {
    const int64_t end = at + cell.counts[i], row = cell.row_ids[i] * c.stride;
    if (at == end) return;  // and so are the rest
    const V scale = Grouped ? Codes::scales(c.scales + row) : Codes::first(Codes::scales(c.scales + row));
    const V zero = !Zeros ? V{} : Grouped ? Codes::codes(c.zeros + row) : Codes::first(Codes::codes(c.zeros + row));
    for (; at < end; at += 8) {  // what is written beyond the row is the next one's
      V v = Codes::codes(c.codes + at);
      if constexpr (Grouped) {
        const Codes::Groups groups = Codes::groups(cell.indices + at, c.before, c.shift);
        if (Zeros) v = Codes::sub(v, Codes::pick(zero, groups));
        v = Codes::mul(v, Codes::pick(scale, groups));
      } else {
        if (Zeros) v = Codes::sub(v, zero);
        v = Codes::mul(v, scale);
      }
      Codes::store(out + at, v);
    }
    at = end;
  }
}

void decode(const CellView& cell, const CodesView& c, float* out) {
  if (c.groups > 1) return c.zeros ? decode_rows<true, true>(cell, c, out) : decode_rows<false, true>(cell, c, out);
  c.zeros ? decode_rows<true, false>(cell, c, out) : decode_rows<false, false>(cell, c, out);
}

}  // namespace
}  // namespace zs
