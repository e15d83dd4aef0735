#if defined(__aarch64__)
#include "attention.inl"

ZS_ATTENTION(neon)
#endif
