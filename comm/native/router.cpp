#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "parallel.h"
#include "route.h"
#include "table_route.h"

namespace ff {
namespace {

void check_bags(const Bags& bags, size_t features, size_t num_ids) {
  const size_t n = features * static_cast<size_t>(bags.batch);
  if (num_ids > INT32_MAX || n > INT32_MAX)
    throw BadBatch{"a batch of " + std::to_string(num_ids) + " ids in " + std::to_string(n) +
                   " bags on one rank: at most 2**31 - 1 of each are supported; use a smaller "
                   "batch or more dense ranks"};
  bool rising = bags.offsets[0] == 0;
  for (size_t i = 0; i < n; ++i) rising &= bags.offsets[i] <= bags.offsets[i + 1];
  if (!rising || bags.offsets[n] != static_cast<int64_t>(num_ids))
    throw BadBatch{"offsets must rise from 0 to the number of ids (" + std::to_string(num_ids) +
                   "); they start at " + std::to_string(bags.offsets[0]) + " and end at " +
                   std::to_string(bags.offsets[n]) + (rising ? "" : ", and fall somewhere")};
}

void check_credits(const float* credits, int64_t batch) {
  for (int64_t b = 0; b < batch; ++b)
    if (!(credits[b] >= 0.0f && credits[b] <= std::numeric_limits<float>::max()))
      throw BadBatch{"credits: sample " + std::to_string(b) + " has " + std::to_string(credits[b]) +
                     "; expected finite numbers of at least 0"};
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
  for (const std::shared_ptr<Route>& route : routes_) {
    if (route.use_count() > 1) continue;
    std::atomic_thread_fence(std::memory_order_acquire);  // whoever held it is done with it
    return route;
  }
  return routes_.emplace_back(std::make_shared<Route>());
}

std::shared_ptr<Route> Router::route(const int64_t* ids, size_t num_ids, const int64_t* offsets,
                                     const float* weights, const float* credits, int64_t batch,
                                     bool live) {
  Bags bags{ids, offsets, weights, batch};
  check_bags(bags, plan_.features.size(), num_ids);
  for (uint32_t f = 0; f < plan_.features.size(); ++f) check_ids(plan_, f, bags);
  if (plan_.credited) bags.credits = spread_credits(offsets, credits, batch);
  const std::shared_ptr<Route> route = acquire();
  route->batch = batch;
  route->live = live;
  route->weighted = weights != nullptr;
  route->tables.resize(plan_.tables.size());
  std::atomic<uint32_t> next{0};
  const size_t threads = std::min(scratch_.size(), plan_.tables.size());
  parallel_for(static_cast<int>(threads), threads, 1, [&](size_t, size_t, int worker) {
    for (uint32_t t = next++; t < plan_.tables.size(); t = next++)
      TableBuilder{plan_, plan_.tables[t], bags, route->tables[t], scratch_[worker]}.build();
  });
  write_header(*route, false);
  write_messages(*route);
  count_traffic(*route);
  return route;
}

// Gives every id the credit of its sample, so that credits are dealt with as weights are.
const float* Router::spread_credits(const int64_t* offsets, const float* credits, int64_t batch) {
  check_credits(credits, batch);
  const size_t features = plan_.features.size();
  credits_.resize(static_cast<size_t>(offsets[features * static_cast<size_t>(batch)]));
  parallel_for(plan_.threads, features, 4, [&](size_t begin, size_t end, int) {
    for (size_t f = begin; f < end; ++f) {
      if (!plan_.tables[plan_.features[f].table].credited) continue;
      const int64_t* const bags = offsets + f * static_cast<size_t>(batch);
      for (int64_t b = 0; b < batch; ++b)
        for (int64_t l = bags[b]; l < bags[b + 1]; ++l) credits_[l] = credits[b];
    }
  });
  return credits_.data();
}

std::shared_ptr<Route> Router::refuse() {
  const std::shared_ptr<Route> route = acquire();
  route->batch = 0;
  route->live = false;
  route->weighted = false;
  write_header(*route, true);
  return route;
}

// What TorchRec's pooled exchange would move for this batch and placement: see Traffic in
// comm/route.py for the formula.
void Router::count_traffic(Route& route) const {
  Traffic& traffic = route.traffic = {};
  for (const TableRoute& table : route.tables) {
    traffic.rows += table.rows;
    for (size_t b = 0; b < table.lookups.size(); ++b) traffic.lookups += table.lookups[b];
  }
  traffic.id_bytes = headers_sent_.off_rank_bytes() + route.messages_sent.off_rank_bytes();
  traffic.reply_bytes = route.reply_got.off_rank_bytes();
  traffic.gradient_bytes = route.gradient_sent.off_rank_bytes();
  for (const Tile& tile : plan_.tiles) {
    const Table& table = plan_.tables[tile.table];
    const int64_t element = bytes_of(plan_.wire), n = static_cast<int64_t>(tile.ranks.size());
    if (n > 1) {
      if (!table.dynamic && tile.held_by(plan_.rank))
        traffic.torchrec_gradient_bytes +=
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
    traffic.torchrec_id_bytes += lookups * (8 + (route.weighted ? 4 : 0)) + 4 * bags;
    traffic.torchrec_reply_bytes += rows * tile.dim() * element;
    traffic.torchrec_gradient_bytes += rows * tile.dim() * element;
  }
}

}  // namespace ff
