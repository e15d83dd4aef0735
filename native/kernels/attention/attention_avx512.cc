#if defined(__AVX512F__)
#include "attention.inl"

ZS_ATTENTION(avx512)
#endif
