#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "../kernels/given.h"
#include "../runtime/cpu.h"
#include "bindings.h"

namespace nb = nanobind;

namespace zs {
namespace {

template <class T> using Array = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
using FloatOut = nb::ndarray<float, nb::c_contig, nb::device::cpu>;

constexpr const char* kFormats[] = {"csr", "bitmask", "dense", "bsr", "nm", "ell", "sell", "vnm", "csc", "dia"};
constexpr const char* kTypes[] = {"float32", "bfloat16", "float16", "int8", "int4"};
constexpr const char* kXTypes[] = {"float32", "bfloat16", "int8", "int16"};
constexpr const char* kActivations[] = {"none", "relu", "gelu", "gelu_tanh", "silu", "tanh"};

template <size_t N> int index_of(const char* const (&names)[N], const std::string& name, const char* what) {
  for (size_t i = 0; i < N; ++i) {
    if (name == names[i]) return static_cast<int>(i);
  }
  throw std::invalid_argument(std::string(what) + " '" + name + "' is not known");
}

void require(bool ok, const char* message) {
  if (!ok) throw std::invalid_argument(message);
}

// An array of the dict, where it is there. Neither converted nor made contiguous: the copy would be gone when it is read.
template <class T, class U> void give(nb::dict arrays, const char* key, GivenArray<U>& out) {
  if (!arrays.contains(key)) return;
  Array<T> array;
  if (!nb::try_cast(arrays[key], array, false)) {
    throw std::invalid_argument(std::string("pack: ") + key + " is no contiguous array of the type that its format has");
  }
  out.data = array.data();
  out.size = static_cast<int64_t>(array.size());
}

void give(nb::dict params, const char* key, int64_t& out) {
  if (params.contains(key)) out = nb::cast<int64_t>(params[key]);
}

void give_data(nb::dict arrays, ValueType type, GivenArray<void>& out) {
  if (type == ValueType::f32) return give<float>(arrays, "data", out);
  if (is_code(type)) return give<int8_t>(arrays, "data", out);
  give<uint16_t>(arrays, "data", out);
}

// Views into the arrays of the dict, which must outlive the source.
Source read_source(int64_t rows, int64_t cols, const std::string& kind, nb::dict arrays, const std::string& dtype,
                   nb::dict params) {
  Given given;
  given.format = static_cast<Format>(index_of(kFormats, kind, "pack: format"));
  given.type = static_cast<ValueType>(index_of(kTypes, dtype, "pack: dtype"));
  given.rows = rows;
  given.cols = cols;
  const bool groups = given.format == Format::nm || given.format == Format::vnm;
  give_data(arrays, given.type, given.data);
  give<int64_t>(arrays, "indptr", given.indptr);
  if (groups) {
    give<uint8_t>(arrays, "indices", given.positions);
  } else {
    give<int32_t>(arrays, "indices", given.indices);
  }
  give<uint8_t>(arrays, "bits", given.bits);
  give<uint8_t>(arrays, "columns", given.columns);
  give<int32_t>(arrays, "rows", given.order);
  give<uint16_t>(arrays, "scales", given.scales);
  give<int8_t>(arrays, "zeros", given.zeros);
  const std::pair<const char*, int64_t*> sizes[] = {{"r", &given.r},        {"c", &given.c}, {"v", &given.v},
                                                    {"n", &given.n},        {"m", &given.m}, {"width", &given.width},
                                                    {"group", &given.group}};
  for (const auto& [key, out] : sizes) give(params, key, *out);
  Source source;
  if (const char* wrong = check_given(given, source)) throw std::invalid_argument(std::string("pack: ") + wrong);
  return source;
}

PyPacked pack(const std::string& kernel, int64_t rows, int64_t cols, const std::string& kind, nb::dict arrays,
              const std::string& dtype, nb::dict params) {
  const Kernel* k = find_kernel(kernel.c_str());
  require(k != nullptr, "pack: no native kernel of this name");
  require(isa_usable(k->isa), "pack: this kernel's instruction set is not usable here");
  const Source source = read_source(rows, cols, kind, arrays, dtype, params);
  nb::gil_scoped_release release;
  std::shared_ptr<Packed> packed = k->pack(source);
  require(packed != nullptr, "pack: this kernel cannot read that format");
  packed->rows = rows;
  packed->cols = cols;
  packed->kernel = k;
  return PyPacked{std::move(packed)};
}

float* buffer(int slot, int64_t floats) {
  float* found = panel_buffer(slot, floats);
  if (!found) throw std::bad_alloc();
  return found;
}

bool aligned(const float* p) { return reinterpret_cast<uintptr_t>(p) % 64 == 0; }

void run(const PyPacked& p, nb::ndarray<const float, nb::c_contig, nb::device::cpu> x, FloatOut out,
         std::optional<nb::ndarray<const float, nb::c_contig, nb::device::cpu>> bias, const std::string& activation,
         bool transposed) {
  const Packed& a = *p.packed;
  require(x.ndim() == 2 && out.ndim() == 2, "run: x and out must have two dimensions");
  const int64_t lanes = transposed ? x.shape(0) : x.shape(1);
  require(static_cast<int64_t>(transposed ? x.shape(1) : x.shape(0)) == a.cols, "run: x does not have cols features");
  require(static_cast<int64_t>(transposed ? out.shape(1) : out.shape(0)) == a.rows &&
              static_cast<int64_t>(transposed ? out.shape(0) : out.shape(1)) == lanes,
          "run: out has the wrong shape");
  Epilogue epilogue;
  epilogue.activation = static_cast<Activation>(index_of(kActivations, activation, "run: activation"));
  if (bias) {
    require(static_cast<int64_t>(bias->size()) == a.rows, "run: bias does not have one entry a row");
    epilogue.bias = bias->data();
  }
  if (lanes == 0 || a.rows == 0) return;
  const float* xp = x.data();
  float* yp = out.data();
  nb::gil_scoped_release release;
  Pool& pool = Pool::get();
  if (lanes == 1) {
    a.kernel->run(a, xp, 1, Output{yp, 0}, epilogue, pool);
    return;
  }
  // Row-major is what a single panel looks like; it is used as it is where vectors do not straddle cache lines (X not
  // aligned: a third slower at 64 lanes, Zen 3). Arrays of torch are aligned, those of NumPy seldom.
  const bool one_panel = !transposed && lanes % kLaneUnit == 0 && lanes <= kPanel;
  if (a.kernel->run.any_layout()) {
    const XView in = one_panel && aligned(xp) ? XView(xp) : XView(xp, transposed ? a.cols : lanes, transposed);
    const Output to{yp, one_panel && aligned(yp) ? 0 : transposed ? a.rows : lanes, transposed};
    a.kernel->run(a, in, lanes, to, epilogue, pool);
    return;
  }
  if (!one_panel || !aligned(xp)) {
    float* xpanels = buffer(0, a.cols * padded_lanes(lanes));
    to_panels(xp, a.cols, lanes, transposed, xpanels, pool);
    xp = xpanels;
  }
  if (!transposed && lanes % kLaneUnit == 0) {
    a.kernel->run(a, xp, lanes, Output{yp, one_panel && aligned(yp) ? 0 : lanes}, epilogue, pool);
    return;
  }
  float* ypanels = buffer(1, a.rows * padded_lanes(lanes));
  a.kernel->run(a, xp, lanes, Output{ypanels, 0}, epilogue, pool);
  from_panels(ypanels, a.rows, lanes, transposed, yp, pool);
}

nb::dict cpu_info() {
  const CpuInfo& info = cpu();
  nb::dict d;
  nb::list found;
  for (Isa isa : info.found) found.append(isa_name(isa));
  d["arch"] = info.arch;
  d["model_name"] = info.model;
  d["isas"] = found;
  d["selected"] = isa_name(info.selected);
  d["threads"] = Pool::get().size();
  d["cores"] = info.cores;
  d["l1d_bytes"] = info.l1d_bytes;
  d["l2_bytes"] = info.l2_bytes;
  d["l3_bytes"] = info.l3_bytes;
  return d;
}

nb::list list_kernels() {
  nb::list out;
  for (const Kernel& k : kernels()) {
    nb::dict d;
    d["name"] = k.name;
    d["op"] = "spmm";
    d["format"] = kFormats[static_cast<int>(k.format)];
    d["dtype"] = kTypes[static_cast<int>(k.type)];
    d["isa"] = isa_name(k.isa);
    d["doc"] = k.doc;
    d["x_dtype"] = kXTypes[static_cast<int>(k.x)];
    const std::string why = isa_why_not(k.isa);
    if (why.empty()) {
      d["why_not"] = nb::none();
    } else {
      d["why_not"] = why;
    }
    out.append(d);
  }
  return out;
}

}  // namespace

void bind_kernels(nb::module_& m) {
  nb::class_<PyPacked>(m, "Packed")
      .def_prop_ro("nbytes", [](const PyPacked& p) { return p.packed->bytes(); })
      .def_prop_ro("rows", [](const PyPacked& p) { return p.packed->rows; })
      .def_prop_ro("cols", [](const PyPacked& p) { return p.packed->cols; })
      .def_prop_ro("kernel", [](const PyPacked& p) { return std::string(p.packed->kernel->name); });
  m.def("cpu_info", &cpu_info);
  m.def("kernels", &list_kernels);
  m.def("pack", &pack, nb::arg("kernel"), nb::arg("rows"), nb::arg("cols"), nb::arg("kind"), nb::arg("arrays"),
        nb::arg("dtype"), nb::arg("params"));
  m.def("run", &run, nb::arg("packed"), nb::arg("x"), nb::arg("out"), nb::arg("bias").none(), nb::arg("activation"),
        nb::arg("transposed"));
  m.def("set_num_threads", [](int n) { Pool::get().resize(n); });
  m.def("get_num_threads", [] { return Pool::get().size(); });
}

}  // namespace zs
