#if defined(__AVX512F__)
#include "masked_softmax.inl"

ZS_MASKED_SOFTMAX(avx512)
#endif
