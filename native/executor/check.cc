// Everything that a program or a batch could get wrong, found before anything runs: what comes from a file is not trusted.
#include "program.h"

namespace zs {
namespace {

constexpr int kUnset = -1, kTokens = 0, kSequences = 1;
constexpr int64_t kMaxFeatures = int64_t{1} << 24;
constexpr int64_t kMaxHeadDim = 1024;

std::string check_attention(const Step& s, const Slice& q, const Slice& k, const Slice& v, const Slice& out) {
  if (s.heads < 1 || s.kv_heads < 1 || s.heads % s.kv_heads) return "attention: heads is not a multiple of kv_heads";
  if (s.head_dim < 1 || s.head_dim > kMaxHeadDim) return "attention: head_dim is outside [1, 1024]";
  const int64_t wide = s.heads * s.head_dim, narrow = s.kv_heads * s.head_dim;
  if (q.features != wide || out.features != wide) return "attention: q or out is not heads * head_dim wide";
  if (k.features != narrow || v.features != narrow) return "attention: k or v is not kv_heads * head_dim wide";
  if (s.bias && (s.reach < 1 || s.cache >= 0)) return "attention: a position bias needs a reach, and no cache";
  if (s.cache >= 0 && !s.causal) return "attention: a cache needs causal attention";
  if (out.buffer == q.buffer || out.buffer == k.buffer || out.buffer == v.buffer) return "attention: out overlaps an input";
  return "";
}

std::string check_linear(const Step& s, const std::vector<int64_t>& buffers, const std::vector<Slice>& slices) {
  const Slice &in = slices[s.in], &out = slices[s.out];
  if (s.variants.empty()) return "linear: no packed matrix";
  int64_t last = 0;
  for (const Variant& v : s.variants) {
    if (!v.packed || v.packed->cols != in.features || v.packed->rows != out.features) {
      return "linear: the packed matrix does not fit its buffers";
    }
    if (v.max_lanes <= last) return "linear: max_lanes does not ascend";
    last = v.max_lanes;
  }
  if (last != INT64_MAX) return "linear: the last packed matrix is not for any number of lanes";
  if (in.features != buffers[in.buffer] || out.features != buffers[out.buffer]) return "linear: a view is not allowed here";
  if (in.buffer == out.buffer) return "linear: in and out are the same buffer";
  if (s.residual >= 0) {
    const Slice& r = slices[s.residual];
    if (r.features != out.features || r.features != buffers[r.buffer]) return "linear: residual does not fit out";
    if (r.buffer == out.buffer) return "linear: residual and out are the same buffer";
  }
  return "";
}

}  // namespace

std::string Program::check_step(Step& s, std::vector<int>& lanes) {
  const int count = static_cast<int>(slices.size());
  const bool three = s.op == Op::attention, two = three || s.op == Op::glu || s.op == Op::add;
  const int needs[] = {s.op == Op::embed ? -2 : s.in, two ? s.in2 : -2, three ? s.in3 : -2, s.op == Op::rope ? -2 : s.out};
  for (int slice : needs) {
    if (slice != -2 && (slice < 0 || slice >= count)) return "a step lacks one of its buffers";
  }
  if (s.residual >= count) return "a step lacks one of its buffers";
  int kind = kUnset;
  for (int slice : {s.in, s.in2, s.in3, s.residual, s.op == Op::embed && s.accumulate ? s.out : -1}) {
    if (slice < 0) continue;
    const int k = lanes[slices[slice].buffer];
    if (k == kUnset) return "a buffer is read before it is written";
    if (kind != kUnset && k != kind) return "a step mixes buffers of tokens and of sequences";
    kind = k;
  }
  s.per_sequence = kind == kSequences;
  const Slice* in = s.in >= 0 ? &slices[s.in] : nullptr;
  const Slice* out = s.out >= 0 ? &slices[s.out] : nullptr;
  switch (s.op) {
    case Op::embed:
      if (!s.table || s.entries < 1 || s.entries > INT32_MAX) return "embed: the table is empty or too large";
      if (s.offset < 0 || s.offset > INT32_MAX) return "embed: offset is out of range";
      kind = kTokens;
      break;
    case Op::layernorm:
    case Op::rmsnorm:
      if (!s.weight || s.groups < 1 || in->features % s.groups) return "norm: the features are not a multiple of the groups";
      if (in->features != out->features) return "norm: in and out differ in features";
      if (!(s.eps >= 0)) return "norm: eps is negative";
      break;
    case Op::linear: {
      const std::string wrong = check_linear(s, buffers, slices);
      if (!wrong.empty()) return wrong;
      break;
    }
    case Op::rope:
      if (s.per_sequence || !s.freqs) return "rope: needs tokens and frequencies";
      if (s.heads < 1 || s.head_dim < 1 || s.head_dim > kMaxHeadDim || in->features != s.heads * s.head_dim) {
        return "rope: in is not heads * head_dim wide";
      }
      if (s.half < 1 || 2 * s.half > s.head_dim) return "rope: more frequencies than half of head_dim";
      return "";
    case Op::attention: {
      if (s.per_sequence) return "attention: needs tokens";
      const std::string wrong = check_attention(s, *in, slices[s.in2], slices[s.in3], *out);
      if (!wrong.empty()) return wrong;
      if (s.bias) {
        const int64_t row = 2 * s.reach - 1;
        s.padded_bias.assign(s.heads * (row + kPanel), 0.0f);
        for (int64_t h = 0; h < s.heads; ++h) {
          for (int64_t i = 0; i < row; ++i) s.padded_bias[h * (row + kPanel) + i] = s.bias[h * row + i];
        }
      }
      break;
    }
    case Op::glu:
    case Op::add:
      if (in->features != out->features || slices[s.in2].features != out->features) return "glu, add: features differ";
      break;
    case Op::activation:
      if (in->features != out->features) return "activation: features differ";
      break;
    case Op::pool:
      if (s.per_sequence) return "pool: needs tokens";
      if (in->features != out->features || in->buffer == out->buffer) return "pool: out must be another buffer, as wide as in";
      kind = kSequences;
      break;
  }
  if (kind == kUnset) return "a step reads nothing";
  // A slice of a buffer leaves the rest as it was, so all slices of a buffer hold the same kind of lanes.
  const bool whole = out->features == buffers[out->buffer];
  int& known = lanes[out->buffer];
  if (!whole && known != kUnset && known != kind) return "the slices of a buffer hold tokens and sequences";
  known = kind;
  return "";
}

std::string Program::check() {
  for (int64_t features : buffers) {
    if (features < 1 || features > kMaxFeatures) return "a buffer has a number of features outside [1, 2^24]";
  }
  for (const Slice& s : slices) {
    if (s.buffer < 0 || s.buffer >= static_cast<int>(buffers.size())) return "a view names no buffer";
    const int64_t all = buffers[s.buffer];
    if (s.first < 0 || s.features < 1 || s.features > all || s.first > all - s.features) return "a view leaves its buffer";
  }
  std::vector<int> lanes(buffers.size(), kUnset);
  int64_t layers = 0, attentions = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    const std::string wrong = check_step(steps[i], lanes);
    if (!wrong.empty()) return "step " + std::to_string(i) + ": " + wrong;
    if (steps[i].op != Op::attention) continue;
    ++attentions;
    if (steps[i].cache >= 0 && steps[i].cache != layers++) {
      return "step " + std::to_string(i) + ": attention: cache layers do not count up from 0";
    }
  }
  if (layers && layers != attentions) return "attention: some steps have a cache and some have none";
  final_per_sequence_.assign(buffers.size(), false);
  for (size_t b = 0; b < buffers.size(); ++b) final_per_sequence_[b] = lanes[b] == kSequences;
  return "";
}

std::vector<int64_t> Program::cache_layers() const {
  std::vector<int64_t> layers;
  for (const Step& s : steps) {
    if (s.op == Op::attention && s.cache >= 0) layers.push_back(2 * s.kv_heads * s.head_dim);
  }
  return layers;
}

std::string Program::check(const Batch& b) const {
  if (b.sequences < 1 || b.tokens < 1) return "ids is empty";
  if (b.tokens > INT32_MAX) return "ids has more than 2^31 tokens";
  if (b.offsets[0] != 0 || b.offsets[b.sequences] != b.tokens) return "offsets do not span ids";
  if (!b.caches.empty() && cache_layers().empty()) return "cache: this model keeps none";
  if (!b.caches.empty() && static_cast<int64_t>(b.caches.size()) != b.sequences) return "cache: not one for each sequence";
  const std::vector<int64_t> layers = cache_layers();
  int64_t longest = 0;  // past and new tokens
  for (int64_t i = 0; i < b.sequences; ++i) {
    const int64_t length = b.offsets[i + 1] - b.offsets[i];
    if (length < 1) return "sequence " + std::to_string(i) + " is empty";
    int64_t total = length;
    if (!b.caches.empty()) {
      const Cache& cache = *b.caches[i];
      total += cache.length;
      bool fits = cache.layers() == static_cast<int64_t>(layers.size());
      for (int64_t l = 0; fits && l < cache.layers(); ++l) fits = cache.layer_floats(l) == layers[l];
      if (!fits) return "cache: made for another program";
      if (total > cache.limit) {
        return "cache: holds " + std::to_string(cache.limit) + " tokens, but " + std::to_string(total) + " are needed";
      }
    }
    if (max_positions && total > max_positions) {
      return "sequence " + std::to_string(i) + " has " + std::to_string(total) + " tokens, but the model takes at most " +
             std::to_string(max_positions);
    }
    longest = total > longest ? total : longest;
  }
  for (const Step& s : steps) {
    if (s.op == Op::attention && s.bias && longest > s.reach) return "a sequence is longer than the position bias reaches";
    if (s.op != Op::embed) continue;
    if (s.input == Input::positions) {
      if (longest - 1 + s.offset >= s.entries) {
        return "a sequence has " + std::to_string(longest) + " tokens, but the position table serves " +
               std::to_string(s.entries - s.offset);
      }
      continue;
    }
    const int32_t* values = s.input == Input::ids ? b.ids : b.types;
    const char* name = s.input == Input::ids ? "ids" : "types";
    for (int64_t i = 0; i < (values ? b.tokens : 0); ++i) {
      if (values[i] < 0 || values[i] + s.offset >= s.entries) {
        return std::string(name) + "[" + std::to_string(i) + "] is " + std::to_string(values[i]) + ", outside [0, " +
               std::to_string(s.entries - s.offset) + ")";
      }
    }
    if (!values && s.offset >= s.entries) return std::string(name) + ": offset is outside the table";
  }
  return "";
}

}  // namespace zs
