// What the files of the driver share: its state, and what every function of libcuda begins with.
// Results are CUresult.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "stream.h"

namespace stand_in {

enum Result {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  INVALID_DEVICE = 101,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
  NOT_READY = 600,
  ALREADY_REGISTERED = 712,
  NOT_REGISTERED = 713,
  LAUNCH_FAILED = 719,
};

constexpr int DEVICES = 8;

struct Event {
  unsigned flags;
  std::shared_ptr<Moment> last;  // nullptr until it is recorded
};

// Never destroyed: the streams' threads may still run when the process ends.
struct Driver {
  std::mutex mutex;
  std::map<void*, std::shared_ptr<Stream>> streams;  // nullptr: the default stream
  std::vector<std::shared_ptr<Stream>> closing;
  std::set<Event*> events;
  int contexts[DEVICES] = {};  // how often each is retained; its address is the handle
  uint64_t seed = 0, created = 0;
  uint64_t launches = 0;          // since the seed was set
  std::string fault, fault_text;  // fault_text: what cuGetErrorString has given out
};
Driver& driver();

// The first fault stays, until a test takes it. Nothing is noted for an empty one.
void note(const std::string& fault);
int state();  // LAUNCH_FAILED after a fault

// Most functions begin with this.
#define FF_REQUIRE_CONTEXT \
  if (const int result = stand_in::ready(); result != stand_in::SUCCESS) return result
int ready();

// nullptr if there is no such stream.
std::shared_ptr<Stream> stream_of(void* handle);
// Work is left out once something has failed; what waits for it goes on.
int enqueue(void* stream, Stream::Work work);
int wait(const std::shared_ptr<Moment>& moment);
int drain();  // waits for all streams
bool shaken();

inline char* host(unsigned long long address) { return reinterpret_cast<char*>(address); }

}  // namespace stand_in
