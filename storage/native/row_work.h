// The work of gather and update on a device, cut into pieces of about equal bytes, each for a
// block. Cut when the batch is planned.
#pragma once

#include <vector>

#include "request.h"
#include "row_kernels.h"

namespace ff {

// The sum of a group of more entries is cut: its order depends on the number of entries alone.
constexpr size_t LONG_GROUP = 128;

struct UpdateWork {
  std::vector<UpdatePiece> pieces;  // long groups first
  std::vector<ChunkPiece> chunks;
  size_t sums = 0;                  // floats, of chunks
  size_t groups = 0;                // of all runs
  std::vector<uint32_t> long_ones;  // groups of a run
};

void cut_replies(const Ticket& ticket, const std::vector<TileRows>& tiles, uint32_t processors,
                 std::vector<GatherPiece>& pieces);
void cut_updates(const Ticket& ticket, const std::vector<TileRows>& tiles, uint32_t processors,
                 int threads, UpdateWork& work);

}  // namespace ff
