#include "hostile.h"

#include "../../runtime/cpu.h"
#include "../runs.h"

namespace zs::fuzz {
namespace {

constexpr int64_t kShare = 8;
constexpr int64_t kLanes[] = {1, 1, 2, 8, 9, 16, 17, 63, 64, 65, 130};

test::Inputs inputs_of(int64_t rows, int64_t cols, Bytes& bytes) {
  test::Inputs in;
  test::Random random(bytes.take<uint16_t>() + 1u);
  in.lanes = kLanes[bytes.below(static_cast<int64_t>(std::size(kLanes)))];
  in.activation = static_cast<Activation>(bytes.below(6));
  in.x.resize(cols * in.lanes);
  for (float& v : in.x) v = random.symmetric();
  const uint8_t extras = bytes.take<uint8_t>();
  if (extras & 1) in.bias.assign(rows, 0.5f);
  if (extras & 2) in.residual.assign(rows * in.lanes, -0.5f);
  const float odd[] = {NAN, INFINITY, -INFINITY, 3.4e38f, 1e-45f};
  if (extras & 4 && !in.x.empty()) {
    in.x[random.below(static_cast<int64_t>(in.x.size()))] = odd[extras >> 3 & 3];
    in.x[random.below(static_cast<int64_t>(in.x.size()))] = odd[4 - (extras >> 5 & 3)];
  }
  return in;
}

}  // namespace

template <class T, class U> void Arrays::lay(const std::vector<T>& from, GivenArray<U>& to, int64_t elements) {
  if (missing >> at_++ & 1) return;
  const char* begin = reinterpret_cast<const char*>(from.data());
  blocks_.emplace_back(begin, begin + from.size() * sizeof(T));
  to.data = reinterpret_cast<const U*>(blocks_.back().data());
  to.size = elements;
}

void Arrays::give(Given& given) {
  const auto count = [](const auto& array) { return static_cast<int64_t>(array.size()); };
  at_ = 0;
  lay(data, given.data, count(data) / value_bytes(given.type));
  lay(indptr, given.indptr, count(indptr));
  lay(indices, given.indices, count(indices));
  lay(order, given.order, count(order));
  lay(positions, given.positions, count(positions));
  lay(bits, given.bits, count(bits));
  lay(columns, given.columns, count(columns));
  lay(scales, given.scales, count(scales));
  if (!zeros.empty()) lay(zeros, given.zeros, count(zeros));  // symmetric codes have none
}

void try_all(const Given& given, Bytes& bytes) {
  Source source;
  if (check_given(given, source) != nullptr) return;
  if (source.rows > 4096 || source.cols > 4096) return;  // empty of entries, and its outputs would fill the memory
  const test::Inputs in = inputs_of(source.rows, source.cols, bytes);
  test::Held held;
  held.source = source;
  const auto layout = static_cast<test::Layout>(in.lanes > 1 ? bytes.take<uint8_t>() % 4 : 0);
  if (Pool::get().size() != 1) Pool::get().resize(1);  // the same run for the same bytes
  // A few kernels a run: the bytes that choose them are tried many times.
  const int64_t chosen = bytes.below(kShare);
  int64_t place = 0;
  for (const Kernel& kernel : kernels()) {
    if (!isa_usable(kernel.isa) || place++ % kShare != chosen) continue;
    const auto packed = test::packed_by(kernel, held);
    if (!packed) continue;
    if (packed->bytes() < 0) abort();
    const bool padded_only = layout > test::Layout::padded && !kernel.run.any_layout();
    test::run(*packed, in, padded_only ? test::Layout::padded : layout);
  }
}

}  // namespace zs::fuzz
