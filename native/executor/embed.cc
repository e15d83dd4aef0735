#include "run.h"
#include "tasks.h"

namespace zs {

void Run::run_embed(const Step& s) {
  state_.index.resize(batch_.tokens);
  int32_t* index = state_.index.data();
  const int32_t offset = static_cast<int32_t>(s.offset);
  if (s.input == Input::positions) {
    for (int64_t i = 0; i < batch_.tokens; ++i) index[i] = state_.positions[i] + offset;
  } else {
    const int32_t* values = s.input == Input::ids ? batch_.ids : batch_.types;
    for (int64_t i = 0; i < batch_.tokens; ++i) index[i] = (values ? values[i] : 0) + offset;
  }
  const EmbedArgs args = {s.table, s.table_type, index, batch_.tokens, view(s.out), s.accumulate};
  for_feature_runs(batch_.tokens, args.out.features,
                   [&](int64_t p, int64_t, int64_t f0, int64_t f1) { exec_ops().embed(args, p, f0, f1); });
}

}  // namespace zs
