// Which rows of a rank die when memory is short. It knows rows by number only: how many, and how
// many bytes, of every class, tick and bin of score. From these counts it raises bars:
//
//   a row of class c with metadata (time t, score s) is dead if score_bin(s) < bar[c][t]
//
// So condemning any number of rows touches none of them. A dead row counts as absent at once; its
// memory is taken back by whoever comes by (a sweep over all rows, the pad's).
//
// Order of dying (Kraken, Xie et al., SC'20, sec. III, first expires and then evicts by score):
// rows past their class's time to live; then those of classes that die by score, lowest rank first
// and among equals the longest unseen. Ranks: the decayed score (score.h); or the time alone; or,
// after AdaEmbed (Lai et al., OSDI'23), the decayed score in units of the 95th percentile of its
// class, so that tables with large and small gradients can be compared.
//
// Names of ticks repeat (clock.h). Rows not seen for LIFETIME ticks are condemned whatever their
// class says, unless it is protected (neither by score nor by time); until their name returns the
// pad has 8192 ticks to sweep them. sweep_due() tells it when. Bars of a name fall to 0 when it
// returns.
//
// Memory: 576 KiB per class that is not protected, and 1 KiB per class and tick that has live rows:
// at most 57 MiB per class. Not thread-safe; dead() only reads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "clock.h"
#include "rows.h"
#include "score.h"

namespace ff {

struct RowClass {
  uint64_t time_to_live = 0;  // training batches since a row was last seen; 0: for ever
  bool by_score = true;       // whether rows die for their score (low priority)
};

enum class Ranking : uint8_t { score = 0, recency = 1, importance = 2 };

class Reclaimer {
 public:
  static constexpr uint32_t SWEEP_TICKS = 4096;
  // Two whole sweeps fit between the end of a life and the return of its name: the second finds
  // rows that were held during the first.
  static constexpr uint32_t LIFETIME = 65536 - 2 * SWEEP_TICKS - 16;

  // The clock outlives it, and ticks through it alone.
  Reclaimer(Ranking ranking, const Decay& decay, Clock& clock, std::vector<RowClass> classes);
  Reclaimer(const Reclaimer&) = delete;
  Reclaimer& operator=(const Reclaimer&) = delete;

  // A row of `bytes` with this metadata is there, or no longer. Neither counts if it is dead: it
  // was discounted when it was condemned. A row that changes is removed and added.
  void add(uint32_t row_class, Meta meta, size_t bytes) {
    count(row_class, meta, 1, static_cast<int64_t>(bytes));
  }
  void remove(uint32_t row_class, Meta meta, size_t bytes) {
    count(row_class, meta, -1, -static_cast<int64_t>(bytes));
  }
  bool dead(uint32_t row_class, Meta meta) const {
    const Ledger& ledger = ledgers_[row_class];
    return !ledger.bars.empty() && score_bin(meta.score) < ledger.bars[meta.time];
  }
  // Whether rows of this class last seen in tick `time` are past their time to live. It counts from
  // the end of the tick: never early, late by one tick at most.
  bool expired(uint32_t row_class, uint16_t time) const;

  size_t classes() const { return ledgers_.size(); }
  // Of rows that live.
  int64_t bytes() const { return bytes_; }
  int64_t bytes(uint32_t row_class) const { return ledgers_[row_class].bytes; }
  int64_t rows(uint32_t row_class) const { return ledgers_[row_class].rows; }

  // Condemns all rows past their time to live, and if these are less than `bytes`, as many of the
  // lowest rank as are needed, in whole cells (class, tick, bin). Then begins a tick, so that rows
  // seen from now on are younger. Returns the bytes condemned, which may be more than asked for, or
  // less if the others are protected.
  size_t condemn(size_t bytes);
  // Begins a tick. Returns the bytes condemned: rows whose LIFETIME has ended. std::logic_error if
  // sweep_due() was ignored for so long that dead rows could come to life.
  size_t tick();

  // A sweep looks at every row once and takes back those that are dead. When one is due, it has
  // to end (one that is under way, or a whole one) before the next tick.
  void sweep_began();
  void sweep_ended();
  // Whether nobody is dead who has not been swept.
  bool clean() const { return unswept_ == 0; }
  bool sweep_due() const { return unswept_ > 0 && clock_.ticks() - swept_from_ > SWEEP_TICKS; }

  // Memory of the counts and bars.
  size_t memory() const;
  // For tests: whether all counts are possible and agree with each other.
  bool consistent() const;

 private:
  struct Count {
    int64_t bytes = 0, rows = 0;
  };
  struct Cells {  // rows of one class last seen in one tick
    std::array<Count, SCORE_BINS> bin;
    uint64_t used = 0;  // bit per bin that has rows
  };
  struct Ledger {
    RowClass rule;
    int64_t bytes = 0, rows = 0;
    std::vector<uint8_t> bars;                  // (NAMES,); empty if protected
    std::vector<std::unique_ptr<Cells>> cells;  // (NAMES,); null where nobody lives
  };
  struct Rank {  // of a cell
    double value;
    uint32_t age, bin, row_class;
    int64_t rows;
  };

  void count(uint32_t row_class, Meta meta, int64_t rows, int64_t bytes);
  void count_cell(Ledger& ledger, Meta meta, int64_t rows, int64_t bytes);
  int64_t raise_bar(Ledger& ledger, uint16_t time, uint32_t bar);
  int64_t expire();
  int64_t condemn_lowest(int64_t bytes);
  void rank_class(uint32_t row_class, std::vector<Rank>& ranks) const;
  void drop_cells(Ledger& ledger, uint16_t time);
  void to_be_swept();

  Ranking ranking_;
  Decay decay_;
  Clock& clock_;
  std::vector<Ledger> ledgers_;
  int64_t bytes_ = 0;

  size_t num_cells_ = 0;

  uint32_t unswept_ = 0;     // whole sweeps needed until all that is dead is gone
  uint64_t swept_from_ = 0;  // tick at which the last whole sweep began, or rows to sweep appeared
  uint64_t began_ = 0;       // tick at which the sweep under way began
  bool sweeping_ = false;
  bool sees_all_ = false;  // the sweep under way sees all that is dead
};

inline void Reclaimer::count(uint32_t row_class, Meta meta, int64_t rows, int64_t bytes) {
  Ledger& ledger = ledgers_[row_class];
  if (!ledger.bars.empty()) {
    if (dead(row_class, meta)) {
      if (rows > 0) to_be_swept();  // it takes up memory
      return;
    }
    count_cell(ledger, meta, rows, bytes);
  }
  ledger.rows += rows;
  ledger.bytes += bytes;
  bytes_ += bytes;
}

}  // namespace ff
