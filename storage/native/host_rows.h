// Rows in memory of the host, and the loops that touch them: gather.cpp, update.cpp, host_rows.cpp.
// Results do not depend on the number of threads.
#pragma once

#include "row_memory.h"

namespace ff {

class HostRows : public RowMemory {
 public:
  // `tiles` may be filled later.
  HostRows(const TileList& tiles, int threads) : tiles_(tiles), threads_(threads) {}

  void bear(const std::vector<Fetch::Birth>& births) override;
  void store(const std::vector<Fetch::Move>& rows) override;
  void load(const std::vector<Fetch::Move>& rows) override;
  void copy(const Fetch::Place& from, const Fetch::Place& to) override;
  void gather(const Ticket& ticket, const uint64_t* addresses, Dtype wire, uint64_t) override;
  void update(Ticket& ticket, const uint64_t* addresses, Dtype wire, float lr, uint64_t step,
              uint64_t) override;

 private:
  template <class List, class Ask, class Move>
  void each(const List& list, size_t per_thread, Ask&& ask, Move&& move) const;
  void ask(const Fetch::Move& row) const;

  const TileList& tiles_;
  int threads_;
};

}  // namespace ff
