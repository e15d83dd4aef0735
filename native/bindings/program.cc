// _native.Program and _native.Cache: reads the steps, keeps alive what they point to, releases the GIL, runs.
#include "../executor/program.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <new>
#include <stdexcept>

#include "bindings.h"

namespace nb = nanobind;

namespace zs {
namespace {

template <class T> using Array = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;

constexpr const char* kOps[] = {"embed",     "layernorm", "rmsnorm", "linear",     "rope",
                                "attention", "glu",       "add",     "activation", "pool"};
constexpr const char* kActivations[] = {"none", "relu", "gelu", "gelu_tanh", "silu", "tanh"};
constexpr const char* kModes[] = {"mean", "max", "first", "last"};
constexpr const char* kInputs[] = {"ids", "positions", "types"};
constexpr const char* kTypes[] = {"float32", "bfloat16", "float16"};

void require(bool ok, const std::string& message) {
  if (!ok) throw std::invalid_argument(message);
}

template <size_t N> int index_of(const char* const (&names)[N], const std::string& name) {
  for (size_t i = 0; i < N; ++i) {
    if (name == names[i]) return static_cast<int>(i);
  }
  throw std::invalid_argument("program: '" + name + "' is not known");
}

template <class T> T field(const nb::dict& step, const char* key, T missing) {
  return step.contains(key) ? nb::cast<T>(step[key]) : missing;
}

struct PyProgram {
  Program program;
  std::vector<nb::object> kept;  // the arrays that steps point into
};

struct PyCache {
  std::unique_ptr<Cache> cache;
};

// An array of the step with at least `size` entries, or null where it is absent.
const float* floats(PyProgram& p, const nb::dict& step, const char* key, int64_t size) {
  if (!step.contains(key)) return nullptr;
  const auto array = nb::cast<Array<float>>(step[key]);
  require(static_cast<int64_t>(array.size()) == size, std::string("program: ") + key + " has the wrong number of entries");
  p.kept.push_back(step[key]);
  return array.data();
}

void read_table(PyProgram& p, const nb::dict& step, Step& s, int64_t features) {
  require(step.contains("table"), "program: embed has no table");
  s.table_type = static_cast<ValueType>(index_of(kTypes, field<std::string>(step, "dtype", "float32")));
  const auto take = [&](auto array) {
    const bool fits = array.ndim() == 2 && static_cast<int64_t>(array.shape(1)) == features;
    require(fits, "program: the table does not fit its buffer");
    s.table = array.data();
    s.entries = static_cast<int64_t>(array.shape(0));
  };
  if (s.table_type == ValueType::f32) {
    take(nb::cast<Array<float>>(step["table"]));
  } else {
    take(nb::cast<Array<uint16_t>>(step["table"]));
  }
  p.kept.push_back(step["table"]);
}

void read_tensors(PyProgram& p, const nb::dict& step, Step& s) {
  const std::vector<Slice>& slices = p.program.slices;
  const auto features = [&](int slice) {
    require(slice >= 0 && slice < static_cast<int>(slices.size()), "program: a step lacks one of its buffers");
    return slices[slice].features;
  };
  if (s.op == Op::embed) read_table(p, step, s, features(s.out));
  if (s.op == Op::layernorm || s.op == Op::rmsnorm) {
    require(s.groups > 0, "program: groups is not positive");
    s.weight = floats(p, step, "weight", features(s.in) / s.groups);
    s.bias = floats(p, step, "bias", features(s.in) / s.groups);
  }
  if (s.op == Op::linear) {
    s.bias = floats(p, step, "bias", features(s.out));
    for (nb::handle h : nb::cast<nb::sequence>(step["variants"])) {
      const auto pair = nb::cast<nb::tuple>(h);
      s.variants.push_back({nb::cast<int64_t>(pair[0]), nb::cast<PyPacked&>(pair[1]).packed});
    }
  }
  if (s.op == Op::rope) {
    require(step.contains("freqs"), "program: rope has no frequencies");
    s.half = static_cast<int64_t>(nb::cast<Array<float>>(step["freqs"]).size());
    s.freqs = floats(p, step, "freqs", s.half);
  }
  if (s.op == Op::attention && step.contains("bias")) {
    const bool small = s.heads > 0 && s.heads < INT32_MAX && s.reach > 0 && s.reach < INT32_MAX;
    require(small, "program: heads or reach is out of range");
    s.bias = floats(p, step, "bias", s.heads * (2 * s.reach - 1));
  }
}

Step read_step(PyProgram& p, const nb::dict& step) {
  Step s{};
  s.op = static_cast<Op>(index_of(kOps, nb::cast<std::string>(step["op"])));
  s.in = field(step, "in", -1);
  s.in2 = field(step, "in2", -1);
  s.in3 = field(step, "in3", -1);
  s.out = field(step, "out", -1);
  s.residual = field(step, "residual", -1);
  s.offset = field<int64_t>(step, "offset", 0);
  s.input = static_cast<Input>(index_of(kInputs, field<std::string>(step, "input", "ids")));
  s.accumulate = field(step, "add", false);
  s.eps = field(step, "eps", 0.0f);
  s.scale = field(step, "scale", 1.0f);
  s.groups = field<int64_t>(step, "groups", 1);
  s.heads = field<int64_t>(step, "heads", 0);
  s.kv_heads = field<int64_t>(step, "kv_heads", s.heads);
  s.head_dim = field<int64_t>(step, "head_dim", 0);
  s.reach = field<int64_t>(step, "reach", 0);
  s.causal = field(step, "causal", false);
  s.cache = field<int64_t>(step, "cache", -1);
  s.activation = static_cast<Activation>(index_of(kActivations, field<std::string>(step, "activation", "none")));
  s.mode = static_cast<PoolMode>(index_of(kModes, field<std::string>(step, "mode", "mean")));
  s.normalize = field(step, "normalize", false);
  read_tensors(p, step, s);
  return s;
}

// buffers: features; views: (buffer, first, features); steps: dicts whose buffers are indices of views.
void init(PyProgram* self, const std::vector<int64_t>& buffers, nb::sequence views, nb::sequence steps, int64_t max_positions) {
  new (self) PyProgram;
  Program& program = self->program;
  program.buffers = buffers;
  program.max_positions = max_positions;
  for (nb::handle h : views) {
    const auto view = nb::cast<nb::tuple>(h);
    program.slices.push_back({nb::cast<int>(view[0]), nb::cast<int64_t>(view[1]), nb::cast<int64_t>(view[2])});
  }
  for (nb::handle h : steps) program.steps.push_back(read_step(*self, nb::cast<nb::dict>(h)));
  const std::string wrong = program.check();
  require(wrong.empty(), "program: " + wrong);
}

std::vector<Cache*> read_caches(const nb::object& objects) {
  std::vector<Cache*> caches;
  if (objects.is_none()) return caches;
  for (nb::handle h : nb::cast<nb::sequence>(objects)) {
    require(nb::isinstance<PyCache>(h), "run: cache: made by something else than new_cache");
    caches.push_back(nb::cast<PyCache&>(h).cache.get());
    for (size_t i = 0; i + 1 < caches.size(); ++i) {
      require(caches[i] != caches.back(), "run: cache: the same for two sequences");
    }
  }
  return caches;
}

// Holds the caches of a run, and gives them back however it ends.
class Hold {
 public:
  explicit Hold(const std::vector<Cache*>& caches) : caches_(caches) {
    for (; held_ < caches_.size(); ++held_) {
      if (!caches_[held_]->busy.exchange(true)) continue;
      release();
      throw std::invalid_argument("run: cache: another run is using it");
    }
  }
  ~Hold() { release(); }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  void release() {
    while (held_) caches_[--held_]->busy.store(false);
  }
  const std::vector<Cache*>& caches_;
  size_t held_ = 0;
};

nb::ndarray<nb::numpy, float, nb::ndim<2>> new_array(int64_t rows, int64_t cols) {
  float* data = new float[rows * cols];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return nb::ndarray<nb::numpy, float, nb::ndim<2>>(data, {static_cast<size_t>(rows), static_cast<size_t>(cols)}, owner);
}

nb::list run(PyProgram& self, Array<int32_t> ids, Array<int64_t> offsets, nb::object types, nb::object caches,
             const std::vector<int>& outputs, nb::object seconds, bool fill_nan) {
  Program& program = self.program;
  Batch batch;
  require(ids.ndim() == 1 && offsets.ndim() == 1 && offsets.size() >= 1, "run: ids and offsets must have one dimension");
  batch.ids = ids.data();
  batch.tokens = static_cast<int64_t>(ids.size());
  batch.offsets = offsets.data();
  batch.sequences = static_cast<int64_t>(offsets.size()) - 1;
  if (!types.is_none()) {
    const auto array = nb::cast<Array<int32_t>>(types);
    require(array.size() == ids.size(), "run: types does not have one entry a token");
    batch.types = array.data();
  }
  batch.caches = read_caches(caches);
  const Hold hold(batch.caches);
  const std::string wrong = program.check(batch);
  require(wrong.empty(), "run: " + wrong);
  nb::list arrays;
  std::vector<float*> places;
  for (int b : outputs) {
    require(b >= 0 && b < static_cast<int>(program.buffers.size()), "run: an output is no buffer");
    auto array = new_array(program.output_per_sequence(b) ? batch.sequences : batch.tokens, program.buffers[b]);
    places.push_back(array.data());
    arrays.append(array);
  }
  double* step_seconds = nullptr;
  if (!seconds.is_none()) {
    auto array = nb::cast<nb::ndarray<double, nb::c_contig, nb::device::cpu>>(seconds);
    require(array.size() == program.steps.size(), "run: seconds does not have one entry a step");
    step_seconds = array.data();
  }
  bool ok;
  {
    nb::gil_scoped_release release;
    ok = program.run(batch, outputs, places, step_seconds, fill_nan);
  }
  if (!ok) throw std::bad_alloc();
  return arrays;
}

}  // namespace

void bind_program(nb::module_& m) {
  nb::class_<PyCache>(m, "Cache")
      .def_prop_ro("length", [](const PyCache& c) { return c.cache->length; })
      .def_prop_ro("max_tokens", [](const PyCache& c) { return c.cache->limit; })
      .def_prop_ro("nbytes", [](const PyCache& c) { return c.cache->bytes(); })
      .def("truncate", [](PyCache& c, int64_t length) {
        require(!c.cache->busy.load(), "truncate: a run is using this cache");
        require(length >= 0 && length <= c.cache->length, "truncate: length is outside [0, tokens held]");
        c.cache->length = length;
      });
  nb::class_<PyProgram>(m, "Program")
      .def("__init__", &init, nb::arg("buffers"), nb::arg("views"), nb::arg("steps"), nb::arg("max_positions"))
      .def("run", &run, nb::arg("ids"), nb::arg("offsets"), nb::arg("types").none(), nb::arg("caches").none(),
           nb::arg("outputs"), nb::arg("seconds").none(), nb::arg("fill_nan"))
      .def("new_cache", [](const PyProgram& p, int64_t max_tokens) {
        const auto layers = p.program.cache_layers();
        require(!layers.empty(), "new_cache: this model keeps no cache");
        require(max_tokens > 0 && max_tokens < INT32_MAX, "new_cache: max_tokens is not positive, or too large");
        return PyCache{std::make_unique<Cache>(layers, max_tokens)};
      });
}

}  // namespace zs
