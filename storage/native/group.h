// Distinct rows of a run, and which gradient rows belong to each.
#pragma once

#include "request.h"
#include "tile.h"

namespace ff {

// Memory for the grouping, kept from plan to plan.
struct GroupSpace {
  std::vector<uint64_t> items, other;
  std::vector<Entry> owner;
};

// Fills the group_* and entry* arrays of the ticket for all runs that are not distinct. Groups are
// in ascending order of slots, entries of a group in the order of the request, (requester,
// position), whatever the number of threads: so the order of every sum is fixed.
void group_rows(Ticket& ticket, const std::vector<bool>& needs_id, GroupSpace& space, int threads);

}  // namespace ff
