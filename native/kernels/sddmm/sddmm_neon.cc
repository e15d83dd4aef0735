#if defined(__aarch64__)
#include "sddmm.inl"

ZS_SDDMM(neon)
#endif
