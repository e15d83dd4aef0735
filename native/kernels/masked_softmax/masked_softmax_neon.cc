#if defined(__aarch64__)
#include "masked_softmax.inl"

ZS_MASKED_SOFTMAX(neon)
#endif
