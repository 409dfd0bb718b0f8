// Distinct rows of a run, and which gradient rows belong to each.
#pragma once

#include "mapping.h"
#include "request.h"

namespace ff {

// What the grouping knows of a tile.
struct GroupTile {
  RowView rows;
  uint64_t slots;  // all are below
  bool needs_id;   // of its rows, for the noise of stochastic rounding
};

// Of consecutive groups, as one thread finds them.
struct FoundGroups {
  struct Group {
    uint32_t slot, end;  // end: entries up to here belong to this group and those before it
  };
  struct Extra {
    uint32_t id;  // of the request, that names the row
    float credit;
  };
  size_t count = 0;
  std::vector<size_t> by_run;  // how many are of each run
  Array<Group> groups;         // room for more
  Array<Extra> extras;         // unused if nobody asks for them

  // For so many more.
  void make_room(size_t more, bool with_extras) {
    const size_t room = groups.size() < count + more ? 2 * (count + more) : groups.size();
    groups.resize(room);
    if (with_extras && extras.size() < room) extras.resize(room);
  }
};

// Memory for the grouping, kept from plan to plan.
struct GroupSpace {
  explicit GroupSpace(bool huge_pages) : first(huge_pages), second(huge_pages) {}

  Mapping first, second;  // lookups of all runs, partly sorted
  std::vector<uint32_t> counters;
  std::vector<FoundGroups> found;  // by thread
};

// Whether segment and reply row, together, have names of 32 bits in a run.
bool groupable(const std::vector<Segment>& segments, const Run& run);

// Fills the group_* and entry* arrays of the ticket for all runs that are not distinct. Groups are
// in ascending order of slots, entries of a group in the order of the request, (requester,
// position), whatever the number of threads: so the order of every sum is fixed.
void group_rows(Ticket& ticket, const std::vector<GroupTile>& tiles, GroupSpace& space,
                int threads);

}  // namespace ff
