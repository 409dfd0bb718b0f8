// What travels ahead of the step: a header that says how much is coming, then ids.
#include <algorithm>
#include <cstring>

#include "route.h"
#include "tasks.h"

namespace ff {
namespace {

// A header, per peer: these words, then (ids, reply rows) for each tile that the peer holds.
enum HeaderWord : size_t { kFailed, kBatch, kLive, kWeighted, kHeaderWords };

uint64_t header_bytes(size_t tiles) { return (kHeaderWords + 2 * tiles) * sizeof(int64_t); }

const int64_t* header(const Array<uint8_t>& headers, const Layout& layout, int32_t peer) {
  return reinterpret_cast<const int64_t*>(headers.data() + layout.starts[peer] * kBlock);
}

// Bytes of one link's ids: ids, then lengths of pooled tables, then the values of ids.
uint64_t message_bytes(const Table& table, int64_t ids, int64_t rows, bool weighted) {
  const uint64_t n = static_cast<uint64_t>(ids), m = static_cast<uint64_t>(rows);
  uint64_t bytes = n * table.id_bytes + (table.pooled ? m * 4 : 0);
  for (IdValue v : kIdValues) bytes += carries(table, v, weighted) ? n * 4 : 0;
  return bytes;
}

void copy(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void put_ids(uint8_t* to, const uint64_t* ids, size_t n, uint32_t id_bytes) {
  if (id_bytes == 8) return copy(to, ids, n * 8);
  for (size_t i = 0; i < n; ++i) {
    const uint32_t narrow = static_cast<uint32_t>(ids[i]);
    std::memcpy(to + 4 * i, &narrow, 4);
  }
}

void take_ids(const uint8_t* from, int64_t* ids, size_t n, uint32_t id_bytes) {
  if (id_bytes == 8) return copy(ids, from, 8 * n);
  for (size_t i = 0; i < n; ++i) {
    uint32_t narrow;
    std::memcpy(&narrow, from + 4 * i, 4);
    ids[i] = narrow;
  }
}

constexpr size_t kIdsOfShare = 1 << 15;

// One of the equal shares of a link's ids and reply rows.
struct Share {
  size_t link, number, shares;

  size_t begin(size_t n) const { return n * number / shares; }
  size_t size(size_t n) const { return n * (number + 1) / shares - begin(n); }
};

// Calls f(share) for all shares of n links of which link i has ids_of(i) ids.
template <class IdsOf, class F>
void for_shares(int threads, size_t n, IdsOf&& ids_of, F&& f) {
  std::vector<Share> shares;
  size_t ids = 0;
  for (size_t i = 0; i < n; ++i) {
    ids += ids_of(i);
    const size_t of_link = ids_of(i) / kIdsOfShare + 1;
    for (size_t k = 0; k < of_link; ++k) shares.push_back({i, k, of_link});
  }
  const size_t pays = 1 + ids / kIdsOfShare;  // a thread for fewer ids takes longer to wake
  for_tasks(static_cast<int>(std::min<size_t>(threads, pays)), shares.size(),
            [&](size_t task, int) { f(shares[task]); });
}

}  // namespace

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

void Router::write_header(Route& route, bool failed) const {
  route.header_sent.assign(headers_sent_.bytes, 0);
  route.header_got.resize(headers_got_.bytes);
  for (int32_t peer = 0; peer < plan_.size; ++peer) {
    auto* word =
        reinterpret_cast<int64_t*>(route.header_sent.data() + headers_sent_.starts[peer] * kBlock);
    word[kFailed] = failed;
    word[kBatch] = route.batch;
    word[kLive] = route.live;
    word[kWeighted] = route.weighted;
    if (failed) continue;
    word += kHeaderWords;
    for (size_t i = plan_.out_first[peer]; i < plan_.out_first[peer + 1]; ++i) {
      const Tile& tile = plan_.tiles[plan_.out[i].tile];
      const TableRoute& table = route.tables[tile.table];
      *word++ = table.ids_in(tile.bucket);
      *word++ = table.rows_in(tile.bucket);
    }
  }
}

void Router::write_messages(Route& route) const {
  const auto tile_of = [&](size_t i) -> const Tile& { return plan_.tiles[plan_.out[i].tile]; };
  lay_out(route.messages_sent, plan_, plan_.out, true, [&](size_t i) {
    const Tile& tile = tile_of(i);
    const TableRoute& table = route.tables[tile.table];
    return message_bytes(plan_.tables[tile.table], table.ids_in(tile.bucket),
                         table.rows_in(tile.bucket), route.weighted);
  });
  route.message_sent.resize(route.messages_sent.bytes);
  const auto ids_of = [&](size_t i) {
    return size_t{route.tables[tile_of(i).table].ids_in(tile_of(i).bucket)};
  };
  for_shares(plan_.threads, plan_.out.size(), ids_of, [&](const Share& share) {
    const Tile& tile = tile_of(share.link);
    const Table& table = plan_.tables[tile.table];
    const TableRoute& from = route.tables[tile.table];
    const size_t n = from.ids_in(tile.bucket), m = from.rows_in(tile.bucket);
    const size_t first = share.begin(n), id = from.first_id[tile.bucket] + first;
    uint8_t* to = route.message_sent.data() + route.messages_sent.offset[share.link];
    put_ids(to + first * table.id_bytes, from.ids.data() + id, share.size(n), table.id_bytes);
    to += n * table.id_bytes;
    if (table.pooled) {
      copy(to + 4 * share.begin(m),
           from.lengths.data() + from.first_row[tile.bucket] + share.begin(m), 4 * share.size(m));
      to += 4 * m;
    }
    for (IdValue v : kIdValues)
      if (carries(table, v, route.weighted)) {
        copy(to + 4 * first, from.id_values[v].data() + id, 4 * share.size(n));
        to += 4 * n;
      }
  });
  const auto row_bytes = [&](size_t i) {
    const Tile& tile = tile_of(i);
    return uint64_t{route.tables[tile.table].rows_in(tile.bucket)} * tile.dim() *
           bytes_of(plan_.wire);
  };
  lay_out(route.gradient_sent, plan_, plan_.out, true, row_bytes);
  lay_out(route.reply_got, plan_, plan_.out, true,
          [&](size_t i) { return plan_.out[i].replies ? row_bytes(i) : 0; });
}

void Router::accept(Route& route) const {
  route.global_batch = 0;
  route.any_live = false;
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
    route.any_live |= word[kLive] != 0;
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

void Router::unpack(Route& route) const {
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
  for (IdValue v : kIdValues) {
    bool some = false;
    for (uint32_t t : plan_.held)
      some |= carries(plan_.tables[plan_.tiles[t].table], v, route.any_weighted);
    route.values[v].resize(some ? ids : 0);
  }
  const size_t own = plan_.out_first[plan_.rank];
  const auto link_of = [&](size_t s) { return plan_.in_link(s / peers, s % peers); };
  const auto ids_of = [&](size_t s) { return static_cast<size_t>(route.in_ids[link_of(s)]); };
  for_shares(plan_.threads, segments, ids_of, [&](const Share& share) {
    const size_t s = share.link, i = link_of(s), n = ids_of(s), m = route.in_rows[i];
    const uint8_t* from =
        plan_.in[i].peer == plan_.rank
            ? route.message_sent.data() + route.messages_sent.offset[own + s / peers]
            : route.message_got.data() + route.messages_got.offset[i];
    const Table& table = plan_.tables[plan_.tiles[plan_.in[i].tile].table];
    const size_t first = share.begin(n), id = route.first[s] + first;
    take_ids(from + first * table.id_bytes, route.ids.data() + id, share.size(n), table.id_bytes);
    from += n * table.id_bytes;
    if (table.pooled) {
      copy(route.lengths.data() + first_length[s] + share.begin(m), from + 4 * share.begin(m),
           4 * share.size(m));
      from += 4 * m;
    }
    const bool weighted = header(route.header_got, headers_got_, plan_.in[i].peer)[kWeighted];
    for (IdValue v : kIdValues) {
      if (route.values[v].size() == 0) continue;
      if (carries(table, v, weighted)) {
        copy(route.values[v].data() + id, from + 4 * first, 4 * share.size(n));
        from += 4 * n;
      } else {
        std::fill_n(route.values[v].data() + id, share.size(n), 1.0f);
      }
    }
  });
}

}  // namespace ff
