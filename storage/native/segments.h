// The space of one class of rows in the file: segments, what lives in them, which are free.
//
// A segment is a run of pages that is filled from its start and then sealed. Rows are never changed
// where they lie: a row that is written again or erased leaves a dead place behind. A sealed
// segment without live rows is free again, at once or when the last read of it has ended. A place
// is a 32-bit number of a record: segment, page and row in the page, counted through.
//
// Not thread-safe: the tier holds its mutex.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "hash.h"
#include "page.h"

namespace ff {

class Segments {
 public:
  static constexpr uint32_t NONE = 0xffffffffu;

  Segments(PageLayout page, size_t segment_bytes);

  const PageLayout& page() const { return page_; }
  uint32_t pages() const { return pages_; }  // of a segment
  uint32_t rows() const { return pages_ * page_.rows; }
  size_t bytes() const { return pages_ * page_.page_bytes; }
  size_t count() const { return offset_.size(); }
  uint64_t live() const { return total_live_; }
  size_t most() const { return NONE / rows(); }  // segments that places can name

  // Where things are.
  uint32_t segment_of(uint32_t place) const {
    return static_cast<uint32_t>(per_segment_.quotient(place));
  }
  uint32_t page_of(uint32_t place) const {
    return static_cast<uint32_t>(per_page_.quotient(place));
  }
  uint32_t slot_of(uint32_t place) const { return place - page_of(place) * page_.rows; }
  uint64_t offset_of_page(uint32_t page) const {
    const uint32_t segment = page / pages_;
    return offset_[segment] + uint64_t{page - segment * pages_} * page_.page_bytes;
  }
  uint64_t offset(uint32_t segment) const { return offset_[segment]; }
  uint32_t first_place(uint32_t segment) const { return segment * rows(); }

  // A new segment, free; or one of an earlier run, sealed and without rows so far.
  void add(uint64_t offset);
  void add_sealed(uint64_t offset);
  // After the last row of add_sealed() segments has arrived: those without rows are hollow. Returns
  // how many.
  size_t hollow_empty();

  size_t free() const { return free_.size(); }
  // Without live rows, but not free until their reads have ended.
  size_t draining() const { return draining_; }
  // A free segment to fill; sealed when it is full and its rows have arrived, or given back, to be
  // taken after all others, if none has. What was in use before is taken first: it has its place
  // on the device.
  uint32_t take();
  void give_back(uint32_t segment);
  void seal(uint32_t segment);

  // A segment that is no longer free, because its bytes have left the file; and its way back.
  size_t hollow() const { return hollow_.size(); }
  void set_hollow(uint32_t segment) { hollow_.push_back(segment); }
  void refill();

  // A row that is written, dead.
  void arrive(uint32_t place);
  void leave(uint32_t place);
  uint32_t live(uint32_t segment) const { return live_[segment]; }
  // The sealed segment with the fewest live rows, at least one; NONE if there is no sealed one.
  uint32_t emptiest() const;

  // Whether at most `percent` of the segment's rows live, and moving those gains a page.
  bool worth_cleaning(uint32_t segment, uint32_t percent) const {
    const uint64_t live = live_[segment];
    return live * 100 <= uint64_t{rows()} * percent && live <= uint64_t{pages_ - 1} * page_.rows;
  }

  // A segment with reads under way is not reused.
  void pin(uint32_t place) { ++pins_[segment_of(place)]; }
  // Whether a segment became free.
  bool unpin(uint32_t place);

 private:
  enum class State : uint8_t { free, filling, sealed };

  bool settle(uint32_t segment);

  PageLayout page_;
  uint32_t pages_;
  Divisor per_segment_, per_page_;
  std::vector<uint64_t> offset_;
  std::vector<uint32_t> live_;
  std::vector<uint32_t> pins_;
  std::vector<State> state_;
  std::deque<uint32_t> free_;
  std::vector<uint32_t> hollow_;
  size_t draining_ = 0;
  uint64_t total_live_ = 0;
};

}  // namespace ff
