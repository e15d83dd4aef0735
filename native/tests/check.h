// What the tests are written with: registration, checks that count, and a small random generator. No framework, so that the
// same binary builds for another architecture and runs under emulation.
#pragma once

#include <stdint.h>
#include <stdio.h>

#include <string>
#include <vector>

#include "zeroskip/types.h"

namespace zs::test {

struct Test {
  const char* name;
  void (*body)();
};

std::vector<Test>& tests();

struct Registration {
  Registration(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

// Counts one case, of an instruction set or of none, and prints the first failures of each test.
void record(bool ok, const Isa* isa, const std::string& what);

// False for the cases that `--sample N` leaves out: all but every N-th. Emulation is twenty times slower than the processor.
bool sampled();

static inline void check(bool ok, const std::string& what) { record(ok, nullptr, what); }
static inline void check(bool ok, Isa isa, const std::string& what) { record(ok, &isa, what); }

// xorshift64*: the same numbers on every platform.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2685821657736338717ull + 1442695040888963407ull) {}
  uint64_t bits() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 2685821657736338717ull;
  }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  float symmetric() { return static_cast<float>(2 * uniform() - 1); }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }

 private:
  uint64_t state_;
};

// `count` floats at `offset` floats past a 64-byte boundary, exactly as long as asked: a sanitizer sees the first one beyond.
class Floats {
 public:
  explicit Floats(int64_t count, float fill, int64_t offset = 0);
  ~Floats();
  Floats(const Floats&) = delete;
  Floats& operator=(const Floats&) = delete;
  float* data() { return data_; }
  float& operator[](int64_t i) { return data_[i]; }
  int64_t size() const { return size_; }

 private:
  void* block_;
  float* data_;
  int64_t size_;
};

}  // namespace zs::test

#define ZS_TEST(name)                                                                   \
  static void zs_test_##name();                                                         \
  static const ::zs::test::Registration zs_registration_##name(#name, &zs_test_##name); \
  static void zs_test_##name()
