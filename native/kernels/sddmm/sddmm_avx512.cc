#if defined(__AVX512F__)
#include "sddmm.inl"

ZS_SDDMM(avx512)
#endif
