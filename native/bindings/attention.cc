#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "../kernels/attention/attention.h"
#include "../runtime/cpu.h"
#include "../runtime/pool.h"
#include "bindings.h"

namespace nb = nanobind;

namespace zs {
namespace {

template <class T> using Array = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
using AnyArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using FloatOut = nb::ndarray<float, nb::c_contig, nb::device::cpu>;

constexpr Isa kAttentionIsas[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::neon};

void require(bool ok, const char* message) {
  if (!ok) throw std::invalid_argument(message);
}

// A mask as Python hands it over: ("rule", window, dilation, global, causal), or (format, indptr, indices, r, c). What it views
// stays with the arrays in `kept`.
AttentionMask read_mask(nb::tuple given, int64_t queries, int64_t keys, std::vector<AnyArray>& kept) {
  AttentionMask mask;
  require(given.size() == 5, "attention: a mask has five parts");
  const std::string kind = nb::cast<std::string>(given[0]);
  if (kind == "rule") {
    mask.rule = {nb::cast<int64_t>(given[1]), nb::cast<int64_t>(given[2]), nb::cast<int64_t>(given[3]),
                 nb::cast<bool>(given[4])};
    require(mask.rule.window >= -1 && mask.rule.dilation >= 1 && mask.rule.global >= 0, "attention: a rule out of range");
    return mask;
  }
  mask.kind = kind == "bsr" ? MaskKind::bsr : MaskKind::csr;
  mask.r = nb::cast<int64_t>(given[3]);
  mask.c = nb::cast<int64_t>(given[4]);
  require(mask.r >= 1 && mask.c >= 1 && queries % mask.r == 0 && keys % mask.c == 0, "attention: blocks do not divide");
  AnyArray indptr = nb::cast<AnyArray>(given[1]), indices = nb::cast<AnyArray>(given[2]);
  require(indptr.dtype() == nb::dtype<int64_t>() && static_cast<int64_t>(indptr.size()) == queries / mask.r + 1,
          "attention: indptr is not int64 of one more than there are rows");
  mask.index_bytes = static_cast<int>(indices.itemsize());
  require(indices.dtype() == nb::dtype<uint16_t>() || indices.dtype() == nb::dtype<int32_t>() ||
              indices.dtype() == nb::dtype<int64_t>(),
          "attention: indices are not uint16, int32 or int64");
  mask.indptr = static_cast<const int64_t*>(indptr.data());
  mask.indices = indices.data();
  require(mask.indptr[queries / mask.r] == static_cast<int64_t>(indices.size()), "attention: indptr and indices disagree");
  kept.push_back(std::move(indptr));
  kept.push_back(std::move(indices));
  return mask;
}

void run_attention(const std::string& isa, Array<float> q, Array<float> k, Array<float> v, FloatOut out, nb::list masks,
                   float scale, bool causal, Array<int64_t> lengths) {
  require(q.ndim() == 4 && k.ndim() == 4 && v.ndim() == 4 && out.ndim() == 4, "attention: arrays must have four dimensions");
  AttentionCall call;
  call.batch = q.shape(0);
  call.heads = q.shape(1);
  call.queries = q.shape(2);
  call.d = q.shape(3);
  call.kv_heads = k.shape(1);
  call.keys = k.shape(2);
  call.dv = v.shape(3);
  const auto is = [](const auto& a, int64_t b, int64_t h, int64_t n, int64_t d) {
    return static_cast<int64_t>(a.shape(0)) == b && static_cast<int64_t>(a.shape(1)) == h &&
           static_cast<int64_t>(a.shape(2)) == n && static_cast<int64_t>(a.shape(3)) == d;
  };
  require(call.kv_heads > 0 && call.heads % call.kv_heads == 0, "attention: heads are no multiple of the key heads");
  require(is(k, call.batch, call.kv_heads, call.keys, call.d) && is(v, call.batch, call.kv_heads, call.keys, call.dv) &&
              is(out, call.batch, call.heads, call.queries, call.dv),
          "attention: shapes do not fit");
  require(static_cast<int64_t>(lengths.size()) == call.batch, "attention: lengths does not have one entry a sequence");
  call.lengths = lengths.data();
  for (int64_t b = 0; b < call.batch; ++b) {
    require(call.lengths[b] >= 0 && call.lengths[b] <= call.keys, "attention: a length is out of range");
  }
  std::vector<AnyArray> kept;
  std::vector<AttentionMask> read;
  for (nb::handle mask : masks) read.push_back(read_mask(nb::cast<nb::tuple>(mask), call.queries, call.keys, kept));
  call.masks = read.data();
  call.mask_count = static_cast<int64_t>(read.size());
  require(call.mask_count == 1 || call.mask_count == call.heads || call.mask_count == call.batch * call.heads,
          "attention: masks are neither one nor one a head");
  call.q = q.data();
  call.k = k.data();
  call.v = v.data();
  call.out = out.data();
  call.scale = scale;
  call.causal = causal;
  for (Isa found : kAttentionIsas) {
    if (isa != isa_name(found)) continue;
    require(attention_has(found) && isa_usable(found), "attention: this instruction set is not usable here");
    nb::gil_scoped_release release;
    zs::attention(found, call, Pool::get());
    return;
  }
  throw std::invalid_argument("attention: no kernel for instruction set '" + isa + "'");
}

// [(name, why it cannot run here, or None)], from the one that runs everywhere on.
nb::list attention_isas() {
  nb::list found;
  for (Isa isa : kAttentionIsas) {
    const std::string why = !attention_has(isa) && isa_usable(isa) ? "not built for this architecture" : isa_why_not(isa);
    found.append(nb::make_tuple(isa_name(isa), why.empty() ? nb::object(nb::none()) : nb::object(nb::str(why.c_str()))));
  }
  return found;
}

}  // namespace

void bind_attention(nb::module_& m) {
  m.def("attention_isas", &attention_isas);
  m.def("attention", &run_attention, nb::arg("isa"), nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("out"), nb::arg("masks"),
        nb::arg("scale"), nb::arg("causal"), nb::arg("lengths"));
}

}  // namespace zs
