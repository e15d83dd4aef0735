// The implementations that kernels.inc puts together into kernels.
#pragma once

#include "../kernel.h"

namespace zs {

std::unique_ptr<Packed> pack_scalar(const Source& source, ValueType type);
void run_scalar(const Packed& packed, const float* x, int64_t lanes, Output y, const Epilogue& epilogue, Pool& pool);

}  // namespace zs
