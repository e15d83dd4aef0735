#include "cpu.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
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
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq")) {
      info.found.push_back(Isa::avx512);
      if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi2")) info.found.push_back(Isa::avx512vnni);
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
    case Isa::avx512: return "avx512";
    case Isa::avx512vnni: return "avx512vnni";
    case Isa::neon: return "neon";
    case Isa::neondot: return "neondot";
  }
  return "?";
}

bool isa_usable(Isa isa) {
  const CpuInfo& info = cpu();
  return std::find(info.found.begin(), info.found.end(), isa) != info.found.end() && isa <= info.selected;
}

}  // namespace zs
