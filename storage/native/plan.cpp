#include <algorithm>
#include <bit>
#include <stdexcept>

#include "host_rows.h"
#include "pad.h"
#include "parallel.h"

namespace ff {
namespace {

// The largest blocks that tiles should take: small beside the budget, so that little of it is left
// unused; for dynamic tiles, of which any may stay small, small beside their share of it.
size_t block_limit(size_t budget, size_t parts) {
  return std::clamp(std::bit_floor(budget / (64 * parts) | 1), Pool::SMALLEST, Pool::LARGEST);
}

// How many kinds of rows dynamic tiles have.
size_t dynamic_layouts(const std::vector<TileSpec>& specs) {
  std::vector<RowLayout> known;
  for (const TileSpec& spec : specs) {
    const RowLayout layout = Tile::layout_of(spec);
    const auto same = [&](const RowLayout& other) { return other.same_rows(layout); };
    if (spec.dynamic() && std::none_of(known.begin(), known.end(), same)) known.push_back(layout);
  }
  return std::max<size_t>(1, known.size());
}

}  // namespace

Pad::Pad(std::vector<TileSpec> specs, std::vector<KeyRange> keys, size_t budget, int threads,
         bool huge_pages, const Policy& policy, HostTier* host, Tier* file, const Device* device)
    : threads_(threads), keys_(std::move(keys)), group_space_(huge_pages) {
  const std::string setting =
      host != nullptr || device != nullptr ? "storage.pad_bytes" : "storage.host_bytes";
  if (device != nullptr) {
    slab_ = std::make_unique<DeviceSlab>(*device, budget);
    pool_ = std::make_unique<Pool>(budget, slab_->data(), slab_->meta_shift(), setting);
    rows_ = std::make_unique<DevicePad>(*device, tiles_, threads_);
  } else {
    pool_ = std::make_unique<Pool>(budget, huge_pages, setting);
    rows_ = std::make_unique<HostRows>(tiles_, threads_);
  }
  if (host != nullptr) {
    rows_->follow(host->pool());
    tiers_ = std::make_unique<Tiers>(specs, keys_, *pool_, tiles_, *rows_, *host, file, mutex_,
                                     threads_);
  }
  const size_t limit = block_limit(budget, 1);
  const size_t dynamic_limit =
      std::min(block_limit(budget, dynamic_layouts(specs)), Pool::LARGEST / 2);
  size_t longest = 0;
  for (size_t t = 0; t < specs.size(); ++t) {
    const TileSpec& spec = specs[t];
    longest = std::max(longest, size_t{spec.dim} * bytes_of(spec.dtype));
    plane_.push_back(plane_of(specs, t));
    if (tiers_) {
      tiles_.push_back(std::make_unique<Tile>(spec, *pool_, tiers_->shelf_of(t)));
      continue;
    }
    while (spec.dynamic() && index_.size() <= plane_.back())
      index_.push_back(std::make_unique<Index>(0, huge_pages, [this](size_t bytes) {
        constexpr auto owner = "the index of the dynamic tables";
        if (pool_->charge(bytes, owner, false)) return;
        pool_->shrink_for(bytes);
        pool_->charge(bytes, owner);
      }));
    shelf_of_tile_.push_back(0);
    if (spec.dynamic())
      tiles_.push_back(std::make_unique<Tile>(spec, *pool_, shelf_for(spec, dynamic_limit)));
    else
      tiles_.push_back(std::make_unique<Tile>(spec, *pool_, limit));
  }
  planes_.resize(tiers_ ? tiers_->planes() : index_.size());
  zeros_.resize(longest);
  rows_->open();
  if (!Population::needed(policy, specs)) return;
  population_ = std::make_unique<Population>(policy, tiles_);
  rows_->set_population(population_.get());
  Pool& pool = host != nullptr ? host->pool() : *pool_;
  pool.charge(population_->counter_bytes(), "the counters of admission");
  owners_ = std::make_unique<Owners>(keys_, plane_);
  if (tiers_) {
    tiers_->set_population(population_.get(), owners_.get());
  } else {
    std::vector<const Index*> indexes;
    for (const auto& index : index_) indexes.push_back(index.get());
    sweep_ = std::make_unique<Sweep>(*population_, std::move(indexes));
  }
}

// The shelf that dynamic tiles with such rows share.
Shelf& Pad::shelf_for(const TileSpec& spec, size_t limit) {
  RowLayout layout = Tile::layout_of(spec);
  size_t at = 0;
  while (at < shelves_.size() && !shelves_[at]->layout().same_rows(layout)) ++at;
  shelf_of_tile_.back() = static_cast<uint32_t>(at);
  if (at < shelves_.size()) return *shelves_[at];
  const size_t bytes = std::max(limit, std::bit_ceil(8 * layout.row_bytes()));
  if (!layout.divide(std::clamp(bytes, Pool::SMALLEST, Pool::LARGEST)))
    throw std::invalid_argument(spec.label() + ": a row of " + bytes_text(layout.row_bytes()) +
                                " is larger than a block of " + bytes_text(Pool::LARGEST));
  const uint64_t most =
      std::min<uint64_t>(Shelf::nameable(layout), pool_->budget() / layout.block_bytes + 1);
  shelves_.push_back(std::make_unique<Shelf>(layout, *pool_, "the dynamic tables", most));
  return *shelves_.back();
}

std::unique_ptr<Ticket> Pad::try_plan(const Request& request, bool train) {
  return make_plan(request, train, train);
}

// When the device fails, rows that were given places may never be written: then nothing can be
// planned any more.
std::unique_ptr<Ticket> Pad::make_plan(const Request& request, bool train, bool counts) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (failure_) std::rethrow_exception(failure_);
  if (tiers_) tiers_->check();
  try {
    return plan_ticket(request, train, counts);
  } catch (const DeviceError&) {
    failure_ = std::current_exception();
    throw;
  }
}

std::unique_ptr<Ticket> Pad::plan_ticket(const Request& request, bool train, bool counts) {
  auto ticket = std::make_unique<Ticket>();
  if (!spares_.empty()) {
    *ticket = std::move(spares_.back());
    spares_.pop_back();
  }
  ticket->train = train;
  ticket->released = false;
  ticket->rows = request.num_ids;
  ticket->batch = ticket->reader = 0;  // which a plan that found no room may have left
  read_segments(request, *ticket);
  make_runs(*ticket);
  if (!tiers_) {
    resolve(request, *ticket, counts);
  } else if (!resolve_in_tiers(request, *ticket, counts)) {
    spares_.push_back(std::move(*ticket));
    return nullptr;
  }
  keep_ids(request, *ticket);
  if (ticket->missing > 0) lend_absent(request, *ticket);
  share_replies(*ticket);
  if (train) {
    std::vector<GroupTile> tiles;
    for (const auto& tile : tiles_)
      tiles.push_back({tile->view(), tile->shelf().extent(), tile->spec().dtype != Dtype::fp32});
    group_rows(*ticket, tiles, group_space_, threads_);
    share_updates(*ticket);
  }
  rows_->prepare(*ticket);
  return ticket;
}

void Pad::wait_for_room(double seconds) {
  if (tiers_) tiers_->wait_for_room(seconds);
}

void Pad::set_window(uint32_t batches) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (population_) population_->set_window(batches);
}

void Pad::foresee(const Request& request) {
  if (!tiers_) return;
  std::lock_guard<std::mutex> lock(mutex_);
  Ticket shape;
  read_segments(request, shape);
  make_runs(shape);
  look_up(shape.runs, request.ids);
  tiers_->foresee(planes_);
}

void Pad::forget_foreseen() {
  if (!tiers_) return;
  std::lock_guard<std::mutex> lock(mutex_);
  tiers_->forget_foreseen();
}

void Pad::wait(const Ticket& ticket) const {
  if (tiers_) tiers_->wait(ticket);
}

void Pad::close() {
  if (tiers_) tiers_->close();
}

void Pad::gather(const Ticket& ticket, const uint64_t* addresses, size_t segments, Dtype wire,
                 uint64_t stream) {
  check(ticket, segments);
  rows_->gather(ticket, addresses, wire, stream);
}

void Pad::update(Ticket& ticket, const uint64_t* addresses, size_t segments, Dtype wire, float lr,
                 uint64_t step, uint64_t stream) {
  check(ticket, segments);
  if (!ticket.train)
    throw std::invalid_argument("Pad.update: this ticket was planned with train=False");
  rows_->update(ticket, addresses, wire, lr, step, stream);
}

void Pad::release(Ticket& ticket) {
  if (ticket.released) return;
  if (tiers_ && !ticket.train) tiers_->finish(ticket);  // nobody may write to what it lent
  std::lock_guard<std::mutex> lock(mutex_);
  if (tiers_) tiers_->release(ticket);
  if (population_) end_use(ticket);
  spares_.push_back(std::move(ticket));
  ticket = Ticket{};
  ticket.released = true;
}

// That a ticket can be worked with; its rows are there afterwards.
void Pad::check(const Ticket& ticket, size_t segments) const {
  wait(ticket);
  if (ticket.released) throw std::invalid_argument("Pad: this ticket has been released");
  if (segments != ticket.segments.size())
    throw std::invalid_argument("Pad: " + std::to_string(segments) + " addresses for " +
                                std::to_string(ticket.segments.size()) + " segments");
}

}  // namespace ff
