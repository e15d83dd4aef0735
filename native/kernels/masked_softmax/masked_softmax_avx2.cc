#if defined(__AVX2__)
#include "masked_softmax.inl"

ZS_MASKED_SOFTMAX(avx2)
#endif
