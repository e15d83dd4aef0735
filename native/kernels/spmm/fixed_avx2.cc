#if defined(__AVX2__)
#include "fixed.inl"

ZS_FIXED(avx2)
#endif
