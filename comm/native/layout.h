// Where segments lie in a message, and the bytes to and from every peer.
#pragma once

#include <cstdint>
#include <vector>

#include "array.h"
#include "plan.h"

namespace ff {

// Bytes per peer and link, in blocks. The self part has a place on the requester's side only: who
// serves it writes straight into (and reads straight from) the requester's buffer.
struct Layout {
  Array<int64_t> counts, starts;  // (size,): blocks; the count of the rank itself is 0
  Array<uint64_t> offset;         // (links,): first byte of a link's segment
  uint64_t bytes = 0;

  int64_t off_rank_bytes() const {
    int64_t blocks = 0;
    for (size_t peer = 0; peer < counts.size(); ++peer) blocks += counts[peer];
    return blocks * static_cast<int64_t>(kBlock);
  }
};

// Lays segments out by link, each on a block of its own. bytes_of(i) = payload of links[i].
// `self` tells whether the rank's own links have a place.
template <class BytesOf>
void lay_out(Layout& layout, const Plan& plan, const std::vector<Link>& links, bool self,
             BytesOf&& bytes_of) {
  const size_t size = static_cast<size_t>(plan.size);
  layout.counts.assign(size, 0);
  layout.starts.assign(size, 0);
  layout.offset.resize(links.size());
  uint64_t blocks = 0;
  size_t i = 0;
  for (int32_t peer = 0; peer < plan.size; ++peer) {
    const uint64_t start = blocks;
    layout.starts[peer] = static_cast<int64_t>(start);
    for (; i < links.size() && links[i].peer == peer; ++i) {
      layout.offset[i] = blocks * kBlock;
      if (peer != plan.rank || self) blocks += blocks_for(bytes_of(i));
    }
    layout.counts[peer] = peer == plan.rank ? 0 : static_cast<int64_t>(blocks - start);
  }
  layout.bytes = blocks * kBlock;
}

// The same for the headers that every pair of ranks exchanges.
void lay_out_headers(Layout& layout, const Plan& plan, bool sent);

}  // namespace ff
