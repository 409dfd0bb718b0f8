#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "parallel.h"
#include "route.h"
#include "table_route.h"
#include "tasks.h"

namespace ff {
namespace {

constexpr size_t kChunksOfThread = 4;   // so that all end together
constexpr size_t kBagsOfThread = 8192;  // fewer are not worth another thread

void check_credits(const float* credits, int64_t batch) {
  for (int64_t b = 0; b < batch; ++b)
    if (!(credits[b] >= 0.0f && credits[b] <= std::numeric_limits<float>::max()))
      throw BadBatch{"credits: sample " + std::to_string(b) + " has " + std::to_string(credits[b]) +
                     "; expected finite numbers of at least 0"};
}

}  // namespace

Router::Router(Plan plan) : plan_(std::move(plan)), scratch_(std::max(1, plan_.threads)) {
  for (const Table& table : plan_.tables) builders_.push_back(TableBuilder::make(plan_, table));
  single_.resize(plan_.features.size());
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

Router::~Router() = default;

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
  Bags bags{ids, offsets, weights, batch, credits, nullptr, single_.data()};
  check_bags(bags, num_ids);
  if (plan_.credited) {
    spread_credits(bags);
    bags.lookup_credits = credits_.data();
  }
  const std::shared_ptr<Route> route = acquire();
  route->batch = batch;
  route->live = live;
  route->weighted = weights != nullptr;
  build_tables(*route, bags);
  write_header(*route, false);
  write_messages(*route);
  count_traffic(*route);
  return route;
}

// Finds, too, which features have one id in every bag.
void Router::check_bags(const Bags& bags, size_t num_ids) {
  const size_t features = plan_.features.size(), batch = static_cast<size_t>(bags.batch);
  const size_t n = features * batch;
  if (num_ids > INT32_MAX || n > INT32_MAX)
    throw BadBatch{"a batch of " + std::to_string(num_ids) + " ids in " + std::to_string(n) +
                   " bags on one rank: at most 2**31 - 1 of each are supported; use a smaller "
                   "batch or more dense ranks"};
  std::atomic<bool> falls{false};
  parallel_for(plan_.threads, features, kBagsOfThread / (batch + 1) + 1,
               [&](size_t begin, size_t end, int) {
                 for (size_t f = begin; f < end; ++f) {
                   const int64_t* const offsets = bags.of(static_cast<uint32_t>(f));
                   bool bad = false, single = true;
                   for (size_t b = 0; b < batch; ++b) {
                     bad |= offsets[b] > offsets[b + 1];
                     single &= offsets[b] + 1 == offsets[b + 1];
                   }
                   single_[f] = single;
                   if (bad) falls = true;
                 }
               });
  if (falls || bags.offsets[0] != 0 || bags.offsets[n] != static_cast<int64_t>(num_ids))
    throw BadBatch{"offsets must rise from 0 to the number of ids (" + std::to_string(num_ids) +
                   "); they start at " + std::to_string(bags.offsets[0]) + " and end at " +
                   std::to_string(bags.offsets[n]) + (falls ? ", and fall somewhere" : "")};
}

// All tables, stage by stage.
void Router::build_tables(Route& route, const Bags& bags) {
  route.tables.resize(plan_.tables.size());
  const size_t lookups = static_cast<size_t>(bags.offsets[plan_.features.size() * bags.batch]);
  // A table within a thread's share of the batch stays whole: to put chunks together has a price.
  const size_t share = lookups / scratch_.size();
  const size_t chunk = std::max<size_t>(plan_.chunk, share / kChunksOfThread);
  std::vector<TableBuilder*> tables;
  for (size_t t = 0; t < builders_.size(); ++t) {
    builders_[t]->begin(bags, route.tables[t], share, chunk);
    tables.push_back(builders_[t].get());
  }
  std::stable_sort(tables.begin(), tables.end(), [](const auto* a, const auto* b) {
    return a->task_size() > b->task_size();  // long tasks first, so that threads end together
  });
  std::atomic<bool> bad{false};
  for (int stage = 0; stage < TableBuilder::kStages; ++stage) {
    tasks_.clear();
    for (TableBuilder* table : tables)
      for (size_t i = 0; i < table->tasks(stage); ++i) tasks_.push_back({table, i});
    for_tasks(plan_.threads, tasks_.size(), [&](size_t i, int worker) {
      if (!tasks_[i].table->run(stage, tasks_[i].number, scratch_[worker])) bad = true;
    });
    if (bad)
      for (uint32_t f = 0; f < plan_.features.size(); ++f) check_ids(plan_, f, bags);
    for (TableBuilder* table : tables) table->end(stage);
  }
}

// Gives every id the credit of its sample, where bags are not samples or ids travel as they come.
void Router::spread_credits(const Bags& bags) {
  check_credits(bags.credits, bags.batch);
  const size_t batch = static_cast<size_t>(bags.batch);
  const size_t ranges = (batch + kBagsOfThread - 1) / kBagsOfThread;
  credits_.resize(static_cast<size_t>(bags.offsets[plan_.features.size() * batch]));
  for_tasks(plan_.threads, plan_.features.size() * ranges, [&](size_t i, int) {
    const Feature& feature = plan_.features[i / ranges];
    const Table& table = plan_.tables[feature.table];
    if (!table.credited || (!table.pooled && feature.pooling != Pooling::none)) return;
    const int64_t* const offsets = bags.of(static_cast<uint32_t>(i / ranges));
    const size_t begin = i % ranges * kBagsOfThread;
    for (size_t b = begin; b < std::min(batch, begin + kBagsOfThread); ++b)
      std::fill(credits_.data() + offsets[b], credits_.data() + offsets[b + 1], bags.credits[b]);
  });
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
