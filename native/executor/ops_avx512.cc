#if defined(__AVX512F__)
#include "ops.inl"

ZS_EXEC_OPS(avx512)
#endif
