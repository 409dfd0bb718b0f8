#include "block.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "fiber.h"
#include "turns.h"

namespace stand_in {

constinit thread_local Dim thread_index, block_index, block_size, grid_size;

namespace {

constexpr unsigned WARP = 32;
constexpr uint64_t RUBBISH = 0xcdcdcdcdcdcdcdcd;

Kernel* all_kernels = nullptr;

std::string hex(uint32_t mask) {
  char text[16];
  snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

struct Place {
  const char* file;
  int line;

  bool operator==(const Place& other) const {
    return line == other.line && (file == other.file || strcmp(file, other.file) == 0);
  }
  std::string text() const {
    const char* const slash = strrchr(file, '/');
    return std::string(slash ? slash + 1 : file) + ":" + std::to_string(line);
  }
};

struct Thread {
  enum class State : uint8_t { ready, waiting, ended };

  Fiber fiber;
  State state = State::ready;
  // What it waits for.
  Meeting kind = Meeting::block;
  Place place{};
  uint32_t mask = 0, source = 0;
  uint64_t value = 0, result = 0;
};

class Block {
 public:
  // Returns what went wrong, or nothing.
  std::string run(const Kernel& kernel, unsigned threads, const void* args, uint64_t seed);

  void meet_block(Place place);
  uint64_t meet_warp(Meeting kind, uint32_t mask, uint64_t value, uint32_t source, Place place);
  void give_way();
  [[noreturn]] void fail(const std::string& what, Place place);

 private:
  static void body(void* block);

  void make_ready(unsigned thread);
  void wait(Meeting kind, Place place);
  void conclude(Meeting kind, uint32_t mask, unsigned first);
  std::string about(unsigned thread) const;
  std::string stuck() const;
  std::string stuck_behind(unsigned thread, unsigned other) const;

  Thread& self() { return *threads_[thread_index.x]; }

  std::vector<std::unique_ptr<Thread>> threads_;
  Turns turns_;
  const Kernel* kernel_ = nullptr;
  const void* args_ = nullptr;
  unsigned size_ = 0, arrived_ = 0, ended_ = 0;
  std::string fault_;
};

thread_local Block* running = nullptr;

void Block::make_ready(unsigned thread) {
  threads_[thread]->state = Thread::State::ready;
  turns_.add(thread);
}

void Block::body(void* block) {
  auto* const self = static_cast<Block*>(block);
  const unsigned thread = thread_index.x;
  self->kernel_->run(self->args_);
  self->threads_[thread]->state = Thread::State::ended;
  ++self->ended_;
}

std::string Block::run(const Kernel& kernel, unsigned threads, const void* args, uint64_t seed) {
  kernel_ = &kernel;
  args_ = args;
  size_ = threads;
  arrived_ = ended_ = 0;
  fault_.clear();
  turns_.start(threads, seed);
  while (threads_.size() < size_) threads_.push_back(std::make_unique<Thread>());
  for (unsigned t = 0; t < size_; ++t) {
    threads_[t]->fiber.start(&Block::body, this);
    make_ready(t);
  }
  running = this;
  while (!turns_.empty() && fault_.empty()) {
    thread_index.x = turns_.take();
    self().fiber.resume();
  }
  running = nullptr;
  if (fault_.empty() && ended_ < size_) fault_ = stuck();
  return fault_;
}

void Block::wait(Meeting kind, Place place) {
  const unsigned thread = thread_index.x;
  Thread& me = *threads_[thread];
  me.kind = kind;
  me.place = place;
  me.state = Thread::State::waiting;
  me.fiber.suspend();
}

void Block::meet_block(Place place) {
  for (unsigned t = 0; t < size_ && arrived_ > 0; ++t) {
    const Thread& other = *threads_[t];
    if (other.state != Thread::State::waiting || other.kind != Meeting::block) continue;
    if (!(other.place == place))
      fail("waits in __syncthreads, while thread " + std::to_string(t) + " waits in the one at " +
               other.place.text(),
           place);
    break;
  }
  if (++arrived_ < size_) return wait(Meeting::block, place);
  arrived_ = 0;
  for (unsigned t = 0; t < size_; ++t)
    if (t != thread_index.x) make_ready(t);
  if (turns_.shuffled()) give_way();
}

uint64_t Block::meet_warp(Meeting kind, uint32_t mask, uint64_t value, uint32_t source,
                          Place place) {
  const unsigned lane = thread_index.x % WARP, first = thread_index.x - lane;
  if (!(mask >> lane & 1)) fail("is not in the mask " + hex(mask) + " that it names", place);
  Thread& me = self();
  me.mask = mask;
  me.value = value;
  me.source = source;
  for (unsigned l = WARP; l-- > 0;) {  // lanes mostly come in order: the last one tells first
    if (!(mask >> l & 1) || l == lane) continue;
    if (first + l >= size_)
      fail("waits for lane " + std::to_string(l) + " of the mask " + hex(mask) +
               ", but the block has " + std::to_string(size_) + " threads",
           place);
    const Thread& other = *threads_[first + l];
    const bool here = other.state == Thread::State::waiting && other.kind == kind &&
                      other.mask == mask && other.place == place;
    if (!here) {
      wait(kind, place);
      return me.result;
    }
  }
  me.kind = kind;
  conclude(kind, mask, first);
  for (unsigned l = 0; l < WARP; ++l)
    if (mask >> l & 1 && l != lane) make_ready(first + l);
  if (turns_.shuffled()) give_way();
  return me.result;
}

// All lanes have come: what each of them gets.
void Block::conclude(Meeting kind, uint32_t mask, unsigned first) {
  uint32_t votes = 0;
  for (unsigned l = 0; l < WARP; ++l)
    if (mask >> l & 1 && threads_[first + l]->value != 0) votes |= 1u << l;
  for (unsigned l = 0; l < WARP; ++l) {
    if (!(mask >> l & 1)) continue;
    Thread& lane = *threads_[first + l];
    if (kind == Meeting::shuffle) {
      const bool named = mask >> lane.source & 1;
      lane.result = named ? threads_[first + lane.source]->value : RUBBISH;
    } else if (kind == Meeting::match) {
      uint32_t same = 0;
      for (unsigned o = 0; o < WARP; ++o)
        if (mask >> o & 1 && threads_[first + o]->value == lane.value) same |= 1u << o;
      lane.result = same;
    } else {
      lane.result = kind == Meeting::ballot ? votes
                    : kind == Meeting::any  ? votes != 0
                                            : votes == mask;
    }
  }
}

void Block::give_way() {
  if (!turns_.give_way(thread_index.x)) return;
  make_ready(thread_index.x);
  self().fiber.suspend();
}

void Block::fail(const std::string& what, Place place) {
  fault_ = about(thread_index.x) + (place.file ? " at " + place.text() : "") + " " + what;
  self().fiber.suspend();  // for good
  abort();
}

std::string Block::about(unsigned thread) const {
  return std::string("kernel ") + kernel_->name + ", block " + std::to_string(block_index.x) +
         ", thread " + std::to_string(thread);
}

// Nobody can run: the first thread that waits, and for whom.
std::string Block::stuck() const {
  for (unsigned t = 0; t < size_; ++t) {
    const Thread& thread = *threads_[t];
    if (thread.state != Thread::State::waiting) continue;
    const unsigned first = t - t % WARP;
    for (unsigned o = 0; o < size_; ++o) {
      const bool named = thread.kind == Meeting::block ||
                         (o / WARP == t / WARP && (thread.mask >> (o - first) & 1));
      const Thread& other = *threads_[o];
      if (o == t || !named) continue;
      if (other.state == Thread::State::waiting && other.kind == thread.kind &&
          other.place == thread.place &&
          (other.mask == thread.mask || other.kind == Meeting::block))
        continue;
      return stuck_behind(t, o);
    }
  }
  return std::string("kernel ") + kernel_->name + " is stuck";
}

std::string Block::stuck_behind(unsigned t, unsigned o) const {
  auto call = [](const Thread& thread) {
    static const char* const NAMES[] = {"__syncthreads",   "__syncwarp", "a shuffle",
                                        "__ballot_sync",   "__any_sync", "__all_sync",
                                        "__match_any_sync"};
    const std::string name = NAMES[static_cast<int>(thread.kind)];
    return name + (thread.kind == Meeting::block ? "" : " of the mask " + hex(thread.mask));
  };
  const Thread &thread = *threads_[t], &other = *threads_[o];
  return about(t) + " at " + thread.place.text() + " waits forever in " + call(thread) +
         " for thread " + std::to_string(o) +
         (other.state == Thread::State::ended
              ? ", which has ended"
              : ", which waits in " + call(other) + " at " + other.place.text());
}

}  // namespace

Kernel::Kernel(const char* name, size_t bytes, unsigned threads, Run run)
    : name(name), bytes(bytes), threads(threads), run(run), next(all_kernels) {
  for (const Kernel* other = all_kernels; other != nullptr; other = other->next)
    if (strcmp(other->name, name) == 0) {
      fprintf(stderr, "two kernels have the name %s\n", name);
      abort();
    }
  all_kernels = this;
}

Kernel* kernels() { return all_kernels; }

std::string run_grid(const Kernel& kernel, unsigned blocks, unsigned threads, const void* args,
                     uint64_t seed) {
  static thread_local Block block;
  block_size.x = threads;
  grid_size.x = blocks;
  for (unsigned b = 0; b < blocks; ++b) {
    block_index.x = b;
    std::string fault = block.run(kernel, threads, args, seed ? seed * 0x9e3779b97f4a7c15 + b : 0);
    if (!fault.empty()) return fault;
  }
  return {};
}

void meet_block(const char* file, int line) { running->meet_block({file, line}); }

uint64_t meet_warp(Meeting kind, uint32_t mask, uint64_t value, uint32_t source, const char* file,
                   int line) {
  return running->meet_warp(kind, mask, value, source, {file, line});
}

void give_way() { running->give_way(); }

void fail(const std::string& what, const char* file, int line) {
  running->fail(what, {file, line});
}

bool in_kernel() { return running != nullptr; }

}  // namespace stand_in
