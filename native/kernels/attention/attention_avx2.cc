#if defined(__AVX2__)
#include "attention.inl"

ZS_ATTENTION(avx2)
#endif
