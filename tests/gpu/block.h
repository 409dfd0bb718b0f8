// The threads of a block, each a fiber: who runs, who waits for whom, and what the lanes of a warp
// tell each other. Blocks run one after the other, on the thread that runs the grid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace stand_in {

// A kernel registers itself when the library is loaded (FF_KERNEL).
struct Kernel {
  using Run = void (*)(const void* args);

  Kernel(const char* name, size_t bytes, unsigned threads, Run run);

  const char* name;
  size_t bytes;      // of its arguments
  unsigned threads;  // of a block, at most
  Run run;
  Kernel* next;  // in the list of all
};
Kernel* kernels();

// Runs all blocks. Returns what went wrong, or nothing. With a seed, warps and lanes take turns in
// another order for each seed; without one the order is fixed.
std::string run_grid(const Kernel& kernel, unsigned blocks, unsigned threads, const void* args,
                     uint64_t seed);

// Of the thread that runs. The kernel sees them as threadIdx.x and so on.
struct Dim {
  unsigned x;
};
extern constinit thread_local Dim thread_index, block_index, block_size, grid_size;

enum class Meeting : uint8_t { block, warp, shuffle, ballot, any, all, match };

// Called by threads of a kernel.

// Waits for every thread of the block.
void meet_block(const char* file, int line);
// Waits for the lanes of the mask. Returns what the meeting gives this lane: for a shuffle the
// value of the lane `source`, or rubbish if the mask does not name it.
uint64_t meet_warp(Meeting kind, uint32_t mask, uint64_t value, uint32_t source, const char* file,
                   int line);
// Another thread may go first. Threads that look at one address again and again until another
// thread writes there get on because of this.
void give_way();
// The kernel ends here, and with it the context, as on a GPU. file: nullptr if it is not known.
[[noreturn]] void fail(const std::string& what, const char* file, int line);

// Called by handlers of signals: true if a kernel runs on this thread.
bool in_kernel();

}  // namespace stand_in
