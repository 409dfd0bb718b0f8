// The host tier: records in memory, under a budget, and the write-back buffer of the file tier.
//
// A row lives here after it left the pad and until it is needed again or dropped. With a file tier
// below, rows are written to it in the order in which they came, and those whose write is done are
// dropped in that order when room is needed. Without one, a full host tier is a BudgetError.
//
// Not thread-safe: the pad holds its mutex for all of this. But memory of records is touched by
// nobody here: admit() and take() only say where a record will lie or lies.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "index.h"
#include "pool.h"
#include "prefetch.h"
#include "shelf.h"
#include "tier.h"

namespace ff {

class HostTier final : public Tier {
 public:
  static constexpr uint32_t NONE = Shelf::NONE;

  // Throws BudgetError when not even the bookkeeping fits.
  HostTier(std::vector<TileSpec> specs, std::vector<KeyRange> keys, size_t budget, bool huge_pages);

  void read(const RowRef* rows, size_t n, bool* found) override;
  void write(const RowRef* rows, size_t n) override;
  size_t erase(const RowRef* rows, size_t n) override;
  bool contains(uint32_t tile, uint64_t key) const override { return find(tile, key) != NONE; }
  std::vector<uint64_t> keys(size_t tile) const override;
  size_t rows(size_t tile) const override { return counts_[tile]; }
  size_t bytes() const override { return pool_.held(); }

  size_t record_bytes(size_t tile) const { return record_bytes_[tile]; }
  const KeyRange& range(size_t tile) const { return keys_[tile]; }
  const TileSpec& spec(size_t tile) const { return specs_[tile]; }
  size_t num_tiles() const { return specs_.size(); }
  // What a row takes of the budget, besides what is set aside.
  size_t cost(size_t tile) const { return cost_[shelf_of_[tile]]; }
  Pool& pool() { return pool_; }

  uint32_t find(uint32_t tile, uint64_t key) const;
  // slots[i] = slot of keys[i], or NONE; the keys are of tiles in this plane (tile.h). Those that
  // are here are forgotten: until their rows are taken too, or the keys come back, nobody else
  // finds them.
  void forget(size_t plane, const uint64_t* keys, uint32_t* slots, size_t n) {
    index_[plane]->erase(keys, n, slots);
  }
  // From now on these keys, which are not, are at the slots.
  void remember(size_t plane, const uint64_t* keys, const uint32_t* slots, size_t n) {
    index_[plane]->enter(keys, slots, n);
  }
  // Whether the row whose key was at the slot is still there.
  bool holds(uint32_t tile, uint64_t key, uint32_t slot) const {
    const Row& row = this->row(tile, slot);
    return row.key == key && row.tile() == tile && row.state() != VACANT;
  }
  // Asks for the memory that holds() and take() of the row at the slot will look at.
  FF_INLINE void ask(uint32_t tile, uint32_t slot) const {
    __builtin_prefetch(&row(tile, slot), 1);
  }
  char* record(uint32_t tile, uint32_t slot) const { return shelf(tile).view().weights(slot); }
  // slots[i] = a slot for the row keys[i] of tile_of(i). The rows are not here, their records
  // arrive with fetch `stamp`, and their keys are to be remembered. When room is out: drops rows
  // that are written, then slots are NONE from here on if rows wait to be written, else
  // BudgetError.
  template <class TileOf>
  void admit(const uint64_t* keys, uint32_t* slots, size_t n, uint32_t stamp, TileOf&& tile_of);
  // The row, whose key is forgotten, is no longer here, but for its slot, which is given back when
  // nobody will read it any more. Returns whether the file tier has it too.
  bool take(uint32_t tile, uint32_t slot);
  void give(uint32_t tile, uint32_t slot) { shelf(tile).give(slot); }

  // Whether a block of rows of every size fits beside what is held.
  bool has_room() const;

  // Rows that wait to be written, in order of arrival.
  struct Waiting {
    uint32_t tile, slot;
    uint64_t key;
    uint32_t stamp;
  };
  // From now on rows wait to be written to a file tier.
  void write_behind() { write_behind_ = true; }
  // Whether rows should be written now: somebody found no room, or rows that wait take so much of
  // the budget that soon somebody might.
  bool should_write() const;
  // Up to `most` rows whose records have arrived by `stamp`, oldest first; begins their write.
  void begin_write(size_t most, uint32_t stamp, std::vector<Waiting>& rows);
  // The write is done: true if the row is still the one that was written (and may be dropped now).
  bool end_write(const Waiting& row);

  // Sets memory aside for what the file tier will take; if need be, and if nothing is being moved
  // (`settled`), that of blocks without rows, and begins to empty some. False if it could not.
  bool reserve(size_t bytes, bool settled);
  // Counts memory that the file tier takes, from what is set aside first, or gives back.
  // Thread-safe. Throws BudgetError.
  void charge(ptrdiff_t bytes);

 private:
  static constexpr size_t AHEAD = 32;  // slots whose lines are asked for

  enum State : uint32_t { VACANT = 0, DIRTY = 1, WRITING = 2, CLEAN = 3 };
  struct Arrival {
    uint32_t shelf, slot, stamp;
  };
  struct Row {  // beside each slot
    uint64_t key;
    uint32_t stamp;  // of its fetch, which no other row has had in this slot
    uint32_t tile_state;

    uint32_t tile() const { return tile_state >> 2; }
    State state() const { return static_cast<State>(tile_state & 3); }
    void set(State state) { tile_state = (tile_state & ~3u) | state; }
    bool is(const Arrival& arrival) const { return state() != VACANT && stamp == arrival.stamp; }
  };

  Shelf& shelf(uint32_t tile) const { return *shelves_[shelf_of_[tile]]; }
  Row& row(uint32_t tile, uint32_t slot) const { return shelf(tile).side<Row>()[slot]; }
  Index& index(uint32_t tile) const { return *index_[plane_[tile]]; }
  uint32_t admit(uint32_t tile, uint64_t key, uint32_t stamp);
  void empty_out(size_t bytes);
  void begin_row(uint32_t slot, Row& row, std::vector<Waiting>& rows);
  size_t total() const;
  bool drop_oldest();
  void forget_stale();
  void remove(uint32_t tile, uint32_t slot);

  std::vector<TileSpec> specs_;
  std::vector<KeyRange> keys_;
  std::vector<uint32_t> plane_, shelf_of_, record_bytes_;
  Pool pool_;
  std::vector<std::unique_ptr<Shelf>> shelves_;  // by record size
  std::vector<size_t> cost_;                     // by shelf: what a row takes of the budget
  std::vector<std::unique_ptr<Index>> index_;    // by plane
  double left_ = 1;                              // share of the budget for blocks
  std::vector<size_t> counts_;                   // rows of each tile
  bool write_behind_ = false;
  std::deque<Arrival> arrivals_;  // all rows, oldest first, and some that have gone
  size_t begun_ = 0;              // of these, from the front, whose write has begun or is done
  size_t waiting_ = 0;            // rows that are dirty
  size_t writing_ = 0;            // rows whose write has begun and not ended
  size_t waiting_bytes_ = 0;      // of the budget, that they take
  bool pressed_ = false;          // admit() found no room
  std::deque<std::pair<uint32_t, uint32_t>> urgent_;  // shelf, slot: of blocks being emptied
  std::mutex reserve_mutex_;
  size_t reserve_ = 0;
};

template <class TileOf>
void HostTier::admit(const uint64_t* keys, uint32_t* slots, size_t n, uint32_t stamp,
                     TileOf&& tile_of) {
  std::fill_n(slots, n, NONE);
  for (size_t i = 0; i < n; ++i) {
    const uint32_t tile = tile_of(i);
    if (const uint32_t next = shelf(tile).next(AHEAD); next != NONE) ask(tile, next);
    if ((slots[i] = admit(tile, keys[i], stamp)) == NONE) return;
  }
}

}  // namespace ff
