// Who touches the rows of a pad: loops, where they lie in memory of the host (host_rows.h), or
// kernels, where they lie in that of a GPU (device_pad.h). Plans say what is to be done; whoever
// makes them knows addresses of rows, and never follows them.
#pragma once

#include <memory>
#include <vector>

#include "crossover.h"
#include "fetch.h"
#include "population.h"
#include "request.h"
#include "tile.h"

namespace ff {

using TileList = std::vector<std::unique_ptr<Tile>>;

class RowMemory {
 public:
  virtual ~RowMemory() = default;

  // All tiles are there; before anything else.
  virtual void open() {}

  // Most records that will be moved lie in blocks of this pool, which must outlive this.
  virtual void follow(Pool&) {}
  virtual InPlace in_place() const { return {}; }
  // Instead of what would be measured.
  virtual void set_in_place(const Crossover&) {}

  // Rows that come, leave or move, touched after everything that was done for tickets released by
  // then. Records are whole, or may be changed, when the call returns; rows are there for all calls
  // that follow.
  virtual void bear(const std::vector<Fetch::Birth>& births) = 0;
  virtual void store(const std::vector<Fetch::Move>& rows) = 0;  // to records
  virtual void load(const std::vector<Fetch::Move>& rows) = 0;   // from records
  virtual void copy(const Fetch::Place& from, const Fetch::Place& to) = 0;

  // A ticket whose plan is made: what gather and update need of it may be prepared.
  virtual void prepare(Ticket&) {}
  // stream: the step's, on a GPU. There both only begin, and addresses are those of its memory.
  virtual void gather(const Ticket& ticket, const uint64_t* addresses, Dtype wire,
                      uint64_t stream) = 0;
  virtual void update(Ticket& ticket, const uint64_t* addresses, Dtype wire, float lr,
                      uint64_t step, uint64_t stream) = 0;

  // Who is told what batches do to rows; null: nobody needs to know.
  void set_population(const Population* population) { population_ = population; }

 protected:
  const Population* population_ = nullptr;
};

}  // namespace ff
