#define ZS_VECTOR_BYTES 16
#include "fixed.inl"

ZS_FIXED(scalar)
