// Which ids get a row, and which rows may be forgotten: admission and reclamation after Kraken
// (Xie et al., SC'20, sec. III).
//
// Everything is decided when a training batch is planned, in the order of the batches, from what is
// known at that moment whatever the timing: so the same job forgets the same rows. Scores change
// when a batch trains; what it changed is taken into account a fixed number of batches later, when
// it must have trained. Rows that a batch in between named are in the window and stay.
//
// What a batch did may be known only after its update has begun, on a GPU. Then it is asked for
// when it counts, or when one of its rows is to leave the pad, by whoever plans.
//
// Under the pad's mutex, except touch().
#pragma once

#include <map>
#include <set>
#include <vector>

#include "admission.h"
#include "clock.h"
#include "reclaimer.h"
#include "request.h"
#include "tile.h"
#include "window.h"

namespace ff {

// What a rank's rows may take, and how those that go are chosen. 0: no limit.
struct Policy {
  bool reclaims = false;
  Ranking ranking = Ranking::score;
  bool gradients = false;  // scores count norms of gradients, not samples
  double decay = 0;        // share of its score that a row loses per interval
  uint32_t interval = 1;   // training batches
  uint64_t max_rows = 0;   // of tables that can be reclaimed
  uint64_t max_bytes = 0;  // of those rows
  double share = 1;        // of the memory that they can have
  double free = 0.1;       // of the limit, taken back at a time
  size_t admission_bytes = 0;
};

// What a batch does to rows, where that is known later. Asked once, after the update of the batch
// has begun, and in the order of the batches.
class LateTouches {
 public:
  virtual ~LateTouches() = default;
  virtual std::vector<Touch> take() = 0;
};

class Population {
 public:
  static constexpr uint32_t REFUSED = Tile::NONE - 1;  // in place of a slot

  // What became of a tile's ids, since the start.
  struct Counts {
    uint64_t admitted = 0, refused = 0;   // ids without a row that got one; that did not
    uint64_t expired = 0, reclaimed = 0;  // rows past their time to live; others that were let go
  };

  // Whether any id can be refused or any row forgotten.
  static bool needed(const Policy& policy, const std::vector<TileSpec>& specs);
  Population(const Policy& policy, const std::vector<std::unique_ptr<Tile>>& tiles);

  // Whether rows of the tile can be reclaimed: then their metadata is kept.
  bool reclaims(size_t tile) const { return class_of_[tile] != NO_CLASS; }
  // Whether its ids can be refused.
  bool filters(size_t tile) const { return filters_[tile]; }
  bool by_gradient() const { return policy_.gradients; }
  bool by_credit() const { return policy_.ranking == Ranking::score && !policy_.gradients; }
  // What a row takes: its part of a block.
  size_t cost(size_t tile) const { return cost_[tile]; }
  size_t counter_bytes() const { return admission_.bytes(); }
  // The budget of rows, 0 without one.
  size_t most_rows() const { return policy_.max_rows; }
  // Rows that can be reclaimed and live, and what they take.
  size_t rows() const;
  size_t bytes() const { return static_cast<size_t>(reclaimer_.bytes()); }

  // So many batches may be planned and not released, the one being planned too.
  void set_window(uint32_t batches) { batches_ = batches; }
  // A training batch is being planned, which names `keys` keys. `room`: bytes that rows which can
  // be reclaimed may have by now, 0 without limit. May condemn rows.
  void begin_batch(Ticket& ticket, size_t keys, size_t room);
  // The batch is released, or could not be planned.
  void end_batch(Ticket& ticket);
  // Metadata of rows is what released batches have made of it. May wait for a GPU.
  void settle() { settle(~uint32_t{0}); }
  // The same for a row that was used last by this ticket (Ticket::number).
  void settle_row(uint32_t used) {
    if (used >= first_late_) settle();
  }
  // Condemns rows of so many bytes (fewer if there are no more); says how many.
  size_t condemn(size_t bytes);
  // Whether rows may be there that are gone and that no sweep has seen.
  bool clean() const { return reclaimer_.clean(); }
  void sweep_began() { reclaimer_.sweep_began(); }
  void sweep_ended() { reclaimer_.sweep_ended(); }
  // How many of the index's entries a sweep should look at now so that it ends in time.
  // `first`: of those since rows were condemned.
  size_t share_of_sweep(size_t entries, bool first) const;
  // How often rows have been condemned.
  uint64_t condemnations() const { return condemnations_; }

  // Whether a row counts as gone. Its metadata may be that of anybody while it is in the window.
  bool gone(size_t tile, uint64_t key, Meta meta) const {
    return reclaimer_.dead(class_of_[tile], meta) && !window_.holds(key, since_);
  }
  // The same, soon answered; a row that is gone may yet seem to be needed.
  bool surely_gone(size_t tile, uint64_t key, Meta meta) const {
    return reclaimer_.dead(class_of_[tile], meta) && !seems_needed(key);
  }
  bool seems_needed(uint64_t key) const { return window_.seems_to_hold(key, since_); }
  // Rows of a part of a batch that are gone: they have no slot any more. Adds their keys, of which
  // some may come twice.
  void find_gone(Lookups& lookups, const Lookups::Part& part, const RowView& view,
                 std::vector<uint64_t>& keys) const;
  // The batch names these keys; a batch that cannot be planned names none.
  void enter_window(const Array<uint64_t>& keys) { window_.enter(keys); }
  FF_INLINE void ask_admission(size_t tile, uint64_t key) const {
    admission_.ask(static_cast<uint32_t>(tile), key);
  }
  bool admit(size_t tile, uint64_t key, uint32_t sightings);
  // The same, for a batch whose planning is tried again: asks once.
  bool admit_once(size_t tile, uint64_t key, uint32_t sightings);
  uint16_t now() const { return clock_.now(); }

  // A row is born; one that is gone is taken away; the user erases one, or writes one.
  void bear(size_t tile);
  void bury(size_t tile, Meta meta);
  void erase(size_t tile, Meta meta);
  Meta write(size_t tile, Meta before, Meta after);

  // Without the mutex: the batch trained the rows of a share of a run. norms: of their gradients,
  // if those are what counts.
  void touch(const Ticket& ticket, const Share& piece, const RowView& view, const float* norms,
             std::vector<Touch>& touches) const;
  // A row that a batch trained, which was planned at `tick`.
  Touch touch(uint16_t tick, uint32_t tile, Meta& meta, float credit) const;

  const Counts& counts(size_t tile) const { return counts_[tile]; }

 private:
  static constexpr uint32_t NO_CLASS = ~uint32_t{0};
  using Touches = std::vector<std::vector<Touch>>;
  struct Trained {
    Touches touches;
    std::shared_ptr<LateTouches> late;  // none, or no more
  };

  std::vector<RowClass> sort_into_classes(const std::vector<std::unique_ptr<Tile>>& tiles);
  void settle(uint32_t before);
  void fold(uint32_t before);
  void fold(const Touches& touches);
  size_t excess(size_t room) const;

  Policy policy_;
  std::vector<uint32_t> class_of_;  // by tile
  std::vector<RowClass> classes_;
  std::vector<size_t> cost_;  // by tile
  std::vector<bool> filters_;
  Decay decay_;
  Clock clock_;
  Reclaimer reclaimer_;
  Admission admission_;
  Window window_;

  uint32_t batches_ = 1;                 // in the window
  uint32_t batch_ = 0;                   // number of the last training batch
  uint32_t since_ = 1;                   // batches from here on are in the window
  std::set<uint32_t> outstanding_;       // batches planned and not released
  std::map<uint32_t, Trained> trained_;  // batches released, and what they did to their rows
  uint32_t first_late_ = ~uint32_t{0};   // the first ticket of those with late touches
  size_t born_since_tick_ = 0;           // bytes
  size_t born_ = 0, born_before_ = 0;    // bytes, of this batch and the one before
  size_t condemned_ = 0;                 // bytes, the last time
  uint64_t condemnations_ = 0;
  std::vector<Counts> counts_;
  std::map<std::pair<size_t, uint64_t>, bool> asked_;  // of this batch: tile, key; what was said
};

}  // namespace ff
