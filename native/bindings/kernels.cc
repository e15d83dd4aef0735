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
#include <vector>

#include "../runtime/cpu.h"
#include "../runtime/numeric.h"
#include "bindings.h"

namespace nb = nanobind;

namespace zs {
namespace {

template <class T> using Array = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
using FloatOut = nb::ndarray<float, nb::c_contig, nb::device::cpu>;

constexpr const char* kFormats[] = {"csr", "bitmask", "dense", "bsr", "nm", "ell", "sell", "vnm", "csc", "dia"};
constexpr const char* kTypes[] = {"float32", "bfloat16", "float16", "int8", "int4"};
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

template <class T> const T* array_of(nb::dict arrays, const char* key, int64_t size) {
  require(arrays.contains(key), "pack: an array of this format is missing");
  auto array = nb::cast<Array<T>>(arrays[key]);
  require(static_cast<int64_t>(array.size()) >= size, "pack: an array is shorter than the shape says");
  return array.data();
}

const void* data_of(nb::dict arrays, ValueType type, int64_t size) {
  if (type == ValueType::f32) return array_of<float>(arrays, "data", size);
  if (is_code(type)) return array_of<int8_t>(arrays, "data", size);
  return array_of<uint16_t>(arrays, "data", size);
}

// Out-of-range indices would write outside a buffer; Python validated already, and this costs one pass.
void check_indices(const int64_t* indptr, const int32_t* indices, int64_t rows, int64_t cols) {
  require(indptr[0] == 0, "pack: indptr[0] is not 0");
  for (int64_t r = 0; r < rows; ++r) {
    require(indptr[r] <= indptr[r + 1], "pack: indptr decreases");
    for (int64_t i = indptr[r]; i < indptr[r + 1]; ++i) {
      require(indices[i] >= 0 && indices[i] < cols, "pack: a column index is out of range");
      require(i == indptr[r] || indices[i - 1] < indices[i], "pack: column indices of a row are not ascending");
    }
  }
}

// Rows of slots as ell and sell have them: `step` apart, columns ascending, then padding.
void check_slots(const int32_t* indices, int64_t count, int64_t step, int64_t cols) {
  for (int64_t i = 0; i < count; ++i) {
    const int32_t now = indices[i * step], before = i ? indices[(i - 1) * step] : -1;
    require(now >= -1 && now < cols, "pack: a column index is out of range");
    require(now == -1 || i == 0 || (before != -1 && before < now), "pack: column indices of a row are not ascending");
  }
}

void read_sell(Source& s, nb::dict arrays, nb::dict params) {
  s.r = nb::cast<int64_t>(params["c"]);
  require(s.r > 0, "pack: a slice has no rows");
  const int64_t slices = s.rows / s.r + (s.rows % s.r != 0);
  s.indptr = array_of<int64_t>(arrays, "indptr", slices + 1);
  require(s.indptr[0] == 0 && s.indptr[slices] >= 0, "pack: indptr[0] is not 0, or indptr is negative");
  s.indices = array_of<int32_t>(arrays, "indices", s.indptr[slices]);
  for (int64_t i = 0; i < slices; ++i) {
    const int64_t height = std::min(s.r, s.rows - i * s.r), size = s.indptr[i + 1] - s.indptr[i];
    require(size >= 0 && s.indptr[i + 1] <= s.indptr[slices], "pack: indptr decreases");
    require(size % height == 0, "pack: the rows of a slice are not of equal width");
    for (int64_t r = 0; r < height; ++r) check_slots(s.indices + s.indptr[i] + r, size / height, height, s.cols);
  }
  s.order = array_of<int32_t>(arrays, "rows", s.rows);
  std::vector<bool> seen(static_cast<size_t>(s.rows));
  for (int64_t i = 0; i < s.rows; ++i) {
    require(s.order[i] >= 0 && s.order[i] < s.rows && !seen[s.order[i]], "pack: rows is no permutation");
    seen[s.order[i]] = true;
  }
  s.data = data_of(arrays, s.type, s.indptr[slices]);
}

void read_vnm(Source& s, nb::dict arrays, nb::dict params) {
  s.v = nb::cast<int64_t>(params["v"]);
  s.r = nb::cast<int64_t>(params["n"]);
  s.c = nb::cast<int64_t>(params["m"]);
  require(s.r > 0 && s.r <= 4 && s.c >= 4 && s.c <= 256 && s.cols % s.c == 0, "pack: n:m does not divide the columns");
  require(s.v > 0 && s.rows % s.v == 0, "pack: v does not divide the rows");
  const int64_t kept = s.rows / s.v * (s.cols / s.c) * 4, count = s.rows * (s.cols / s.c) * s.r;
  s.four = array_of<uint8_t>(arrays, "columns", kept);
  s.bits = array_of<uint8_t>(arrays, "indices", count);
  for (int64_t i = 0; i < kept; ++i) {
    require(s.four[i] < s.c && (i % 4 == 0 || s.four[i - 1] < s.four[i]), "pack: kept columns are outside, or not ascending");
  }
  for (int64_t i = 0; i < count; ++i) {
    require(s.bits[i] < 4 && (i % s.r == 0 || s.bits[i - 1] < s.bits[i]), "pack: positions are outside, or not ascending");
  }
  s.data = data_of(arrays, s.type, count);
}

void read_scales(Source& s, nb::dict arrays, nb::dict params) {
  s.scale_group = nb::cast<int64_t>(params["group"]);
  require(s.scale_group == 0 || (s.scale_group > 0 && s.scale_group % 32 == 0), "pack: a scale covers 32, 64, ... columns");
  const int64_t count = s.rows * (s.scale_group ? (s.cols + s.scale_group - 1) / s.scale_group : 1);
  s.scales = array_of<uint16_t>(arrays, "scales", count);
  if (arrays.contains("zeros")) s.zeros = array_of<int8_t>(arrays, "zeros", count);
}

Source read_source(int64_t rows, int64_t cols, const std::string& kind, nb::dict arrays, const std::string& dtype,
                   nb::dict params) {
  Source s{};
  s.format = static_cast<Format>(index_of(kFormats, kind, "pack: format"));
  s.type = static_cast<ValueType>(index_of(kTypes, dtype, "pack: dtype"));
  s.rows = rows;
  s.cols = cols;
  require(rows >= 0 && cols >= 0 && cols < INT32_MAX && rows < INT32_MAX, "pack: shape is negative or too large");
  if (is_code(s.type)) read_scales(s, arrays, params);
  switch (s.format) {
    case Format::dense: s.data = data_of(arrays, s.type, rows * cols); break;
    case Format::csr:
      s.indptr = array_of<int64_t>(arrays, "indptr", rows + 1);
      require(s.indptr[rows] >= 0, "pack: indptr is negative");
      s.indices = array_of<int32_t>(arrays, "indices", s.indptr[rows]);
      check_indices(s.indptr, s.indices, rows, cols);
      s.data = data_of(arrays, s.type, s.indptr[rows]);
      break;
    case Format::bitmask: {
      const int64_t bytes = (cols + 7) / 8;
      s.bits = array_of<uint8_t>(arrays, "bits", rows * bytes);
      if (cols % 8) {
        for (int64_t r = 0; r < rows; ++r) {
          require((s.bits[(r + 1) * bytes - 1] >> (cols % 8)) == 0, "pack: bits are set beyond the last column");
        }
      }
      s.data = data_of(arrays, s.type, count_bits(s.bits, rows * bytes));
      break;
    }
    case Format::bsr:
      s.r = nb::cast<int64_t>(params["r"]);
      s.c = nb::cast<int64_t>(params["c"]);
      require(s.r > 0 && s.c > 0 && rows % s.r == 0 && cols % s.c == 0, "pack: the block does not divide the shape");
      s.indptr = array_of<int64_t>(arrays, "indptr", rows / s.r + 1);
      require(s.indptr[rows / s.r] >= 0, "pack: indptr is negative");
      s.indices = array_of<int32_t>(arrays, "indices", s.indptr[rows / s.r]);
      check_indices(s.indptr, s.indices, rows / s.r, cols / s.c);
      s.data = data_of(arrays, s.type, s.indptr[rows / s.r] * s.r * s.c);
      break;
    case Format::nm: {
      s.r = nb::cast<int64_t>(params["n"]);
      s.c = nb::cast<int64_t>(params["m"]);
      require(s.r > 0 && s.c >= s.r && s.c <= 256 && cols % s.c == 0, "pack: n:m does not divide the columns");
      const int64_t count = rows * (cols / s.c) * s.r;
      s.bits = array_of<uint8_t>(arrays, "indices", count);
      for (int64_t i = 0; i < count; ++i) require(s.bits[i] < s.c, "pack: a position is outside its group");
      s.data = data_of(arrays, s.type, count);
      break;
    }
    case Format::ell:
      s.r = nb::cast<int64_t>(params["width"]);
      require(s.r >= 0 && s.r < INT32_MAX, "pack: the width is negative or too large");
      s.indices = array_of<int32_t>(arrays, "indices", rows * s.r);
      for (int64_t r = 0; r < rows; ++r) check_slots(s.indices + r * s.r, s.r, 1, cols);
      s.data = data_of(arrays, s.type, rows * s.r);
      break;
    case Format::sell: read_sell(s, arrays, params); break;
    case Format::vnm: read_vnm(s, arrays, params); break;
    case Format::csc:
    case Format::dia: require(false, "pack: csc and dia are handed over as csr");
  }
  return s;
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
    d["integer"] = k.integer;
    if (isa_usable(k.isa)) {
      d["why_not"] = nb::none();
    } else {
      d["why_not"] = std::string("needs ") + isa_name(k.isa) + ", which this processor or ZEROSKIP_ISA rules out";
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
