// What the processor offers, found at run time; ZEROSKIP_ISA restricts it.
#pragma once

#include <string>
#include <vector>

#include "zeroskip/types.h"

namespace zs {

struct CpuInfo {
  std::string arch;
  std::string model;
  std::vector<Isa> found;  // ascending; scalar is always there
  Isa selected;            // the best of `found` that ZEROSKIP_ISA allows
  std::string amx_denied;  // why Linux does not let this process use AMX, which the processor has; else empty
  int64_t l1d_bytes = 32 * 1024;
  int64_t l2_bytes = 512 * 1024;
  int64_t l3_bytes = 0;
  int cores = 1;
};

const CpuInfo& cpu();
const char* isa_name(Isa isa);
bool isa_usable(Isa isa);  // found here, and built into this binary
std::string isa_why_not(Isa isa);  // empty where it is usable

}  // namespace zs
