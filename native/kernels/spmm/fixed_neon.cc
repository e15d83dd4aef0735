#if defined(__aarch64__)
#include "fixed.inl"

ZS_FIXED(neon)
#endif
