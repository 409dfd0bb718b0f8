// One pool of memory for all tables of a rank, with a strict budget.
//
// Memory comes from the system in chunks of 2 MiB at 2 MiB boundaries (so that huge pages fit) and
// is handed out as blocks of a power-of-two size, 4 KiB to 2 MiB, each aligned to its size: a buddy
// allocator. A freed block merges with its free neighbour, so any table can have it next.
// What counts against the budget is what has been taken from the system, plus what callers charge
// for memory of their own (indexes, bitmaps, directories).
//
// Blocks may also come from memory that somebody else has taken, all at once, and that nobody here
// can follow: that of a GPU. Then nothing but blocks counts; what callers charge is in memory of
// the host, and counts against the pool of that if there is one.
//
// Thread-safe. Everything is returned to the system by the destructor.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

namespace ff {

class Pool {
 public:
  static constexpr size_t SMALLEST = size_t{4} << 10;
  static constexpr size_t LARGEST = size_t{2} << 20;
  static constexpr size_t UNLIMITED = ~size_t{0};

  // Who is told of whole chunks, by whoever takes or gives blocks. Nothing may be thrown.
  class Keeper {
   public:
    virtual ~Keeper() = default;
    virtual void taken(char* chunk) = 0;
    virtual void leaving(char* chunk) = 0;  // its memory goes back to the system, or some of it
  };

  // `setting` is the name of the budget in messages.
  Pool(size_t budget, bool huge_pages, std::string setting = "storage.host_bytes")
      : budget_(budget), huge_pages_(huge_pages), setting_(std::move(setting)) {}
  // Over memory of a GPU, `budget` bytes of it from a 2 MiB boundary on; metadata of the rows of a
  // block lies in memory of the host, `meta_shift` behind the start of the block.
  Pool(size_t budget, char* memory, uint64_t meta_shift, std::string setting)
      : budget_(budget),
        huge_pages_(false),
        setting_(std::move(setting)),
        meta_shift_(meta_shift),
        system_(false),
        chunks_{memory, budget} {}
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // A block of `bytes` (a power of two in [SMALLEST, LARGEST]), not zeroed. When the budget does
  // not allow it: BudgetError, which names `owner`, or null if it is not `required`. May throw
  // std::bad_alloc.
  char* take(size_t bytes, const std::string& owner, bool required = true);
  void give(char* block, size_t bytes);

  // Counts memory that someone else holds; when the budget does not allow it: BudgetError, or false
  // if it is not `required`. Of a pool over memory of a GPU the budget is that of charge_to().
  bool charge(size_t bytes, const std::string& owner, bool required = true);
  void refund(size_t bytes);

  // Over memory of a GPU: what is charged counts against this pool from now on, which must outlive
  // this one. Until then it is added up, and has no limit.
  void charge_to(Pool& host) { host_ = &host; }
  // The sum of what was charged and is not in `held()`.
  size_t beside() const;

  // Tells of the chunks that are held now, and of those that come and go. Null: nobody; the keeper
  // must have gone before the pool does.
  void set_keeper(Keeper* keeper);

  // Gives free blocks back to the system until the budget allows `bytes` more; false if there are
  // too few. Nobody may be reading what was in them.
  bool shrink_for(size_t bytes);

  size_t budget() const { return budget_; }
  size_t most() const;      // the budget, or what the machine has
  size_t held() const;      // bytes that count against the budget
  size_t in_use() const;    // of these, bytes in blocks handed out or charged
  bool huge_pages() const;  // whether they were asked for and the system took note
  // From a block to the metadata of its rows, where that is not in the block (row_view.h); else 0.
  uint64_t meta_shift() const { return meta_shift_; }
  // The rows of the block are gone: the system takes those pages of their metadata back.
  void forget_metadata(char* block, size_t bytes);
  // Whether what is charged is part of its own budget.
  bool counts_charges() const { return system_; }
  // What is part of it of so many bytes that are charged.
  size_t counted(size_t bytes) const { return counts_charges() ? bytes : 0; }

 private:
  static constexpr int ORDERS = 10;  // 4 KiB << 9 = 2 MiB
  static constexpr size_t EXTENT = size_t{64} << 20;

  struct Range {
    char* next = nullptr;
    size_t left = 0;
  };

  static int order_of(size_t bytes);
  static size_t size_of(int order) { return SMALLEST << order; }
  char* commit(int order);
  char* uncommitted(int order);
  char* untouched(size_t bytes);
  void map(Range& range, size_t bytes, bool huge);
  bool allows(size_t bytes) const { return held_ <= budget_ && bytes <= budget_ - held_; }
  bool require(size_t bytes, const std::string& owner, bool required) const;

  mutable std::mutex mutex_;
  size_t budget_;
  bool huge_pages_;
  std::string setting_;
  size_t held_ = 0, in_use_ = 0, beside_ = 0;
  Pool* host_ = nullptr;  // where charges go
  uint64_t meta_shift_ = 0;
  bool system_ = true;                                      // memory comes from the system
  std::array<std::unordered_set<uintptr_t>, ORDERS> free_;  // free blocks of each order
  std::array<std::vector<char*>, ORDERS> returned_;         // blocks without memory
  std::vector<std::pair<char*, size_t>> extents_;           // address ranges of ours
  std::unordered_set<uintptr_t> whole_;                     // chunks with all their memory
  Keeper* keeper_ = nullptr;                                // who is told of these
  Range chunks_;  // address space for whole chunks, with huge pages
  Range parts_;   // for parts of a chunk, taken when the budget ends, with 4 KiB pages
};

}  // namespace ff
