// What the bindings and the tests call. Sizes and indices have been checked.
#pragma once

#include "../../runtime/pool.h"
#include "gspmm.h"
#include "zeroskip/types.h"

namespace zs {

bool graph_isa(Isa isa);  // whether there are loops compiled for it
void run_gspmm(Isa isa, Gspmm a, Pool& pool);
// Entries that x is asked for ahead, for rows of so many floats; 0 where x lies in the caches anyway.
int64_t entries_ahead(int64_t sources, int64_t row_size);
// Entries whose work is worth a task.
int64_t least_entries(int64_t row_size);

}  // namespace zs
