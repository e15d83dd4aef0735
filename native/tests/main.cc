// zeroskip_tests [--sample N] [NAME...]: runs every test, or those whose name contains one of the words; of their many cases all
// or every N-th. `--isas` lists the instruction sets found here instead. ZEROSKIP_ISA chooses one; one that is asked for and
// not found is a failure, so that a green run is a run of that set.
#include <stdlib.h>
#include <string.h>

#include "../kernels/kernel.h"
#include "../runtime/cpu.h"
#include "check.h"

namespace zs::test {
namespace {

struct Count {
  int64_t passed = 0;
  int64_t failed = 0;
};

Count plain;
Count by_isa[kIsas];
int64_t failures_here = 0;
int64_t sample_every = 1;
int64_t samples_seen = 0;
constexpr int64_t kShown = 10;  // failures printed a test

bool wanted(const char* name, const std::vector<const char*>& words) {
  for (const char* word : words) {
    if (strstr(name, word)) return true;
  }
  return words.empty();
}

}  // namespace

bool sampled() { return samples_seen++ % sample_every == 0; }

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

void record(bool ok, const Isa* isa, const std::string& what) {
  Count& count = isa ? by_isa[static_cast<int>(*isa)] : plain;
  if (ok) {
    ++count.passed;
    return;
  }
  ++count.failed;
  if (++failures_here <= kShown) printf("  FAILED: %s\n", what.c_str());
}

}  // namespace zs::test

int main(int argc, char** argv) {
  using namespace zs;
  using namespace zs::test;
  const CpuInfo& info = cpu();
  if (argc == 2 && strcmp(argv[1], "--isas") == 0) {
    for (Isa isa : info.found) printf("%s\n", isa_name(isa));
    return 0;
  }
  printf("zeroskip_tests on %s, %s; selected %s\n", info.arch.c_str(), info.model.c_str(), isa_name(info.selected));
  if (const char* asked = getenv("ZEROSKIP_ISA")) {
    check(strcmp(asked, isa_name(info.selected)) == 0, std::string("ZEROSKIP_ISA=") + asked + " is not what was selected");
  }
  std::vector<const char*> words;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--sample") == 0 && i + 1 < argc) {
      sample_every = atoll(argv[++i]) > 0 ? atoll(argv[i]) : 1;
    } else {
      words.push_back(argv[i]);
    }
  }
  for (const Test& test : tests()) {
    if (!wanted(test.name, words)) continue;
    failures_here = 0;
    test.body();
    printf("%s %s\n", failures_here ? "FAILED" : "ok    ", test.name);
  }
  Count total = plain;
  for (int i = 0; i < kIsas; ++i) {
    const Isa isa = static_cast<Isa>(i);
    total.passed += by_isa[i].passed;
    total.failed += by_isa[i].failed;
    if (!isa_usable(isa)) {
      printf("isa %-10s: 0 cases, not usable here\n", isa_name(isa));
      continue;
    }
    printf("isa %-10s: %lld cases passed, %lld failed\n", isa_name(isa), static_cast<long long>(by_isa[i].passed),
           static_cast<long long>(by_isa[i].failed));
  }
  printf("%lld passed, %lld failed\n", static_cast<long long>(total.passed), static_cast<long long>(total.failed));
  return total.failed == 0 && total.passed > 0 ? 0 : 1;
}
