// The rows of a table from the distinct ids of its chunks. See rows_route.h.
#include <algorithm>

#include "rows_route.h"

namespace ff {

// Sorts the chunk's ids by part, stable.
void RowsBuilder::sort_by_part(ChunkIds& ids, Scratch& scratch) const {
  const uint32_t n = static_cast<uint32_t>(ids.id.size());
  scratch.part.resize(n);
  scratch.cursor.assign(parts(), 0);
  for (uint32_t u = 0; u < n; ++u) {
    scratch.part[u] = static_cast<uint16_t>(mix(ids.id[u]) & (parts() - 1));
    ++scratch.cursor[scratch.part[u]];
  }
  prefix(ids.first_of_part, scratch.cursor.data(), static_cast<uint32_t>(parts()));
  ids.by_part.resize(n);
  for (uint32_t u = 0; u < n; ++u)
    ids.by_part[scratch.cursor[scratch.part[u]]++] = {ids.id[u], u, 0, ids.lookups[u], 0};
}

uint32_t RowsBuilder::ids_in(size_t part) const {
  uint32_t n = 0;
  for (size_t c = 0; c < chunks_.size(); ++c)
    n += ids_[c].first_of_part[part + 1] - ids_[c].first_of_part[part];
  return n;
}

// Goes through the part's ids, chunk by chunk. All entries get the number of their id in the part
// and the lookups of it in earlier chunks; the one that opens a row gets all lookups of the row.
void RowsBuilder::merge(size_t part, Scratch& scratch) {
  const uint32_t n = ids_in(part);
  scratch.distinct.begin(table_.limit, n);
  scratch.cursor.resize(n);
  scratch.opened.resize(n);
  uint32_t* const total = scratch.cursor.data();
  for (size_t c = 0; c < chunks_.size(); ++c) {
    const uint32_t first = ids_[c].first_of_part[part], last = ids_[c].first_of_part[part + 1];
    ChunkIds::Entry* const entries = ids_[c].by_part.data() + first;
    scratch.distinct.add(
        last - first, [&](size_t i) { return entries[i].id; },
        [&](size_t i, uint32_t number, bool fresh) {
          if (fresh) {
            total[number] = 0;
            scratch.opened[number] = &entries[i];
          }
          const uint32_t before = total[number];
          total[number] += std::exchange(entries[i].count, before);
          entries[i].in_part = number;
        });
  }
  for (uint32_t u = 0; u < scratch.distinct.size(); ++u) scratch.opened[u]->cursor = total[u];
}

// The lookups of the rows that the chunk opens.
void RowsBuilder::take_totals(ChunkIds& ids) const {
  for (size_t i = 0; i < ids.by_part.size(); ++i)
    ids.lookups[ids.by_part[i].local] = ids.by_part[i].cursor;
}

void RowsBuilder::give_numbers(ChunkIds& ids) const {
  for (size_t i = 0; i < ids.by_part.size(); ++i) {
    ChunkIds::Entry& entry = ids.by_part[i];
    entry.id = ids.row[entry.local].number;
    entry.cursor = ids.row[entry.local].cursor;
  }
}

// Gives the number and the next entry of a row to all chunks that name it. The first of them has
// both already, and no lookups before it.
void RowsBuilder::share(size_t part, Scratch& scratch) {
  scratch.row.resize(ids_in(part) + 1);
  ChunkIds::Row* const row = scratch.row.data();
  uint32_t known = 0;
  for (size_t c = 0; c < chunks_.size(); ++c) {
    const uint32_t first = ids_[c].first_of_part[part], last = ids_[c].first_of_part[part + 1];
    for (uint32_t i = first; i < last; ++i) {
      ChunkIds::Entry& entry = ids_[c].by_part[i];
      row[known] = {static_cast<uint32_t>(entry.id), entry.cursor};
      known += entry.in_part == known;
      entry.id = row[entry.in_part].number;
      entry.cursor = row[entry.in_part].cursor + entry.count;
    }
  }
}

void RowsBuilder::take_numbers(ChunkIds& ids) const {
  for (size_t i = 0; i < ids.by_part.size(); ++i) {
    const ChunkIds::Entry& entry = ids.by_part[i];
    ids.row[entry.local] = {static_cast<uint32_t>(entry.id), entry.cursor};
  }
}

}  // namespace ff
