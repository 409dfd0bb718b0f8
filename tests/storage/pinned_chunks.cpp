// Chunks that a pool takes and gives back, and which of them the device may follow: built and
// called by test_pinned_chunks.py.
#include "pinned_chunks.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <exception>

namespace ff {
namespace {

constexpr size_t CHUNK = Pool::LARGEST;

bool child_has(char* chunk) {
  const pid_t child = fork();
  if (child == 0) {
    unsigned char resident;
    _exit(mincore(chunk, Pool::SMALLEST, &resident) != 0 && errno == ENOMEM ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

// What the pool had before is pinned, and what it takes; not what it takes in parts, at its end.
const char* come(const Device& device) {
  Pool pool(2 * CHUNK + Pool::SMALLEST, false);
  char* const before = pool.take(CHUNK, "test");
  PinnedChunks pinned(device, pool);
  if (!pinned.hold(before) || !pinned.hold(before + CHUNK - 1)) return "an old chunk is not pinned";
  if (pinned.hold(before + CHUNK) || pinned.hold(&pool)) return "other memory counts as pinned";
  char* const small = pool.take(Pool::SMALLEST, "test");
  char* const rest = pool.take(CHUNK / 2, "test");
  if (!pinned.hold(small) || !pinned.hold(rest)) return "a new chunk is not pinned";
  pool.take(CHUNK / 4, "test");
  char* last = nullptr;  // a chunk is full but for 508 KiB
  for (char* block; (block = pool.take(Pool::SMALLEST, "test", false)) != nullptr;) last = block;
  if (pinned.hold(last)) return "a part of a chunk is pinned";
  if (pinned.bytes() != 2 * CHUNK) return "bytes() is wrong";
  if (child_has(before) || !child_has(last)) return "children share what is pinned, or nothing";
  return "";
}

// Memory that goes back to the system is not pinned any more, nor is what is left of its chunk.
const char* go(const Device& device) {
  Pool pool(2 * CHUNK, false);
  PinnedChunks pinned(device, pool);
  char* const kept = pool.take(CHUNK / 2, "test");
  char* const part = pool.take(CHUNK / 2, "test");
  char* const whole = pool.take(CHUNK, "test");
  memset(kept, 1, CHUNK / 2);
  pool.give(part, CHUNK / 2);
  pool.give(whole, CHUNK);
  if (!pinned.hold(part) || !pinned.hold(whole)) return "free blocks are not pinned";
  if (!pool.shrink_for(CHUNK + CHUNK / 2)) return "the pool does not shrink";
  if (pinned.hold(kept) || pinned.hold(whole)) return "memory that has gone is pinned";
  if (pinned.bytes() != 0) return "bytes() is wrong";
  if (kept[0] != 1 || kept[CHUNK / 2 - 1] != 1) return "what stays has been lost";
  if (!child_has(kept)) return "children do not share what is not pinned any more";
  char* const again = pool.take(CHUNK, "test");
  if (again != whole || !pinned.hold(again)) return "a chunk that comes back is not pinned";
  if (pinned.hold(pool.take(CHUNK / 2, "test"))) return "a part that comes back is pinned";
  return "";
}

}  // namespace
}  // namespace ff

extern "C" const char* check_chunks(const char* library, bool going) {
  static std::string error;
  try {
    const ff::Device device(library, 0, {});
    return going ? ff::go(device) : ff::come(device);
  } catch (const std::exception& e) {
    error = e.what();
    return error.c_str();
  }
}
