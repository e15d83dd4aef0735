#include "cpu.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <errno.h>
#include <sys/syscall.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include <algorithm>
#include <fstream>

namespace zs {
namespace {

std::string model_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

int usable_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  const long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? static_cast<int>(n) : 1;
}

int64_t cache_bytes(int name, int64_t fallback) {
  const long size = sysconf(name);
  return size > 0 ? size : fallback;
}

#if defined(__x86_64__)
struct Leaf7 {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;

  explicit Leaf7(unsigned subleaf) { __get_cpuid_count(7, subleaf, &eax, &ebx, &ecx, &edx); }
};

// Read by hand: compilers name these features since different versions, or not at all.
[[maybe_unused]] bool has_avxvnni() { return Leaf7(0).eax >= 1 && (Leaf7(1).eax >> 4 & 1); }

// AMX-TILE and AMX-BF16, and an operating system that saves the tiles (XCR0: 17 their shapes, 18 their contents).
[[maybe_unused]] bool has_amx() {
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kOsXsave = 1u << 27, kSaved = 3u << 17;
  unsigned a, b, c = 0, d;
  if ((Leaf7(0).edx & (kBf16 | kTile)) != (kBf16 | kTile)) return false;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kOsXsave)) return false;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kSaved) == kSaved;
}

// Linux gives the eight kilobytes of tiles to those who ask, for the whole process and for the threads it will have.
// Refused where a thread's alternative signal stack could not hold them. Empty where it was granted.
[[maybe_unused]] std::string ask_for_tiles() {
#if defined(__linux__)
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  if (syscall(SYS_arch_prctl, kRequest, kTileData) == 0) return "";
  return std::string("arch_prctl: ") + strerror(errno);
#else
  return "how to ask for it is known for Linux only";
#endif
}

// Asked of the processor itself: clang before 19 does not know the name. Whether the system saves the registers, AVX2 says.
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

CpuInfo detect() {
  CpuInfo info;
  info.found.push_back(Isa::scalar);
#if defined(__x86_64__)
  info.arch = "x86_64";
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c() && __builtin_cpu_supports("bmi") &&
      __builtin_cpu_supports("bmi2")) {
    info.found.push_back(Isa::avx2);
#if defined(ZS_HAVE_AVXVNNI)
    if (has_avxvnni()) info.found.push_back(Isa::avxvnni);
#endif
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq")) {
      info.found.push_back(Isa::avx512);
      if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi2")) {
        info.found.push_back(Isa::avx512vnni);
#if defined(ZS_HAVE_AMX)
        if (has_amx()) {
          info.amx_denied = ask_for_tiles();
          if (info.amx_denied.empty()) info.found.push_back(Isa::amx);
        }
#endif
      }
    }
  }
#elif defined(__aarch64__)
  info.arch = "aarch64";
  info.found.push_back(Isa::neon);
#if defined(__linux__)
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) info.found.push_back(Isa::neondot);
#endif
#else
  info.arch = "other";
#endif
  info.model = model_name();
  info.cores = usable_cores();
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  info.l1d_bytes = cache_bytes(_SC_LEVEL1_DCACHE_SIZE, info.l1d_bytes);
  info.l2_bytes = cache_bytes(_SC_LEVEL2_CACHE_SIZE, info.l2_bytes);
  info.l3_bytes = cache_bytes(_SC_LEVEL3_CACHE_SIZE, info.l3_bytes);
#endif
  info.selected = info.found.back();
  if (const char* wanted = getenv("ZEROSKIP_ISA")) {
    for (Isa isa : info.found) {
      if (strcmp(isa_name(isa), wanted) == 0) info.selected = isa;
    }
  }
  return info;
}

}  // namespace

const CpuInfo& cpu() {
  static const CpuInfo info = detect();
  return info;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::scalar: return "scalar";
    case Isa::avx2: return "avx2";
    case Isa::avxvnni: return "avxvnni";
    case Isa::avx512: return "avx512";
    case Isa::avx512vnni: return "avx512vnni";
    case Isa::amx: return "amx";
    case Isa::neon: return "neon";
    case Isa::neondot: return "neondot";
  }
  return "?";
}

bool isa_usable(Isa isa) {
  const CpuInfo& info = cpu();
  return std::find(info.found.begin(), info.found.end(), isa) != info.found.end() && isa <= info.selected;
}

std::string isa_why_not(Isa isa) {
  if (isa_usable(isa)) return "";
  const std::string needs = std::string("needs ") + isa_name(isa) + ", which ";
  if (isa == Isa::amx && !cpu().amx_denied.empty()) return needs + "the system does not permit: " + cpu().amx_denied;
  return needs + "this processor or ZEROSKIP_ISA rules out";
}

}  // namespace zs
