#if defined(__AVX2__)
#include "ops.inl"

ZS_EXEC_OPS(avx2)
#endif
