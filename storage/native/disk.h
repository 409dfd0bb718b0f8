// Moves many pieces of one file at once. Two engines do it (io_uring, threads); tests put others
// before them that fail.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace ff {

// A piece of the file and its memory.
struct Piece {
  uint64_t offset;
  char* data;
  size_t bytes;
  int64_t result = 0;  // bytes moved, fewer than asked for at the end of the file; or -errno
};

class Disk {
 public:
  using Each = std::function<void(size_t)>;

  virtual ~Disk() = default;

  // Moves all pieces, several at a time, and sets their results; nothing is in flight on return.
  // Pieces neither overlap nor depend on each other. Errors are results, not exceptions.
  // `arrived(i)` is called once for every piece after its result is there, while others are under
  // way, perhaps on several threads at once.
  virtual void read(Piece* pieces, size_t n, const Each& arrived) = 0;
  // `fill(i)` is called once for every piece before its memory is read, in the same way.
  virtual void write(Piece* pieces, size_t n, const Each& fill) = 0;

  // Gives a range of the file back to the file system; its bytes are gone, the file is as long as
  // before. False if the file system cannot.
  virtual bool discard(uint64_t offset, size_t bytes) = 0;

  virtual std::string engine() const = 0;
};

bool discard_range(int file, uint64_t offset, size_t bytes);

// An engine on an open file that the caller keeps open. `engine` is "uring", "threads" or "auto"
// (io_uring where the system allows it). `depth` is how many pieces are under way at a time.
// Throws StorageError if the engine cannot be had, std::invalid_argument for a name that is none.
std::shared_ptr<Disk> make_disk(int file, const std::string& engine, unsigned depth);

std::shared_ptr<Disk> make_thread_disk(int file, unsigned depth);
// Throws StorageError where the system does not offer io_uring.
std::shared_ptr<Disk> make_ring_disk(int file, unsigned depth);

}  // namespace ff
