// Writing rows of the host tier to the file tier, in the background, before room is needed.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "fetch.h"
#include "host_tier.h"
#include "span.h"

namespace ff {

// Rows are served from the host tier until their write is done, and after it until they are
// dropped. A row that is taken back into the pad while it is being written is forgotten by the file
// tier again.
class WriteBack {
 public:
  // `guard` protects `host`; `wrote` is called after every write.
  WriteBack(HostTier& host, Tier& file, Fetcher& fetcher, std::mutex& guard,
            std::function<void()> wrote, Spans& spans);
  ~WriteBack() { close(); }

  // There may be something to do.
  void wake();
  // Ends the thread after the write that it is in.
  void close();
  // Under the guard: whether no write is under way.
  bool idle() const { return !writing_; }
  int64_t busy_ns() const { return busy_ns_; }
  uint64_t bytes() const { return bytes_; }

 private:
  void run();
  bool write_some();
  bool begin();
  void finish();
  size_t aside() const;

  HostTier& host_;
  Tier& file_;
  Fetcher& fetcher_;
  std::mutex& guard_;
  std::function<void()> wrote_;
  Spans& spans_;
  size_t most_;           // rows of one write
  bool writing_ = false;  // under the guard

  std::vector<HostTier::Waiting> rows_;
  std::vector<char> records_;
  std::vector<RowRef> refs_;
  std::atomic<int64_t> busy_ns_{0};
  std::atomic<uint64_t> bytes_{0};

  std::mutex mutex_;
  std::condition_variable changed_;
  bool awake_ = false, closing_ = false;
  std::thread thread_;
};

}  // namespace ff
