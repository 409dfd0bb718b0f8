// Moving rows between tiers, in the order of the plans, on a thread of its own.
//
// Plans say what moves where before it has happened; because fetches are carried out one after the
// other, each finds memory in the state that its plan foresaw.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "config.h"

namespace ff {

// What one plan wants moved, in this order. Places are addresses, because by the time of the move a
// later plan may have given the slot to another row, and the block to another shelf.
struct Fetch {
  struct Place {  // of a row in the pad
    uint32_t tile, slot;
    char* weights;
  };
  struct Move {
    Place pad;
    char* host;  // record
  };
  struct Birth {
    Place pad;
    uint64_t id;
    uint16_t time;
  };
  struct Copy {  // of a host row, for a reader
    const char* host;
    char* to;
    size_t bytes;
  };
  struct FromFile {  // into the pad, or to a reader
    Place pad;
    uint64_t key;
    char* to;
  };
  struct Stale {  // the file tier's copy of a row that is newer elsewhere
    uint32_t tile;
    uint64_t key;
  };
  std::vector<Move> down;  // pad to host
  std::vector<Copy> copies;
  std::vector<Move> up;  // host to pad
  std::vector<Birth> births;
  std::vector<FromFile> from_file;
  std::vector<Stale> stale;

  bool empty() const {
    return down.empty() && up.empty() && births.empty() && copies.empty() && from_file.empty() &&
           stale.empty();
  }
};

class Fetcher {
 public:
  // `ended` is called after a fetch, when it counts as done, or has thrown and nobody waits in vain
  // any more.
  Fetcher(std::function<void(Fetch&)> carry_out, std::function<void(bool done)> ended);
  ~Fetcher() { close(); }

  // Returns the number of the fetch, counted from 1.
  uint64_t push(Fetch&& fetch);
  uint64_t pushed() const;
  uint64_t done() const;
  // Returns when the fetch is done. What any fetch up to it threw is thrown again.
  void wait(uint64_t number) const;
  // Returns when the fetch is done or never will be.
  void finish(uint64_t number) const;
  // Throws what a fetch threw.
  void check() const;
  // A failure elsewhere that must reach whoever waits.
  void fail(std::exception_ptr error);
  // Leaves undone what has not begun, and ends the thread.
  void close();

 private:
  void run();

  std::function<void(Fetch&)> carry_out_;
  std::function<void(bool done)> ended_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::deque<Fetch> queue_;
  uint64_t pushed_ = 0, done_ = 0;
  bool busy_ = false, closing_ = false;
  std::exception_ptr error_;
  std::thread thread_;
};

}  // namespace ff
