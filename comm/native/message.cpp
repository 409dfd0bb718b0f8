// What travels ahead of the step: a header that says how much is coming, then ids.
#include <algorithm>
#include <cstring>

#include "parallel.h"
#include "route.h"

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

uint8_t* put(uint8_t* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return to + bytes;
}

const uint8_t* take(const uint8_t* from, void* to, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return from + bytes;
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
  if (id_bytes == 8) return take(from, ids, 8 * n);
  for (size_t i = 0; i < n; ++i) {
    uint32_t narrow;
    std::memcpy(&narrow, from + 4 * i, 4);
    ids[i] = narrow;
  }
  return from + 4 * n;
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
  parallel_for(plan_.threads, plan_.out.size(), 4, [&](size_t begin, size_t end, int) {
    for (size_t i = begin; i < end; ++i) {
      const Tile& tile = tile_of(i);
      const Table& table = plan_.tables[tile.table];
      const TableRoute& from = route.tables[tile.table];
      const size_t id = from.first_id[tile.bucket], n = from.ids_in(tile.bucket);
      uint8_t* to = route.message_sent.data() + route.messages_sent.offset[i];
      to = put_ids(to, from.ids.data() + id, n, table.id_bytes);
      if (table.pooled)
        to = put(to, from.lengths.data() + from.first_row[tile.bucket],
                 4 * size_t{from.rows_in(tile.bucket)});
      for (IdValue v : kIdValues)
        if (carries(table, v, route.weighted)) to = put(to, from.id_values[v].data() + id, 4 * n);
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
      if (table.pooled) from = take(from, route.lengths.data() + first_length[s], 4 * m);
      const bool weighted = header(route.header_got, headers_got_, plan_.in[i].peer)[kWeighted];
      for (IdValue v : kIdValues) {
        if (route.values[v].size() == 0) continue;
        float* const to = route.values[v].data() + route.first[s];
        if (carries(table, v, weighted))
          from = take(from, to, 4 * n);
        else
          std::fill_n(to, n, 1.0f);
      }
    }
  });
}

}  // namespace ff
