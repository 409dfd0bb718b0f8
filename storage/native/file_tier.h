// The file tier: rows in one file, found by an index in memory.
//
// A log in segments. Writes append pages to free segments; a row that is written again or erased
// leaves a dead place behind, and the space of a segment serves again when nothing in it lives: by
// itself, or because its last rows are moved (cleaning). What is written is never changed in place,
// so an error or a sudden end harms no row that was there before.
//
// The file itself (storage/container.py) is HDF5: a dataset of pages for every kind of record,
// which grows by segments. Here it is plain bytes at known offsets.
//
// Thread-safe. Reads run while rows are written: index and segments are under one mutex, which is
// never held during I/O, and a segment that is being read is not reused before the read ends. One
// read and one write are under way at a time, others wait.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "disk.h"
#include "mapping.h"
#include "page.h"
#include "places.h"
#include "segments.h"
#include "tier.h"

namespace ff {

// What the file tier must know of a tile.
struct TileFacts {
  std::string label;  // for messages
  KeyRange keys;
  int64_t positions = -1;  // of a static tile; -1: dynamic
  uint32_t kind = 0;       // of its records
};

// Records of one kind, which lie together.
struct KindFacts {
  std::string dataset;  // for messages
  size_t record_bytes = 0;
  size_t segment_bytes = size_t{1} << 20;  // a segment has as many pages as fit, at least one
};

class FileTier final : public Tier {
 public:
  struct Options {
    std::string path;  // for messages
    size_t budget_bytes = UNLIMITED;
    size_t buffer_bytes = size_t{4} << 20;  // memory of one read; and of one write
  };
  static constexpr size_t UNLIMITED = ~size_t{0};

  // Makes that many further segments of a kind and returns their offsets in the file.
  using Extend = std::function<std::vector<uint64_t>(uint32_t kind, size_t count)>;
  // Memory taken (before it is) and given back; may refuse by throwing BudgetError.
  using Charge = std::function<void(ptrdiff_t)>;

  FileTier(std::vector<KindFacts> kinds, std::vector<TileFacts> tiles, Options options,
           std::shared_ptr<Disk> disk, Extend extend);

  // From now on memory is counted by `charge`, beginning with what is held already: index and
  // buffers. Whoever counted before is told that it is gone; nobody is when the tier ends.
  void charge_to(Charge charge);

  void read(const RowRef* rows, size_t n, bool* found) override;
  void write(const RowRef* rows, size_t n) override;
  size_t erase(const RowRef* rows, size_t n) override;
  bool contains(uint32_t tile, uint64_t key) const override;
  std::vector<uint64_t> keys(size_t tile) const override;
  size_t rows(size_t tile) const override;
  size_t bytes() const override;  // of all segments in the file
  size_t most_rows(size_t tile) const override;
  size_t growth() const override;
  size_t memory() const;  // bytes of index and buffers

  size_t num_tiles() const { return tiles_.size(); }
  size_t num_kinds() const { return kinds_.size(); }
  size_t record_bytes(size_t tile) const;
  const Options& options() const { return options_; }
  std::string engine() const { return disk_->engine(); }

  // Segments of a kind: all, those that are free, and rows that live.
  struct Space {
    size_t segments, free;
    uint64_t live;
  };
  Space space(size_t kind) const;
  // Gives the bytes of free segments back to the file system, where that can be done.
  void discard_free();
  // Which records of a kind live, in the order of the file: bits, the lowest of a byte first.
  std::vector<uint8_t> live(size_t kind) const;
  // Takes over further segments of a file that was closed: reads and checks every record that
  // lives; a flag for each of their records says which.
  void restore(size_t kind, const std::vector<uint64_t>& offsets, const bool* live);

 private:
  static constexpr uint32_t NONE = Segments::NONE;
  static constexpr size_t KEPT = 1;  // free segments of each kind, for cleaning

  struct Kind {
    KindFacts facts;
    Segments segments;
    // The page that is written next; and where that was when all rows before it had arrived.
    struct Head {
      uint32_t segment = NONE, page = 0;
    } head, settled;

    bool full() const { return head.segment == NONE || head.page == segments.pages(); }
  };

  // A row on its way into the file; `from` is where it was if it is being moved.
  struct Incoming {
    uint32_t tile;
    uint32_t from;
    uint64_t key;
    const char* record;
  };

  // Pages of one segment that a write will fill, and their rows.
  struct Run {
    uint32_t segment, first_page, pages;
    size_t begin, end;  // rows
  };

  // A row that is read, and consecutive ones of them that one piece of the file brings.
  struct Wanted {
    uint64_t where;  // kind << 32 | place
    size_t row;

    uint32_t kind() const { return static_cast<uint32_t>(where >> 32); }
    uint32_t place() const { return static_cast<uint32_t>(where); }
  };
  struct Catch {
    size_t begin, end;  // of the wanted
    uint32_t kind, first_page, pages;
  };

  // f(begin, end, keys) for consecutive rows of one tile, at most Places::BATCH of them.
  template <class F>
  static void for_parts(const RowRef* rows, size_t n, F&& f) {
    uint64_t keys[Places::BATCH];
    for (size_t begin = 0, end; begin < n; begin = end) {
      for (end = begin; end < n && end - begin < Places::BATCH; ++end) {
        if (rows[end].tile != rows[begin].tile) break;
        keys[end - begin] = rows[end].key;
      }
      f(begin, end, static_cast<const uint64_t*>(keys));
    }
  }

  Kind& kind_of(uint32_t tile) { return kinds_[tiles_[tile].kind]; }
  const Kind& kind_of(uint32_t tile) const { return kinds_[tiles_[tile].kind]; }
  void check(const RowRef* rows, size_t n) const;

  // file_read.cpp
  void locate(const RowRef* rows, size_t n, bool* found, std::vector<Wanted>& wanted);
  std::vector<Catch> plan_window(const std::vector<Wanted>& wanted, size_t& next) const;
  void read_window(const RowRef* rows, const std::vector<Wanted>& wanted,
                   const std::vector<Catch>& window);
  size_t deliver(const RowRef* rows, const std::vector<Wanted>& wanted, const Catch& caught,
                 const char* data) const;
  void unpin(const std::vector<Wanted>& wanted, size_t begin, size_t end);

  // file_write.cpp
  void append(Kind& kind, const std::vector<Incoming>& rows, bool cleaning);
  size_t plan_run(Kind& kind, const std::vector<Incoming>& rows, size_t at, bool cleaning,
                  std::vector<Run>& runs);
  void flush(Kind& kind, const std::vector<Incoming>& rows, std::vector<Run>& planned);
  void transfer(const Kind& kind, const std::vector<Incoming>& rows, const std::vector<Run>& runs);
  void commit(Kind& kind, const std::vector<Incoming>& rows, const Run& run);
  void commit_part(Kind& kind, const Incoming* rows, size_t n, uint32_t first_place);
  void settle(Kind& kind, const std::vector<Run>& runs);
  void rewind(Kind& kind, const std::vector<Run>& runs);

  // file_space.cpp
  bool open_segment(Kind& kind, size_t keep);
  bool grow(Kind& kind);
  bool discard_one(Kind& kind, size_t keep);
  bool borrow(const Kind& kind, size_t bytes);
  void clean(Kind& kind);
  void read_segment(const Kind& kind, uint32_t segment);
  std::vector<Incoming> survivors(const Kind& kind, uint32_t segment) const;
  void restore_segment(Kind& kind, uint32_t segment, const bool* live);
  [[noreturn]] void refuse(const Kind& kind) const;

  std::string where(const Kind& kind, uint64_t first_place, uint64_t places) const;
  void require_moved(const Kind& kind, const Piece& piece, uint64_t first_place, uint64_t places,
                     bool writing) const;
  void charge(ptrdiff_t bytes);
  void take_buffers();

  Options options_;
  std::shared_ptr<Disk> disk_;
  Extend extend_;
  std::vector<TileFacts> tiles_;

  std::mutex read_mutex_;  // one read: window_
  Mapping window_{true};
  std::mutex write_mutex_;  // one write: stage_, victim_, what is filled, and growth
  Mapping stage_{true};
  Mapping victim_{true};

  mutable std::mutex mutex_;  // the rest
  std::condition_variable freed_;
  std::vector<Kind> kinds_;
  std::deque<Places> places_;  // of tiles
  size_t held_ = 0;            // bytes of all segments

  mutable std::mutex charge_mutex_;
  Charge charge_;
  size_t charged_ = 0;
};

}  // namespace ff
