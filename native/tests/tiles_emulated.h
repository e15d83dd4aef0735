// Kernels of the tiles family that run everywhere: for the tests of all kernels, and for their own.
#pragma once

#include <vector>

#include "../kernels/kernel.h"

namespace zs::test {

const std::vector<Kernel>& emulated_tiles();

// How often tiles were used outside begin() and end(), or these did not come in pairs.
int64_t tile_misuses();

}  // namespace zs::test
