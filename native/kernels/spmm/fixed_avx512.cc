#if defined(__AVX512F__)
#include "fixed.inl"

ZS_FIXED(avx512)
#endif
