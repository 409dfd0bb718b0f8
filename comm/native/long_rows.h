// The reply rows of a table that have so many entries that they are cut into parts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "route.h"
#include "step_kernels.h"

namespace ff {

struct LongRows {
  std::vector<uint32_t> row;          // (n,): number within its bucket, rising
  std::vector<uint32_t> first_part;   // (n + 1,)
  std::vector<uint32_t> first, last;  // (parts,): entries
  std::vector<uint32_t> of_bucket;    // (buckets + 1,): long rows in the buckets before

  void find(const TableRoute& table, bool pooled) {
    const uint32_t buckets = static_cast<uint32_t>(table.first_row.size() - 1);
    row.clear();
    first.clear();
    last.clear();
    first_part.assign(1, 0);
    of_bucket.assign(buckets + 1, 0);
    if (pooled) return;  // a reply row is a part of one bag
    for (uint32_t b = 0; b < buckets; ++b) {
      for (uint32_t r = table.first_row[b]; r < table.first_row[b + 1]; ++r)
        if (table.start[r + 1] - table.start[r] > LONGEST_SUM) cut(table, b, r);
      of_bucket[b + 1] = static_cast<uint32_t>(row.size());
    }
  }

 private:
  void cut(const TableRoute& table, uint32_t bucket, uint32_t r) {
    const uint32_t end = table.start[r + 1];
    for (uint32_t e = table.start[r]; e < end; e += LONGEST_SUM) {
      first.push_back(e);
      last.push_back(std::min(end, e + LONGEST_SUM));
    }
    row.push_back(r - table.first_row[bucket]);
    first_part.push_back(static_cast<uint32_t>(first.size()));
  }
};

}  // namespace ff
