#if defined(__aarch64__)
#include "ops.inl"

ZS_EXEC_OPS(neon)
#endif
