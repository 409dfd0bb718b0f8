// The rows of the pad when there are tiers below it: who is in, who comes, who leaves for whom.
//
// Everything is decided when a batch is planned, under the pad's mutex; the fetcher then carries it
// out in the order of the plans, while earlier batches train:
//
//   a row that is planned is stamped with its ticket, and held until that ticket is released
//   a row that is missing gets a slot: a free one, or that of a row that is not held
//   a row that leaves goes to the host tier at once; its value is final, for nobody holds it
//   a row that comes is read from the host tier, or else the file tier, or else is born
//
// A row lives in one tier. Only while the host tier waits to drop it is it in the file as well.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "fetch.h"
#include "host_tier.h"
#include "owners.h"
#include "population.h"
#include "request.h"
#include "residents.h"
#include "row_memory.h"
#include "span.h"
#include "sweep.h"
#include "tile.h"
#include "write_back.h"

namespace ff {

// Rows and bytes that plans moved, since the start.
struct Traffic {
  uint64_t pad_hits = 0, host_hits = 0, file_hits = 0, born = 0;  // rows
  uint64_t host_read_bytes = 0, host_written_bytes = 0, file_read_bytes = 0, file_written_bytes = 0;
  int64_t fetch_ns = 0, write_ns = 0;  // of the background threads
};

class Tiers {
 public:
  enum class Room { enough, pad_full, host_full };

  // `guard` is the pad's mutex. `tiles` may be filled later, on the shelves of shelf_of(tile).
  Tiers(const std::vector<TileSpec>& specs, const std::vector<KeyRange>& keys, Pool& pool,
        const TileList& tiles, RowMemory& rows, HostTier& host, Tier* file, std::mutex& guard,
        int threads);
  ~Tiers() { close(); }

  size_t planes() const { return index_.size(); }
  Shelf& shelf_of(size_t tile) { return residents_of(tile).shelf(); }
  // Who may come and go. Before the first plan.
  void set_population(Population* population, const Owners* owners);
  // Bytes that rows which can be reclaimed may have, by their cost in the pad; 0: no limit.
  size_t reclaimable_room() const;

  // Under the guard ------------------------------------------------------------------------------

  // Makes sure that all rows of a training batch have a slot, and starts their fetch. Without room
  // for all, nobody enters; what has left stays out, so that another attempt gets further.
  Room enter(Ticket& ticket, std::vector<Lookups>& planes);
  // Finds the rows of a batch that only reads; those below the pad are copied for the ticket.
  void peek(Ticket& ticket, std::vector<Lookups>& planes);
  // A later training batch needs these rows, in the order in which such batches will be planned.
  void foresee(std::vector<Lookups>& planes);
  // What was foreseen and not planned will not come.
  void forget_foreseen();
  void release(const Ticket& ticket);
  size_t outstanding() const { return outstanding_.size(); }
  // The least budget of the pad that holds the rows of these lookups at once.
  size_t needed_bytes(const std::vector<Lookups>& planes) const;

  // Where a row is; NONE if not in the pad.
  uint32_t find(size_t tile, uint64_t key) const;
  // Rows by key wherever they are, for access.cpp. All fetches must have been carried out.
  void read(const RowRef* rows, size_t n, bool* found);
  size_t erase(const RowRef* rows, size_t n);
  std::vector<uint64_t> keys(size_t tile) const;

  // Without the guard ----------------------------------------------------------------------------

  void wait(const Ticket& ticket) const { fetcher_->wait(ticket.fetch); }
  // Returns when nothing of the ticket's fetch can happen any more, whether it went well or not.
  void finish(const Ticket& ticket) const { fetcher_->finish(ticket.fetch); }
  // Whether the last attempt to enter failed for tickets that are out.
  bool waits_for_release() const { return refused_ == Room::pad_full; }
  // Whether nothing is being moved or written.
  bool settled() const {
    return fetcher_->done() == fetcher_->pushed() && (!write_back_ || write_back_->idle());
  }
  // Without the guard: waits for what is under way.
  void settle();
  void check() const { fetcher_->check(); }
  // Waits, at most so long, for a release or a write that may have made room since the last
  // attempt to enter.
  void wait_for_room(double seconds);
  void close();
  Traffic traffic();
  Spans& spans() { return spans_; }

 private:
  struct NoRoom {
    Room reason;
    size_t shelf;  // that had none
  };
  // A row that the batch being planned lacks, and where it was before others left for it.
  struct Missing {
    uint32_t tile, slot;  // that it gets
    uint64_t key;
    uint32_t host;  // slot in the host tier, or NONE
    bool in_file;   // and not in the host tier. If neither, it is born
    bool refused = false;
  };
  struct Retired {  // a slot that serves again when tickets before this one are released
    uint32_t ticket, shelf, slot;
  };
  // Which of them belong to a plane, and which of its lookups ask for them.
  struct Absent {
    struct Lookup {
      uint32_t at, number;
    };
    size_t begin = 0, end = 0;
    std::vector<Lookup> lookups;
  };

  // Rows of a plane that leave the pad, in this order, and what brings one back that cannot. The
  // pad's index has them until forget_left().
  struct Leaving {
    struct Row {
      uint32_t tile, slot, used, wanted;
    };
    std::vector<Row> rows;
    std::vector<uint64_t> keys;
    std::vector<uint32_t> host;  // slots there
    size_t left = 0;             // of these, from the front, that have left
    void clear() {
      rows.clear();
      keys.clear();
      host.clear();
      left = 0;
    }
  };

  Residents& residents_of(size_t tile) { return residents_[shelf_of_tile_[tile]]; }
  const Residents& residents_of(size_t tile) const { return residents_[shelf_of_tile_[tile]]; }
  Index& index_of(size_t tile) const { return *index_[plane_[tile]]; }
  uint32_t held_from() const { return outstanding_.empty() ? ticket_ : *outstanding_.begin(); }
  // Does what must be done whole: if memory is out, nobody plans or waits any more.
  template <class Change>
  void or_fail(Change&& change) {
    try {
      change();
    } catch (...) {
      fetcher_->fail(std::current_exception());
      throw;
    }
  }
  void find_slots(std::vector<Lookups>& planes, Fetch& fetch);
  void stamp(const Lookups& lookups);
  void collect(const Lookups& lookups, Absent& absent);
  void list_keys(const Absent& absent);
  void locate();
  void insert(std::vector<Lookups>& planes);
  Fetch::Place place(uint32_t tile, uint32_t slot) const;
  void bring_in(Fetch& fetch);
  void bring_in(const Missing& row, Fetch& fetch);
  // tiers_leave.cpp
  void take_slots(Fetch& fetch);
  uint32_t slot_for(uint32_t tile, Fetch& fetch);
  void occupy_slots();
  void let_go(Residents& from, uint32_t slot);
  template <class Choose>
  void evict_after(Choose&& choose, Fetch& fetch);
  void evict(Fetch& fetch);
  void evict(size_t plane, Fetch& fetch);
  void put_back(Leaving& leaving);
  void forget_left();
  void clear_block(size_t shelf, uint32_t block, Fetch& fetch);
  Room give_way(size_t for_shelf, int attempt, Fetch& fetch);
  void undo();
  // tiers_reclaim.cpp
  size_t most_in_pad() const;
  size_t most_below() const;
  void forget_gone(Lookups& lookups, bool erase);
  void bury_in_pad(uint32_t tile, uint64_t key);
  void bury_below(uint32_t tile, uint64_t key, uint32_t host, Meta meta, Fetch& fetch);
  void note_below(uint32_t tile, uint64_t key, Meta meta);
  void forget_below(uint32_t tile, uint64_t key);
  void forget_score(uint32_t tile, uint64_t key, uint32_t slot);
  std::optional<Meta> meta_below(uint32_t tile, uint64_t key) const;
  bool lives_below(uint32_t tile, uint64_t key) const;
  void admit(std::vector<Lookups>& planes, Fetch& fetch);
  void leave_out_refused(std::vector<Lookups>& planes);
  void return_retired();
  bool forget_some(Fetch& fetch);
  std::vector<uint64_t> living_keys(size_t tile) const;
  void sweep_part(size_t index, const Sweep::Seen& seen, Fetch& fetch);

  void want_later(uint32_t tile, uint64_t key, uint32_t batch);
  uint64_t start(Fetch&& fetch);
  void carry_out(Fetch& fetch);
  void read_file(Fetch& fetch);
  void made_room();

  std::vector<KeyRange> keys_;
  std::vector<uint32_t> plane_, shelf_of_tile_;
  const TileList& tiles_;
  RowMemory& rows_;
  HostTier& host_;
  Tier* file_;
  std::mutex& guard_;
  int threads_;
  size_t pad_budget_;
  double left_ = 1;  // share of it for blocks
  std::vector<std::unique_ptr<Shelf>> shelves_;
  std::vector<Residents> residents_;
  std::vector<std::unique_ptr<Index>> index_;  // of the pad, by plane

  uint32_t ticket_ = 1;                  // number of the ticket being planned
  std::set<uint32_t> outstanding_;       // tickets that are not released
  uint32_t planned_ = 0, foreseen_ = 0;  // training batches
  // The last foreseen batch that needs a row which is not in the pad, by plane.
  std::vector<std::unique_ptr<Index>> later_;

  // Of the plan being made:
  std::vector<Missing> missing_;  // in the order of the request
  size_t located_ = 0;          // of these, from the front, whose keys the host tier has forgotten
  size_t placed_ = 0;           // of these, from the front, that have a slot
  size_t entered_ = 0;          // and live there
  std::vector<Absent> absent_;  // by plane
  std::vector<Leaving> leaving_;  // by plane
  std::vector<uint32_t> places_, numbers_;
  std::vector<uint64_t> keys_of_missing_;
  std::vector<uint32_t> slots_of_missing_;
  bool no_blocks_ = false;                            // the pool had none
  std::vector<std::pair<uint32_t, uint32_t>> freed_;  // host slots to give back after it

  Population* population_ = nullptr;  // none: all ids get rows, which stay
  const Owners* owners_ = nullptr;
  std::vector<std::unique_ptr<Index>> below_;  // time and score of rows below the pad, by plane
  size_t most_rows_ = 0;                       // that can go and fit all tiers; 0: no limit
  std::unique_ptr<Sweep> sweep_;               // over the pad's indexes, then below_
  std::deque<Retired> retired_;

  Room refused_ = Room::enough;
  std::condition_variable room_;
  uint64_t room_events_ = 0, room_seen_ = 0;
  Traffic traffic_;
  std::atomic<int64_t> fetch_ns_{0};
  Spans spans_;
  std::vector<char> staging_;  // records from the file, of the fetch being carried out
  std::unique_ptr<Fetcher> fetcher_;
  std::unique_ptr<WriteBack> write_back_;
};

}  // namespace ff
