// Tasks of unequal size on some threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>

#include "parallel.h"

namespace ff {

// Calls f(task, worker) for every task in [0, n), on at most `threads` threads, each of which takes
// the next task when it is done with one. `worker` is below `threads`; no two that run at once have
// the same.
template <class F>
void for_tasks(int threads, size_t n, F&& f) {
  std::atomic<size_t> next{0};
  const size_t workers = std::min(n, static_cast<size_t>(std::max(1, threads)));
  parallel_for(static_cast<int>(workers), workers, 1, [&](size_t, size_t, int worker) {
    for (size_t task = next++; task < n; task = next++) f(task, worker);
  });
}

}  // namespace ff
