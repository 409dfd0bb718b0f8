#include <algorithm>
#include <atomic>
#include <cstring>

#include "parallel.h"
#include "route.h"
#include "table_route.h"

namespace ff {
namespace {

// A header, per peer: these words, then (ids, reply rows) for each tile that the peer holds.
enum HeaderWord : size_t { kFailed, kBatch, kWeighted, kHeaderWords };

uint64_t header_bytes(size_t tiles) { return (kHeaderWords + 2 * tiles) * sizeof(int64_t); }

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

int64_t off_rank_bytes(const Layout& layout) {
  int64_t blocks = 0;
  for (size_t peer = 0; peer < layout.counts.size(); ++peer) blocks += layout.counts[peer];
  return blocks * static_cast<int64_t>(kBlock);
}

void lay_out_headers(Layout& layout, const Plan& plan, bool sent) {
  layout.counts.resize(plan.size);
  layout.starts.resize(plan.size);
  uint64_t blocks = 0;
  for (int32_t peer = 0; peer < plan.size; ++peer) {
    const size_t tiles = sent ? plan.out_first[peer + 1] - plan.out_first[peer] : plan.held.size();
    const uint64_t n = blocks_for(header_bytes(tiles));
    layout.starts[peer] = static_cast<int64_t>(blocks);
    layout.counts[peer] = peer == plan.rank ? 0 : static_cast<int64_t>(n);
    blocks += n;
  }
  layout.bytes = blocks * kBlock;
}

const int64_t* header(const Array<uint8_t>& headers, const Layout& layout, int32_t peer) {
  return reinterpret_cast<const int64_t*>(headers.data() + layout.starts[peer] * kBlock);
}

// Bytes of one link's ids: ids, then lengths and weights of pooled tables.
uint64_t message_bytes(const Table& table, int64_t ids, int64_t rows, bool weighted) {
  const uint64_t n = static_cast<uint64_t>(ids), m = static_cast<uint64_t>(rows);
  return n * table.id_bytes + (table.pooled ? m * 4 + (weighted ? n * 4 : 0) : 0);
}

uint8_t* put(uint8_t* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return to + bytes;
}

uint8_t* put_ids(uint8_t* to, const uint64_t* ids, size_t n, uint32_t id_bytes) {
  if (id_bytes == 8) return put(to, ids, n * 8);
  for (size_t i = 0; i < n; ++i) {
    const uint32_t narrow = static_cast<uint32_t>(ids[i]);
    std::memcpy(to + 4 * i, &narrow, 4);
  }
  return to + 4 * n;
}

const uint8_t* take_ids(const uint8_t* from, int64_t* ids, size_t n, uint32_t id_bytes) {
  if (n == 0) return from;
  if (id_bytes == 8) {
    std::memcpy(ids, from, 8 * n);
    return from + 8 * n;
  }
  for (size_t i = 0; i < n; ++i) {
    uint32_t narrow;
    std::memcpy(&narrow, from + 4 * i, 4);
    ids[i] = narrow;
  }
  return from + 4 * n;
}

void check_bags(const Bags& bags, size_t features, size_t num_ids) {
  const size_t n = features * static_cast<size_t>(bags.batch);
  if (num_ids >= UINT32_MAX || n >= UINT32_MAX)
    throw BadBatch{"a batch of " + std::to_string(num_ids) + " ids in " + std::to_string(n) +
                   " bags on one rank: fewer than 2**32 - 1 of each are supported; use a smaller "
                   "batch or more dense ranks"};
  bool rising = bags.offsets[0] == 0;
  for (size_t i = 0; i < n; ++i) rising &= bags.offsets[i] <= bags.offsets[i + 1];
  if (!rising || bags.offsets[n] != static_cast<int64_t>(num_ids))
    throw BadBatch{"offsets must rise from 0 to the number of ids (" + std::to_string(num_ids) +
                   "); they start at " + std::to_string(bags.offsets[0]) + " and end at " +
                   std::to_string(bags.offsets[n]) + (rising ? "" : ", and fall somewhere")};
}

}  // namespace

Router::Router(Plan plan) : plan_(std::move(plan)), scratch_(std::max(1, plan_.threads)) {
  lay_out_headers(headers_sent_, plan_, true);
  lay_out_headers(headers_got_, plan_, false);
  const size_t peers = static_cast<size_t>(plan_.size), segments = plan_.segments();
  segment_tile_.resize(segments);
  segment_pooled_.resize(segments);
  segment_replies_.resize(segments);
  for (size_t s = 0; s < segments; ++s) {
    const Link& link = plan_.in[plan_.in_link(s / peers, s % peers)];
    segment_tile_[s] = static_cast<int32_t>(s / peers);
    segment_pooled_[s] = plan_.tables[plan_.tiles[link.tile].table].pooled;
    segment_replies_[s] = link.replies;
  }
}

std::shared_ptr<Route> Router::acquire() {
  for (const std::shared_ptr<Route>& route : routes_)
    if (route.use_count() == 1) return route;
  return routes_.emplace_back(std::make_shared<Route>());
}

std::shared_ptr<Route> Router::route(const int64_t* ids, size_t num_ids, const int64_t* offsets,
                                     const float* weights, int64_t batch) {
  const Bags bags{ids, offsets, weights, batch};
  check_bags(bags, plan_.features.size(), num_ids);
  for (uint32_t f = 0; f < plan_.features.size(); ++f) check_ids(plan_, f, bags);
  const std::shared_ptr<Route> route = acquire();
  route->batch = batch;
  route->weighted = weights != nullptr;
  route->tables.resize(plan_.tables.size());
  std::atomic<uint32_t> next{0};
  const size_t threads = std::min(scratch_.size(), plan_.tables.size());
  parallel_for(static_cast<int>(threads), threads, 1, [&](size_t, size_t, int worker) {
    for (uint32_t t = next++; t < plan_.tables.size(); t = next++)
      build_table(plan_, t, bags, route->tables[t], scratch_[worker]);
  });
  write_header(*route, false);
  write_messages(*route);
  return route;
}

std::shared_ptr<Route> Router::refuse() {
  const std::shared_ptr<Route> route = acquire();
  route->batch = 0;
  write_header(*route, true);
  return route;
}

void Router::write_header(Route& route, bool failed) {
  route.header_sent.assign(headers_sent_.bytes, 0);
  route.header_got.resize(headers_got_.bytes);
  for (int32_t peer = 0; peer < plan_.size; ++peer) {
    auto* word =
        reinterpret_cast<int64_t*>(route.header_sent.data() + headers_sent_.starts[peer] * kBlock);
    word[kFailed] = failed;
    word[kBatch] = route.batch;
    word[kWeighted] = route.weighted;
    if (failed) continue;
    word += kHeaderWords;
    for (size_t i = plan_.out_first[peer]; i < plan_.out_first[peer + 1]; ++i) {
      const Tile& tile = plan_.tiles[plan_.out[i].tile];
      const TableRoute& table = route.tables[tile.table];
      *word++ = table.first_id[tile.bucket + 1] - table.first_id[tile.bucket];
      *word++ = table.first_row[tile.bucket + 1] - table.first_row[tile.bucket];
    }
  }
}

void Router::write_messages(Route& route) {
  const auto rows_of = [&](size_t i) {
    const Tile& tile = plan_.tiles[plan_.out[i].tile];
    const TableRoute& table = route.tables[tile.table];
    return static_cast<int64_t>(table.first_row[tile.bucket + 1] - table.first_row[tile.bucket]);
  };
  lay_out(route.messages_sent, plan_, plan_.out, true, [&](size_t i) {
    const Tile& tile = plan_.tiles[plan_.out[i].tile];
    const TableRoute& table = route.tables[tile.table];
    return message_bytes(plan_.tables[tile.table],
                         table.first_id[tile.bucket + 1] - table.first_id[tile.bucket], rows_of(i),
                         route.weighted);
  });
  route.message_sent.resize(route.messages_sent.bytes);
  parallel_for(plan_.threads, plan_.out.size(), 4, [&](size_t begin, size_t end, int) {
    for (size_t i = begin; i < end; ++i) {
      const Tile& tile = plan_.tiles[plan_.out[i].tile];
      const TableRoute& table = route.tables[tile.table];
      const size_t id = table.first_id[tile.bucket], n = table.first_id[tile.bucket + 1] - id;
      uint8_t* to = route.message_sent.data() + route.messages_sent.offset[i];
      to = put_ids(to, table.ids.data() + id, n, plan_.tables[tile.table].id_bytes);
      if (!plan_.tables[tile.table].pooled) continue;
      const size_t row = table.first_row[tile.bucket];
      to = put(to, table.lengths.data() + row, 4 * static_cast<size_t>(rows_of(i)));
      if (route.weighted) put(to, table.id_weights.data() + id, 4 * n);
    }
  });
  const auto row_bytes = [&](size_t i) {
    return static_cast<uint64_t>(rows_of(i)) * plan_.tiles[plan_.out[i].tile].dim() *
           bytes_of(plan_.wire);
  };
  lay_out(route.gradient_sent, plan_, plan_.out, true, row_bytes);
  lay_out(route.reply_got, plan_, plan_.out, true,
          [&](size_t i) { return plan_.out[i].replies ? row_bytes(i) : 0; });
  count_traffic(route);
}

// What TorchRec's pooled exchange would move for this batch and placement: see Traffic in
// comm/route.py for the formula.
void Router::count_traffic(Route& route) {
  Traffic& traffic = route.traffic = {};
  for (const TableRoute& table : route.tables) {
    traffic.rows += table.rows;
    for (size_t b = 0; b < table.lookups.size(); ++b) traffic.lookups += table.lookups[b];
  }
  traffic.id_bytes = off_rank_bytes(headers_sent_) + off_rank_bytes(route.messages_sent);
  traffic.reply_bytes = off_rank_bytes(route.reply_got);
  traffic.gradient_bytes = off_rank_bytes(route.gradient_sent);
  for (const Tile& tile : plan_.tiles) {
    const Table& table = plan_.tables[tile.table];
    const int64_t element = bytes_of(plan_.wire), n = static_cast<int64_t>(tile.ranks.size());
    if (n > 1) {
      if (!table.dynamic && tile.held_by(plan_.rank))
        traffic.peer_gradient_bytes +=
            2 * (n - 1) * 4 * tile.dim() * static_cast<int64_t>(table.limit / table.buckets) / n;
      continue;
    }
    if (tile.held_by(plan_.rank)) continue;
    const int64_t lookups = route.tables[tile.table].lookups[tile.bucket];
    int64_t bags = static_cast<int64_t>(table.features.size()) * route.batch, rows = 0;
    for (uint32_t f : table.features)
      rows += plan_.features[f].pooling == Pooling::none
                  ? route.tables[tile.table].slices[plan_.features[f].in_table].bags / table.buckets
                  : route.batch;
    traffic.peer_id_bytes += lookups * (8 + (route.weighted ? 4 : 0)) + 4 * bags;
    traffic.peer_reply_bytes += rows * tile.dim() * element;
    traffic.peer_gradient_bytes += rows * tile.dim() * element;
  }
}

void Router::accept(Route& route) {
  route.global_batch = 0;
  route.failed_rank = -1;
  route.any_weighted = false;
  std::memcpy(route.header_got.data() + headers_got_.starts[plan_.rank] * kBlock,
              route.header_sent.data() + headers_sent_.starts[plan_.rank] * kBlock,
              header_bytes(plan_.held.size()));
  const size_t held = plan_.held.size();
  route.in_ids.resize(plan_.in.size());
  route.in_rows.resize(plan_.in.size());
  for (int32_t peer = 0; peer < plan_.size; ++peer) {
    const int64_t* word = header(route.header_got, headers_got_, peer);
    if (word[kFailed] && route.failed_rank < 0) route.failed_rank = peer;
    route.global_batch += word[kBatch];
    route.any_weighted |= word[kWeighted] != 0;
    for (size_t j = 0; j < held; ++j) {
      route.in_ids[peer * held + j] = word[kHeaderWords + 2 * j];
      route.in_rows[peer * held + j] = word[kHeaderWords + 2 * j + 1];
    }
  }
  if (route.failed_rank >= 0) return;
  const auto row_bytes = [&](size_t i) {
    return static_cast<uint64_t>(route.in_rows[i]) * plan_.tiles[plan_.in[i].tile].dim() *
           bytes_of(plan_.wire);
  };
  lay_out(route.messages_got, plan_, plan_.in, false, [&](size_t i) {
    return message_bytes(plan_.tables[plan_.tiles[plan_.in[i].tile].table], route.in_ids[i],
                         route.in_rows[i],
                         header(route.header_got, headers_got_, plan_.in[i].peer)[kWeighted]);
  });
  route.message_got.resize(route.messages_got.bytes);
  lay_out(route.gradient_got, plan_, plan_.in, false, row_bytes);
  lay_out(route.reply_sent, plan_, plan_.in, false,
          [&](size_t i) { return plan_.in[i].replies ? row_bytes(i) : 0; });
}

void Router::unpack(Route& route) {
  const size_t peers = static_cast<size_t>(plan_.size), segments = plan_.segments();
  route.first.resize(segments + 1);
  route.bags.resize(segments + 1);
  Array<int64_t> first_length;
  first_length.resize(segments + 1);
  int64_t ids = 0, rows = 0, lengths = 0;
  for (size_t s = 0; s < segments; ++s) {
    const size_t i = plan_.in_link(s / peers, s % peers);
    route.first[s] = std::exchange(ids, ids + route.in_ids[i]);
    route.bags[s] = std::exchange(rows, rows + route.in_rows[i]);
    first_length[s] = lengths;
    if (segment_pooled_[s]) lengths += route.in_rows[i];
  }
  route.first[segments] = ids;
  route.bags[segments] = rows;
  route.ids.resize(ids);
  route.lengths.resize(lengths);
  bool weights = false;
  for (size_t s = 0; s < segments && route.any_weighted; ++s) weights |= segment_pooled_[s];
  route.weights.resize(weights ? ids : 0);
  const size_t own = plan_.out_first[plan_.rank];
  parallel_for(plan_.threads, segments, 4, [&](size_t begin, size_t end, int) {
    for (size_t s = begin; s < end; ++s) {
      const size_t held_tile = s / peers, peer = s % peers, i = plan_.in_link(held_tile, peer);
      const uint8_t* from =
          plan_.in[i].peer == plan_.rank
              ? route.message_sent.data() + route.messages_sent.offset[own + held_tile]
              : route.message_got.data() + route.messages_got.offset[i];
      const size_t n = route.in_ids[i], m = route.in_rows[i];
      const Table& table = plan_.tables[plan_.tiles[plan_.in[i].tile].table];
      from = take_ids(from, route.ids.data() + route.first[s], n, table.id_bytes);
      if (table.pooled && m > 0) std::memcpy(route.lengths.data() + first_length[s], from, 4 * m);
      if (!weights || n == 0) continue;
      float* const to = route.weights.data() + route.first[s];
      if (table.pooled && header(route.header_got, headers_got_, plan_.in[i].peer)[kWeighted])
        std::memcpy(to, from + 4 * m, 4 * n);
      else
        std::fill_n(to, n, 1.0f);
    }
  });
}

}  // namespace ff
