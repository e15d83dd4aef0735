#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "../kernels/gat/api.h"
#include "../kernels/gspmm/api.h"
#include "../runtime/cpu.h"
#include "bindings.h"

namespace nb = nanobind;

namespace zs {
namespace {

using Offsets = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Indices = nb::ndarray<nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats2 = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Floats3 = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Out2 = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Out3 = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

constexpr Isa kIsasHere[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::neon};

void require(bool ok, const char* message) {
  if (!ok) throw std::invalid_argument(message);
}

template <class A> int64_t size_of(const A& array, size_t axis) { return static_cast<int64_t>(array.shape(axis)); }

Isa isa_of(const std::string& name) {
  for (Isa isa : kIsasHere) {
    if (name == isa_name(isa) && graph_isa(isa) && isa_usable(isa)) return isa;
  }
  throw std::invalid_argument("graph: this instruction set is not usable here");
}

Graph graph_of(const Offsets& indptr, const Indices& indices, int64_t cols) {
  require(indptr.shape(0) >= 1, "graph: indptr is empty");
  const bool whole = indices.dtype().code == static_cast<uint8_t>(nb::dlpack::dtype_code::Int) ||
                     indices.dtype().code == static_cast<uint8_t>(nb::dlpack::dtype_code::UInt);
  const int bytes = indices.dtype().bits / 8;
  require(whole && (bytes == 2 || bytes == 4 || bytes == 8), "graph: indices are not of 2, 4 or 8 bytes");
  const Graph graph{size_of(indptr, 0) - 1, cols, indptr.data(), indices.data(), bytes};
  require(graph.indptr[graph.rows] == size_of(indices, 0), "graph: indptr does not end at the number of indices");
  return graph;
}

void gspmm(const std::string& isa_name, Offsets indptr, Indices indices, Floats3 x, std::optional<Floats2> weights, int reduce,
           Out3 out) {
  const Isa isa = isa_of(isa_name);
  Gspmm a{};
  a.graph = graph_of(indptr, indices, size_of(x, 0));
  a.x = x.data();
  a.y = out.data();
  a.heads = size_of(x, 1);
  a.features = size_of(x, 2);
  require(reduce >= 0 && reduce <= 3, "gspmm: this reduction is not known");
  a.reduce = static_cast<Reduce>(reduce);
  require(size_of(out, 0) == a.graph.rows && size_of(out, 1) == a.heads && size_of(out, 2) == a.features,
          "gspmm: out has the wrong shape");
  if (weights) {
    require(size_of(*weights, 0) == size_of(indices, 0) && size_of(*weights, 1) == a.heads,
            "gspmm: weights have the wrong shape");
    a.weights = weights->data();
  }
  nb::gil_scoped_release release;
  run_gspmm(isa, a, Pool::get());
}

void gat(const std::string& isa_name, Offsets indptr, Indices indices, Floats3 x, Floats2 left, Floats2 right, float slope,
         Out3 out) {
  const Isa isa = isa_of(isa_name);
  Gat a{};
  a.graph = graph_of(indptr, indices, size_of(x, 0));
  a.x = x.data();
  a.left = left.data();
  a.right = right.data();
  a.slope = slope;
  a.y = out.data();
  a.heads = size_of(x, 1);
  a.features = size_of(x, 2);
  require(size_of(left, 0) == a.graph.rows && size_of(left, 1) == a.heads, "gat: left has the wrong shape");
  require(size_of(right, 0) == a.graph.cols && size_of(right, 1) == a.heads, "gat: right has the wrong shape");
  require(size_of(out, 0) == a.graph.rows && size_of(out, 1) == a.heads && size_of(out, 2) == a.features,
          "gat: out has the wrong shape");
  nb::gil_scoped_release release;
  run_gat(isa, a, Pool::get());
}

void edge_softmax(const std::string& isa_name, Offsets indptr, Floats2 scores, Out2 out) {
  const Isa isa = isa_of(isa_name);
  require(indptr.shape(0) >= 1, "edge_softmax: indptr is empty");
  EdgeScores a{};
  a.graph = Graph{size_of(indptr, 0) - 1, 0, indptr.data(), nullptr, 4};
  a.scores = scores.data();
  a.out = out.data();
  a.heads = size_of(scores, 1);
  require(a.graph.indptr[a.graph.rows] == size_of(scores, 0), "edge_softmax: scores have the wrong shape");
  require(size_of(out, 0) == size_of(scores, 0) && size_of(out, 1) == a.heads, "edge_softmax: out has the wrong shape");
  nb::gil_scoped_release release;
  run_edge_softmax(isa, a, Pool::get());
}

void sddmm_add(const std::string& isa_name, Offsets indptr, Indices indices, Floats2 left, Floats2 right, Out2 out) {
  const Isa isa = isa_of(isa_name);
  EdgeScores a{};
  a.graph = graph_of(indptr, indices, size_of(right, 0));
  a.left = left.data();
  a.right = right.data();
  a.out = out.data();
  a.heads = size_of(left, 1);
  require(size_of(left, 0) == a.graph.rows && size_of(right, 1) == a.heads, "sddmm_add: left and right do not agree");
  require(size_of(out, 0) == size_of(indices, 0) && size_of(out, 1) == a.heads, "sddmm_add: out has the wrong shape");
  nb::gil_scoped_release release;
  run_sddmm_add(isa, a, Pool::get());
}

// Name of each instruction set that was compiled for this processor, and why it cannot be used (empty where it can).
nb::list graph_isas() {
  nb::list out;
  for (Isa isa : kIsasHere) {
    if (graph_isa(isa)) out.append(nb::make_tuple(isa_name(isa), isa_why_not(isa)));
  }
  return out;
}

}  // namespace

void bind_graph(nb::module_& m) {
  m.def("graph_isas", &graph_isas);
  m.def("gspmm", &gspmm, nb::arg("isa"), nb::arg("indptr"), nb::arg("indices"), nb::arg("x"), nb::arg("weights").none(),
        nb::arg("reduce"), nb::arg("out"));
  m.def("gat", &gat, nb::arg("isa"), nb::arg("indptr"), nb::arg("indices"), nb::arg("x"), nb::arg("left"), nb::arg("right"),
        nb::arg("slope"), nb::arg("out"));
  m.def("edge_softmax", &edge_softmax, nb::arg("isa"), nb::arg("indptr"), nb::arg("scores"), nb::arg("out"));
  m.def("sddmm_add", &sddmm_add, nb::arg("isa"), nb::arg("indptr"), nb::arg("indices"), nb::arg("left"), nb::arg("right"),
        nb::arg("out"));
}

}  // namespace zs
