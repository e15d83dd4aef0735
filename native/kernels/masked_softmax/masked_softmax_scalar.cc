// Baseline: whatever vectors every processor of this architecture has (SSE2 on x86-64).
#include "masked_softmax.inl"

ZS_MASKED_SOFTMAX(scalar)
