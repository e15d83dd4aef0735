// Baseline: whatever vectors every processor of this architecture has (SSE2 on x86-64).
#include "attention.inl"

ZS_ATTENTION(scalar)
