// The pad: the rows that a rank trains, planned ahead, gathered and updated in place. All rows of
// the rank, or with tiers below those that planned batches need, and as many more as fit.
//
//   plan     one thread at a time (a mutex): finds or creates rows, groups gradients by row
//   wait     until the rows of a ticket are there (the other calls do so too)
//   gather   reads rows of a ticket         both touch the rows of their ticket only, never the
//   update   changes rows of a ticket       index; they may run while other tickets are planned
//
// The caller orders gather and update of tickets that share rows. Results do not depend on the
// number of threads.
#pragma once

#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "device_pad.h"
#include "group.h"
#include "index.h"
#include "owners.h"
#include "population.h"
#include "request.h"
#include "row_memory.h"
#include "sweep.h"
#include "tiers.h"
#include "tile.h"

namespace ff {

class Pad {
 public:
  // `keys` gives the key range of each tile (unused by static ones). Throws BudgetError when the
  // budget cannot hold even the bookkeeping.
  // With a host tier the pad is a window on it and, if there is one, on the file tier; both must
  // have been made for the same specs and keys, outlive the pad, and be left to it alone.
  // `policy` says which ids get rows and which rows may be forgotten.
  // With a device, which must outlive it, rows lie in the memory of that GPU; the budget is taken
  // at once.
  Pad(std::vector<TileSpec> specs, std::vector<KeyRange> keys, size_t budget, int threads,
      bool huge_pages, const Policy& policy, HostTier* host = nullptr, Tier* file = nullptr,
      const Device* device = nullptr);

  // Null when there is no room until a ticket is released or rows are written back: then wait for
  // that and try again. BudgetError if the batch is too large for the pad.
  std::unique_ptr<Ticket> try_plan(const Request& request, bool train);
  // The same for callers with nothing else to wait for: BudgetError if tickets hold the room.
  std::unique_ptr<Ticket> plan(const Request& request, bool train);
  void wait_for_room(double seconds);
  // Training batches that may be planned and not released, the one being planned too. Rows that the
  // last so many batches named are not forgotten.
  void set_window(uint32_t batches);
  // A training batch that will be planned later, in this order.
  void foresee(const Request& request);
  void forget_foreseen();
  void wait(const Ticket& ticket) const;
  // addresses (S,): where the reply rows of each segment go; ignored where no reply is wanted.
  // On a GPU, addresses are of its memory, and this and update() are enqueued on `stream`.
  void gather(const Ticket& ticket, const uint64_t* addresses, size_t segments, Dtype wire,
              uint64_t stream = 0);
  // addresses (S,): where the gradient rows of each segment lie, one per reply row.
  // `step` counts from 1.
  void update(Ticket& ticket, const uint64_t* addresses, size_t segments, Dtype wire, float lr,
              uint64_t step, uint64_t stream = 0);
  void release(Ticket& ticket);

  size_t num_tiles() const { return tiles_.size(); }
  size_t tile_rows(size_t tile) const;
  size_t tile_bytes(size_t tile) const;
  Population::Counts tile_counts(size_t tile) const;
  const Pool& pool() const { return *pool_; }
  Tiers* tiers() { return tiers_.get(); }
  RowMemory& rows() const { return *rows_; }
  // Ends the threads that move rows. Nothing can be planned afterwards.
  void close();
  int threads() const { return threads_; }

  // Rows by id (access.cpp). A record is a row without gaps: weights, element state, row state,
  // time and score. Ids are those of the table, and must belong to the tile.
  size_t record_bytes(size_t tile) const;
  // records (n, record_bytes); a row that does not exist is read as it would be born. found (n,).
  void read(size_t tile, const int64_t* ids, size_t n, char* records, bool* found) const;
  // Throws BudgetError where the rows do not fit the pad together.
  void write(size_t tile, const int64_t* ids, size_t n, const char* records);
  // Returns how many rows there were.
  size_t erase(size_t tile, const int64_t* ids, size_t n);
  // Ids of all rows of a tile, in the order in which they lie in memory.
  std::vector<int64_t> ids(size_t tile) const;

 private:
  struct Retired {  // a slot that serves again when readers planned by then are released
    uint32_t reader, tile, slot;
  };

  void read_segments(const Request& request, Ticket& ticket) const;
  void read_lengths(const Request& request, Ticket& ticket) const;
  void make_runs(Ticket& ticket) const;
  // `counts`: whether this is a training batch, and not rows that are written by id.
  std::unique_ptr<Ticket> plan(const Request& request, bool train, bool counts);
  std::unique_ptr<Ticket> make_plan(const Request& request, bool train, bool counts);
  std::unique_ptr<Ticket> plan_ticket(const Request& request, bool train, bool counts);
  void resolve(const Request& request, Ticket& ticket, bool counts);
  bool resolve_in_tiers(const Request& request, Ticket& ticket, bool counts);
  void begin_resolving(Ticket& ticket);
  std::vector<std::vector<uint32_t>>& begin_leaving(const WorkShares& shares);
  void look_up(std::vector<Run>& runs, const int64_t* ids);
  void copy_slots(Ticket& ticket);
  [[noreturn]] void refuse_batch(const std::vector<Lookups>& planes) const;
  void resolve_static(const Request& request, Ticket& ticket);
  void place_static(uint32_t tile, const Share& share, const int64_t* positions, Ticket& ticket,
                    std::vector<uint32_t>& left) const;
  void bear_static(uint32_t tile, uint64_t position, uint32_t slot);
  void resolve_population(const Request& request, Ticket& ticket, bool counts);
  void resolve_dynamic(const Request& request, Ticket& ticket);
  void place_dynamic(uint32_t tile, const Share& share, const int64_t* ids, Ticket& ticket,
                     std::vector<uint32_t>& left) const;
  void insert_left(size_t plane, const Request& request, Ticket& ticket);
  template <class Work>
  void each_left(const Ticket& ticket, Work&& work) const;
  void leave_absent(Ticket& ticket);
  uint32_t new_slot(uint32_t tile, uint64_t key);
  void conceive(uint32_t tile, uint32_t slot, uint64_t id);
  void bear_newborns();
  void lend_absent(const Request& request, Ticket& ticket) const;

  // reclaim.cpp
  void populate(Ticket& ticket, bool counts);
  void begin_batch(Ticket& ticket);
  void forget_gone(size_t plane, Lookups& lookups, bool erase);
  void admit(Lookups& lookups);
  void bury(size_t plane, uint32_t tile, uint64_t key);
  void retire(uint32_t tile, uint64_t key, uint32_t slot);
  void end_use(Ticket& ticket);
  size_t reclaimable_room() const;
  std::vector<size_t> rows_wanted() const;
  size_t bytes_lacking(const std::vector<size_t>& rows, size_t times) const;
  void make_room();
  bool empty_blocks(size_t bytes, const std::vector<size_t>& rows, size_t times);
  void sweep_part(size_t plane, const Sweep::Seen& seen);
  void sweep_row(size_t plane, uint32_t tile, uint64_t key, uint32_t slot);
  void move(size_t plane, uint32_t tile, uint64_t key, uint32_t slot);

  void keep_ids(const Request& request, Ticket& ticket) const;
  void share_replies(Ticket& ticket) const;
  void share_updates(Ticket& ticket) const;
  void check(const Ticket& ticket, size_t segments) const;
  Shelf& shelf_for(const TileSpec& spec, size_t limit);
  [[noreturn]] void refuse_id(size_t tile, int64_t id) const;
  std::unique_lock<std::mutex> settled() const;
  void write_rows(size_t t, const Ticket& ticket, const char* records);
  std::vector<RowRef> refs(size_t tile, const std::vector<int64_t>& positions, char* records) const;
  std::vector<int64_t> positions(size_t tile, const int64_t* ids, size_t n) const;
  bool record_is_gone(size_t tile, int64_t position, const char* record) const;
  void find(size_t tile, const std::vector<int64_t>& positions, uint32_t* slots) const;
  Fetch::Place place(uint32_t tile, uint32_t slot) const;

  int threads_;
  std::unique_ptr<DeviceSlab> slab_;  // none: rows are in memory of the host
  std::unique_ptr<Pool> pool_;
  std::vector<std::unique_ptr<Shelf>> shelves_;  // of dynamic tiles, by layout
  std::vector<uint32_t> shelf_of_tile_;
  TileList tiles_;
  std::unique_ptr<RowMemory> rows_;  // who touches rows
  std::vector<KeyRange> keys_;
  std::vector<char> zeros_;
  // Dynamic rows. Tiles of the same table have an index each, because they share its keys: the
  // first of each table is in plane 0, the second (other columns or bucket) in plane 1.
  std::vector<uint32_t> plane_;
  std::vector<std::unique_ptr<Index>> index_;

  mutable std::mutex mutex_;  // everything below, the index and the bookkeeping of tiles
  std::vector<Fetch::Birth> newborns_;
  std::vector<Lookups> planes_;
  std::vector<std::vector<uint32_t>> left_;  // by worker: ids that a pass has left to the next
  std::vector<uint32_t> absent_;             // ids of the request that have no row
  GroupSpace group_space_;
  std::vector<Ticket> spares_;

  std::unique_ptr<Population> population_;  // none: all ids get rows, which stay
  std::unique_ptr<Owners> owners_;
  std::exception_ptr failure_;  // of the device, in the middle of a plan
  uint32_t begun_ = 0;          // number of a batch that has begun and found no room yet
  std::unique_ptr<Sweep> sweep_;
  std::vector<std::pair<uint64_t, size_t>>
      unknown_;                 // keys without a row, and where the batch has them
  std::set<uint32_t> readers_;  // tickets that only read, not released
  uint32_t last_reader_ = 0;
  Window read_;  // what they have named
  std::deque<Retired> retired_;

  std::unique_ptr<Tiers> tiers_;  // none: all rows are here. Its threads end before the rest does
};

}  // namespace ff
