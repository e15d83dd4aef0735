// Rows of a table become lanes: a transpose, eight tokens at a time so that each store fills consecutive lanes.

namespace zs {
namespace {

template <ValueType type> static inline float entry(const void* table, int64_t i) {
  if constexpr (type == ValueType::f32) return static_cast<const float*>(table)[i];
  if constexpr (type == ValueType::bf16) return bf16_to_float(static_cast<const uint16_t*>(table)[i]);
  return f16_to_float(static_cast<const uint16_t*>(table)[i]);
}

template <ValueType type> static void embed_run(const EmbedArgs& a, int64_t panel, int64_t f0, int64_t f1) {
  const int64_t width = panel_width(a.lanes, panel);
  const int64_t features = a.out.features;
  const int64_t last = a.lanes - 1;
  const int64_t unit = width < kLaneUnit ? 1 : kLaneUnit;
  for (int64_t t = 0; t < width; t += unit) {
    int64_t row[kLaneUnit];
    for (int64_t i = 0; i < unit; ++i) row[i] = a.index[min_of(panel * kPanel + t + i, last)] * features;
    float* out = view_at(a.out, panel, width, f0) + t;
    for (int64_t f = f0; f < f1; ++f, out += width) {
      float lane[kLaneUnit];
      for (int64_t i = 0; i < unit; ++i) lane[i] = entry<type>(a.table, row[i] + f);
      if (a.add) {
        for (int64_t i = 0; i < unit; ++i) lane[i] += out[i];
      }
      memcpy(out, lane, unit * sizeof(float));
    }
  }
}

void embed(const EmbedArgs& a, int64_t panel, int64_t f0, int64_t f1) {
  switch (a.type) {
    case ValueType::f32: return embed_run<ValueType::f32>(a, panel, f0, f1);
    case ValueType::bf16: return embed_run<ValueType::bf16>(a, panel, f0, f1);
    case ValueType::f16: return embed_run<ValueType::f16>(a, panel, f0, f1);
    case ValueType::i8:
    case ValueType::i4: return;
  }
}

}  // namespace
}  // namespace zs
