// Who lives on a shelf of the pad when there are tiers below it, and who leaves first.
//
// A row is held while a ticket that planned it may still train it: it must not leave. Among the
// others those go first that no foreseen batch needs, in order of their last use, to a sixteenth of
// the shelf: a hand sweeps over the slots and takes who was last used before a limit, and the limit
// comes from an exact count of rows by age (so a victim costs 16 slots looked at, whatever the size
// of the pad).
#pragma once

#include <deque>
#include <vector>

#include "shelf.h"

namespace ff {

struct Resident {
  uint32_t tile;
  uint32_t used;    // number of the last ticket that planned the row; 0: the slot is vacant
  uint64_t key;     // of the row
  uint32_t wanted;  // the last foreseen training batch that needs it
};

class Residents {
 public:
  explicit Residents(Shelf& shelf) : shelf_(&shelf) {}

  Shelf& shelf() const { return *shelf_; }
  Resident& at(uint32_t slot) const { return shelf_->side<Resident>(slot); }

  void enter(uint32_t slot, uint32_t tile, uint64_t key, uint32_t ticket);
  void leave(uint32_t slot);
  // The ticket uses the row.
  void stamp(uint32_t slot, uint32_t ticket) {
    Resident& row = at(slot);
    if (row.used == ticket) return;
    recount(row.used, ticket);
    row.used = ticket;
  }

  // A row that may leave: last used before ticket `held_from`, and not needed after training batch
  // `planned` as long as others can go. NONE if all are held. ask(row) is called some victims
  // before the row's own turn (it may yet be spared).
  template <class Ask>
  uint32_t victim(uint32_t held_from, uint32_t planned, Ask&& ask);
  // Blocks none of whose rows is held, longest out of use first.
  std::vector<uint32_t> idle_blocks(uint32_t held_from) const;

 private:
  static constexpr size_t AHEAD = 16;

  bool may_leave(const Resident& row, uint32_t held_from, uint32_t planned) const {
    return row.used != 0 && row.used <= limit_ && row.used < held_from &&
           (row.wanted <= planned || patience_ == 2);
  }
  uint32_t sweep(uint32_t held_from, uint32_t planned);
  void recount(uint32_t from, uint32_t to);
  uint32_t& count_of(uint32_t ticket);
  bool start_round(uint32_t held_from);
  uint32_t limit_for(size_t rows, uint32_t held_from) const;

  Shelf* shelf_;
  std::vector<uint32_t> ages_;  // rows by last ticket, from first_age_ on
  uint32_t first_age_ = 1;

  uint32_t hand_ = 0;
  uint64_t left_ = 0;          // slots to look at in this round
  uint32_t limit_ = 0;         // rows last used by this ticket or before
  int patience_ = 0;           // rounds without a victim: 1: any age, 2: wanted ones too
  bool found_ = false;         // a victim in this round
  std::deque<uint32_t> next_;  // victims to come
};

template <class Ask>
uint32_t Residents::victim(uint32_t held_from, uint32_t planned, Ask&& ask) {
  for (;;) {
    while (next_.size() < AHEAD) {
      const uint32_t slot = sweep(held_from, planned);
      if (slot == Shelf::NONE) break;
      ask(at(slot));
      next_.push_back(slot);
    }
    if (next_.empty()) return Shelf::NONE;
    const uint32_t slot = next_.front();
    next_.pop_front();
    if (may_leave(at(slot), held_from, planned)) return slot;
  }
}

}  // namespace ff
