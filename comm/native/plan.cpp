#include "plan.h"

#include <algorithm>
#include <set>

namespace ff {
namespace {

void connect_tables(Plan& plan) {
  for (uint32_t f = 0; f < plan.features.size(); ++f) {
    Feature& feature = plan.features[f];
    Table& table = plan.tables[feature.table];
    feature.in_table = static_cast<uint32_t>(table.features.size());
    table.features.push_back(f);
    table.mean |= feature.pooling == Pooling::mean;
    uint32_t& next = feature.pooling == Pooling::none ? plan.num_sequences : plan.output_dim;
    feature.column = next;
    next += feature.pooling == Pooling::none ? 1 : table.dim;
  }
  for (const Tile& tile : plan.tiles)
    plan.tables[tile.table].buckets = std::max(plan.tables[tile.table].buckets, tile.bucket + 1);
  for (uint32_t t = 0; t < plan.tables.size(); ++t) {
    Table& table = plan.tables[t];
    table.place = {divisor_of(table.buckets), bucket_salt(t)};
    const uint64_t positions =
        table.dynamic ? table.limit : (table.limit + table.buckets - 1) / table.buckets;
    plan.credited |= table.credited;
    table.id_bytes = positions <= uint64_t{1} << 32 ? 4 : 8;
  }
}

void connect_links(Plan& plan) {
  plan.first_link.assign(plan.tiles.size(), UINT32_MAX);
  plan.copies.assign(plan.tiles.size(), {});
  for (int32_t peer = 0; peer < plan.size; ++peer) {
    plan.out_first.push_back(plan.out.size());
    for (uint32_t t = 0; t < plan.tiles.size(); ++t) {
      if (!plan.tiles[t].held_by(peer)) continue;
      const uint32_t link = static_cast<uint32_t>(plan.out.size());
      if (plan.first_link[t] == UINT32_MAX)
        plan.first_link[t] = link;
      else
        plan.copies[t].push_back(link);
      plan.out.push_back({peer, t, plan.tiles[t].provider(plan.rank) == peer});
      if (peer == plan.rank) plan.held.push_back(t);
    }
  }
  plan.out_first.push_back(plan.out.size());
  for (int32_t peer = 0; peer < plan.size; ++peer)
    for (uint32_t t : plan.held)
      plan.in.push_back({peer, t, plan.tiles[t].provider(peer) == plan.rank});
}

// The finest cut of a table's columns: between two neighbours every bucket has a single tile.
std::vector<uint32_t> column_cuts(const Plan& plan, uint32_t table) {
  std::set<uint32_t> cuts{0, plan.tables[table].dim};
  for (const Tile& tile : plan.tiles)
    if (tile.table == table) cuts.insert({tile.start, tile.stop});
  return {cuts.begin(), cuts.end()};
}

void add_pieces(Plan& plan, uint32_t f, const std::vector<uint32_t>& cuts) {
  const Feature& feature = plan.features[f];
  const uint32_t column = feature.pooling == Pooling::none ? 0 : feature.column;
  for (size_t c = 0; c + 1 < cuts.size(); ++c) {
    Piece piece{f, column + cuts[c], cuts[c + 1] - cuts[c], {}};
    piece.sources.resize(plan.tables[feature.table].buckets);
    for (uint32_t link = 0; link < plan.out.size(); ++link) {
      const Tile& tile = plan.tiles[plan.out[link].tile];
      if (tile.table != feature.table || !plan.out[link].replies) continue;
      if (tile.start <= cuts[c] && cuts[c] < tile.stop)
        piece.sources[tile.bucket] = {link, cuts[c] - tile.start};
    }
    plan.pieces.push_back(std::move(piece));
  }
}

}  // namespace

void Plan::connect() {
  connect_tables(*this);
  connect_links(*this);
  std::vector<std::vector<uint32_t>> cuts;
  for (uint32_t t = 0; t < tables.size(); ++t) cuts.push_back(column_cuts(*this, t));
  for (bool sequence : {false, true}) {
    for (uint32_t f = 0; f < features.size(); ++f)
      if ((features[f].pooling == Pooling::none) == sequence)
        add_pieces(*this, f, cuts[features[f].table]);
    if (!sequence) pooled_pieces = pieces.size();
  }
}

}  // namespace ff
