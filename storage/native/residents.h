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
  uint64_t key;
  uint32_t tile;
};

class Residents {
 public:
  // What a shelf keeps per slot for this: who is there, and apart from that, so that stamping and
  // sweeping touch few lines, its next use and last use.
  static constexpr size_t SIDE_BYTES = sizeof(Resident) + sizeof(uint32_t) + sizeof(uint16_t);

  explicit Residents(Shelf& shelf)
      : shelf_(&shelf),
        who_(shelf.side<Resident>()),
        wanted_(shelf.side<uint32_t>(sizeof(Resident))),
        used_(shelf.side<uint16_t>(sizeof(Resident) + sizeof(uint32_t))) {}

  Shelf& shelf() const { return *shelf_; }
  const Resident& at(uint32_t slot) const { return who_[slot]; }
  bool vacant(uint32_t slot) const { return used_[slot] == 0; }
  // The last ticket that planned the row; for one that was long ago, one of long ago.
  uint32_t used(uint32_t slot) const { return used_[slot] == 0 ? 0 : base_ + used_[slot]; }
  // The last foreseen training batch that needs the row.
  uint32_t& wanted(uint32_t slot) const { return wanted_[slot]; }

  void enter(uint32_t slot, uint32_t tile, uint64_t key, uint32_t ticket);
  void leave(uint32_t slot);
  // The ticket uses the rows at slots (n,); NONE is passed over. Tickets before `held_from` are
  // released.
  void stamp(const uint32_t* slots, size_t n, uint32_t ticket, uint32_t held_from);

  // A row that may leave: last used before ticket `held_from`, and not needed after training batch
  // `planned` as long as others can go. NONE if all are held.
  uint32_t victim(uint32_t held_from, uint32_t planned);
  // Blocks none of whose rows is held, longest out of use first.
  std::vector<uint32_t> idle_blocks(uint32_t held_from) const;

 private:
  static constexpr size_t AHEAD = 16;  // victims known before their turn

  bool may_leave(uint32_t slot, uint32_t held_from, uint32_t planned) const {
    const uint32_t used = this->used(slot);
    return used != 0 && used <= limit_ && used < held_from &&
           (wanted_[slot] <= planned || patience_ == 2);
  }
  uint32_t first_used_by(uint32_t latest, uint32_t begin, uint32_t end) const;
  uint32_t sweep(uint32_t held_from, uint32_t planned);
  uint32_t& count_of(uint32_t ticket);
  void rebase(uint32_t ticket, uint32_t held_from);
  bool start_round(uint32_t held_from);
  uint32_t limit_for(size_t rows, uint32_t held_from) const;

  Shelf* shelf_;
  Resident* who_;  // beside each slot
  uint32_t* wanted_;
  uint16_t* used_;  // the last ticket that planned the row, from base_ on; 0: the slot is vacant
  uint32_t base_ = 0;
  std::vector<uint32_t> ages_;  // rows by last ticket, from first_age_ on
  uint32_t first_age_ = 1;

  uint32_t hand_ = 0;
  uint64_t left_ = 0;          // slots to look at in this round
  uint32_t limit_ = 0;         // rows last used by this ticket or before
  int patience_ = 0;           // rounds without a victim: 1: any age, 2: wanted ones too
  bool found_ = false;         // a victim in this round
  std::deque<uint32_t> next_;  // victims to come
};

}  // namespace ff
