// Builds the requester side of one table. See route.h for what the arrays mean.
#pragma once

#include <cstdint>

#include "distinct.h"
#include "plan.h"
#include "route.h"

namespace ff {

// One batch as the caller gave it: feature-major bags.
struct Bags {
  const int64_t* ids = nullptr;      // (L,)
  const int64_t* offsets = nullptr;  // (features * batch + 1,)
  const float* weights = nullptr;    // (L,) or null
  int64_t batch = 0;

  const int64_t* of(uint32_t feature) const { return offsets + feature * batch; }
  int64_t lookups(uint32_t feature) const { return of(feature)[batch] - of(feature)[0]; }
};

// Throws BadBatch when an id of the feature does not belong to the table.
void check_ids(const Plan& plan, uint32_t feature, const Bags& bags);

// Fills `route` for one table.
void build_table(const Plan& plan, uint32_t table, const Bags& bags, TableRoute& route,
                 Scratch& scratch);

}  // namespace ff
