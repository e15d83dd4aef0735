// Baseline: whatever vectors every processor of this architecture has (SSE2 on x86-64).
#include "sddmm.inl"

ZS_SDDMM(scalar)
