// What the bindings and the tests call. Sizes and indices have been checked.
#pragma once

#include "../../runtime/pool.h"
#include "gat.h"
#include "zeroskip/types.h"

namespace zs {

void run_gat(Isa isa, Gat a, Pool& pool);
void run_edge_softmax(Isa isa, const EdgeScores& a, Pool& pool);
void run_sddmm_add(Isa isa, const EdgeScores& a, Pool& pool);

}  // namespace zs
