// SDDMM and masked softmax: patterns and operands as views of the caller's arrays, which are neither copied nor made contiguous.
#include "../kernels/sddmm/sddmm.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../kernels/masked_softmax/masked_softmax.h"
#include "../kernels/sddmm/sddmm_tiles.h"
#include "../runtime/cpu.h"
#include "bindings.h"

namespace nb = nanobind;

namespace zs {
namespace {

template <class T> using Array = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
using FloatOut = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Operand = nb::ndarray<nb::ro, nb::device::cpu>;

#if defined(__aarch64__)
constexpr Isa kLoops[] = {Isa::scalar, Isa::neon};
#elif defined(__x86_64__)
constexpr Isa kLoops[] = {Isa::scalar, Isa::avx2, Isa::avx512};
#else
constexpr Isa kLoops[] = {Isa::scalar};
#endif

void require(bool ok, const char* message) {
  if (!ok) throw std::invalid_argument(message);
}

Isa isa_called(const std::string& name) {
  for (Isa isa : kLoops) {
    if (name == isa_name(isa)) {
      require(isa_usable(isa), "pattern: this instruction set is not usable here");
      return isa;
    }
  }
  throw std::invalid_argument("pattern: instruction set '" + name + "' is not known");
}

template <class T> bool view(nb::dict arrays, const char* key, const T*& data, int64_t& size) {
  Array<T> array;
  if (!arrays.contains(key) || !nb::try_cast(arrays[key], array, false)) return false;
  data = array.data();
  size = static_cast<int64_t>(array.size());
  return true;
}

template <class T> bool view_indices(nb::dict arrays, IndexType type, Pattern& p, int64_t& size) {
  const T* found = nullptr;
  if (!view(arrays, "indices", found, size)) return false;
  p.indices = found;
  p.index = type;
  return true;
}

// A pattern of Python and its arrays, which it keeps alive. Made once and used by calls of any thread: what is found out about the
// pattern is found under a lock, and not changed again.
class PatternView {
 public:
  PatternView(const std::string& kind, int64_t rows, int64_t cols, int64_t entries, nb::dict arrays, int64_t r, int64_t c)
      : arrays_(arrays.attr("copy")()) {
    Pattern& p = pattern_;
    p.rows = rows;
    p.cols = cols;
    p.entries = entries;
    p.r = r;
    p.c = c;
    require(rows > 0 && cols > 0 && entries >= 0 && r > 0 && c > 0 && rows % r == 0 && cols % c == 0, "pattern: bad sizes");
    int64_t size = 0;
    if (kind == "bitmask") {
      p.format = Format::bitmask;
      require(view(arrays, "bits", p.bits, size) && size == rows * p.row_bytes(), "pattern: bits do not fit the shape");
      return;
    }
    require(kind == "csr" || kind == "bsr", "pattern: format is not known");
    p.format = kind == "csr" ? Format::csr : Format::bsr;
    require(p.format == Format::bsr || r * c == 1, "pattern: CSR has no blocks");
    require(view(arrays, "indptr", p.indptr, size) && size == p.block_rows() + 1, "pattern: indptr does not fit the shape");
    const bool found = view_indices<int32_t>(arrays, IndexType::i32, p, size) ||
                       (p.format == Format::csr && (view_indices<uint16_t>(arrays, IndexType::u16, p, size) ||
                                                    view_indices<int64_t>(arrays, IndexType::i64, p, size)));
    require(found && entries % (r * c) == 0 && size == entries / (r * c), "pattern: indices do not fit the entries");
  }

  // That columns are in range was checked when the matrix was made. That offsets end where the arrays do is looked at in each call,
  // which then reads no further, whatever became of those between.
  const Pattern& get() const {
    const Pattern& p = pattern_;
    require(!p.indptr || (p.indptr[0] == 0 && p.indptr[p.block_rows()] == p.entries / (p.r * p.c)),
            "pattern: indptr does not fit the entries");
    return p;
  }

  // For a call of so many batches. They are made at the second call, or where one has enough to pay for them: a pattern that is used
  // once costs nothing. The caller holds no lock of Python's, which a call that waits here would keep from the one that makes them.
  const SddmmTiles* tiles(int64_t batches) {
    constexpr int64_t kAtOnce = 4;
    const std::lock_guard<std::mutex> guard(mutex_);
    const bool once = calls_++ == 0 && batches < kAtOnce;
    return once ? nullptr : find();
  }

  void prepare() {
    const nb::gil_scoped_release release;
    const std::lock_guard<std::mutex> guard(mutex_);
    find();
  }

  int64_t prepared_bytes() {
    const nb::gil_scoped_release release;
    const std::lock_guard<std::mutex> guard(mutex_);
    return tiles_ ? tiles_->nbytes() : 0;
  }

 private:
  const SddmmTiles* find() {
    if (!looked_) tiles_ = find_tiles(pattern_, Pool::get());
    looked_ = true;
    return tiles_.get();
  }

  nb::object arrays_;
  Pattern pattern_;
  std::mutex mutex_;
  int64_t calls_ = 0;
  bool looked_ = false;
  std::unique_ptr<const SddmmTiles> tiles_;
};

// Where each matrix of [..., rows, depth] begins, in elements.
std::vector<int64_t> starts(const Operand& x) {
  std::vector<int64_t> found{0};
  for (size_t d = 0; d + 2 < x.ndim(); ++d) {
    std::vector<int64_t> next;
    next.reserve(found.size() * x.shape(d));
    for (int64_t at : found) {
      for (size_t i = 0; i < x.shape(d); ++i) next.push_back(at + static_cast<int64_t>(i) * x.stride(d));
    }
    found.swap(next);
  }
  return found;
}

void check_operand(const Operand& x, int64_t rows, ValueType type) {
  require(x.dtype() == (type == ValueType::f32 ? nb::dtype<float>() : nb::dtype<uint16_t>()), "sddmm: operand of another type");
  require(x.ndim() >= 2 && static_cast<int64_t>(x.shape(x.ndim() - 2)) == rows, "sddmm: operand of another shape");
  require(x.shape(x.ndim() - 1) <= 1 || x.stride(x.ndim() - 1) == 1, "sddmm: rows of the operands must be contiguous");
}

void sddmm(const std::string& isa, PatternView& pattern, const std::string& dtype, Operand a, Operand b, FloatOut out,
           std::optional<Array<float>> values, float alpha) {
  const Isa loops = isa_called(isa);
  SddmmArgs args;
  args.pattern = pattern.get();
  const int64_t entries = args.pattern.entries;
  require(dtype == "float32" || dtype == "bfloat16", "sddmm: dtype is not known");
  args.type = dtype == "float32" ? ValueType::f32 : ValueType::bf16;
  check_operand(a, args.pattern.rows, args.type);
  check_operand(b, args.pattern.cols, args.type);
  const std::vector<int64_t> a_at = starts(a), b_at = starts(b);
  args.depth = static_cast<int64_t>(a.shape(a.ndim() - 1));
  args.batches = static_cast<int64_t>(a_at.size());
  require(a_at.size() == b_at.size() && static_cast<int64_t>(b.shape(b.ndim() - 1)) == args.depth &&
              static_cast<int64_t>(out.size()) == args.batches * entries &&
              (!values || static_cast<int64_t>(values->size()) == entries),
          "sddmm: shapes do not fit each other");
  args.a = a.data();
  args.a_at = a_at.data();
  args.lda = a.stride(a.ndim() - 2);
  args.b = b.data();
  args.b_at = b_at.data();
  args.ldb = b.stride(b.ndim() - 2);
  args.alpha = alpha;
  args.values = values ? values->data() : nullptr;
  args.out = out.data();
  bool done;
  {
    nb::gil_scoped_release release;
    args.tiles = pattern.tiles(args.batches);
    done = run_sddmm(loops, args, Pool::get());
  }
  require(done, "sddmm: bits do not fit the entries");
}

void masked_softmax(const std::string& isa, const PatternView& pattern, Array<float> scores, FloatOut out,
                    std::optional<Array<float>> bias, float scale) {
  const Isa loops = isa_called(isa);
  SoftmaxArgs args;
  args.pattern = pattern.get();
  const int64_t entries = args.pattern.entries;
  const int64_t size = static_cast<int64_t>(scores.size());
  require(static_cast<int64_t>(out.size()) == size && (entries ? size % entries : size) == 0,
          "masked_softmax: sizes do not fit");
  args.batches = entries ? size / entries : 0;
  if (bias) {
    const int64_t given = static_cast<int64_t>(bias->size());
    require(given == entries || given == size, "masked_softmax: bias does not fit the entries");
    args.bias = bias->data();
    args.bias_stride = given == size ? entries : 0;
  }
  args.scores = scores.data();
  args.scale = scale;
  args.out = out.data();
  bool done;
  {
    nb::gil_scoped_release release;
    done = run_masked_softmax(loops, args, Pool::get());
  }
  require(done, "masked_softmax: bits do not fit the entries");
}

// [(instruction set, why it cannot run here or None)] of the loops of both.
nb::list pattern_isas() {
  nb::list found;
  for (Isa isa : kLoops) {
    const std::string why = isa_why_not(isa);
    found.append(nb::make_tuple(isa_name(isa), why.empty() ? nb::object(nb::none()) : nb::object(nb::str(why.c_str()))));
  }
  return found;
}

}  // namespace

void bind_sddmm(nb::module_& m) {
  m.def("pattern_isas", &pattern_isas);
  nb::class_<PatternView>(m, "PatternView")
      .def(nb::init<const std::string&, int64_t, int64_t, int64_t, nb::dict, int64_t, int64_t>(), nb::arg("kind"),
           nb::arg("rows"), nb::arg("cols"), nb::arg("entries"), nb::arg("arrays"), nb::arg("r"), nb::arg("c"))
      .def("prepare", &PatternView::prepare)
      .def_prop_ro("prepared_bytes", &PatternView::prepared_bytes);
  m.def("sddmm", &sddmm, nb::arg("isa"), nb::arg("pattern"), nb::arg("dtype"), nb::arg("a"), nb::arg("b"), nb::arg("out"),
        nb::arg("values").none(), nb::arg("alpha"));
  m.def("masked_softmax", &masked_softmax, nb::arg("isa"), nb::arg("pattern"), nb::arg("scores"), nb::arg("out"),
        nb::arg("bias").none(), nb::arg("scale"));
}

}  // namespace zs
