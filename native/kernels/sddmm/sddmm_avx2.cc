#if defined(__AVX2__)
#include "sddmm.inl"

ZS_SDDMM(avx2)
#endif
