// The operations of ops.h for whatever instruction set includes this file.
#include <math.h>

#include "../runtime/numeric.h"
#include "../runtime/vecmath.inl"
#include "ops.h"

// clang-format off
#include "elementwise.inl"
#include "embed.inl"
#include "norm.inl"
#include "attention.inl"
#include "attention_token.inl"
// clang-format on

#define ZS_EXEC_OPS(isa)                                                                                       \
  namespace zs {                                                                                               \
  extern const ExecOps exec_ops_##isa;                                                                         \
  const ExecOps exec_ops_##isa = {embed, norm, rope, activation, glu, add, attend_tile, attend_token, append}; \
  }
