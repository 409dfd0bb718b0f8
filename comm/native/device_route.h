// One batch in the memory of a device: the index arrays of its route, and the jobs of its step.
//
// Everything is put together in pinned memory and goes to the device in one copy, ahead of the step
// and beside it. A route that is used again uses its memory again, as soon as the kernels that read
// it are done: events say when, so that nobody waits in a steady state.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "long_rows.h"
#include "parcel.h"
#include "route.h"
#include "step_kernels.h"

namespace ff {

// The jobs of one launch: here, and where the kernel finds them.
template <class Job>
struct Launch {
  std::vector<Job> jobs;
  std::vector<uint32_t> first_unit;  // (jobs + 1,)
  const Job* jobs_there = nullptr;
  const uint32_t* first_unit_there = nullptr;

  uint32_t num_jobs() const { return static_cast<uint32_t>(jobs.size()); }
  uint32_t units() const { return first_unit.back(); }
  size_t blocks() const { return (units() + UNITS_OF_BLOCK - 1) / UNITS_OF_BLOCK; }

  void clear() {
    jobs.clear();
    first_unit.assign(1, 0);
  }

  void add(const Job& job, uint32_t count, uint32_t of_unit) {
    jobs.push_back(job);
    first_unit.push_back(first_unit.back() + (count + of_unit - 1) / of_unit);
  }
};

class DeviceRoute {
 public:
  explicit DeviceRoute(std::shared_ptr<Device> device);
  ~DeviceRoute();

  // Starts to copy the route to the device, on `uploads`. Waits if the memory is still read.
  void upload(const Plan& plan, const Route& route, const Stream& uploads);
  // What is enqueued on the stream after `begin` sees the route. `end` stands behind the kernels.
  void begin(const Stream& stream) const { stream.wait(parcel_.sent()); }
  void end(const Stream& stream) const { read_.record(stream); }

  const Launch<PoolJob>& pool() const { return pool_; }
  // Reply rows and the parts of long rows; then the sums over those parts.
  const Launch<SumJob>& rows() const { return rows_; }
  const Launch<SumJob>& totals() const { return totals_; }
  uint32_t parts() const { return parts_; }

 private:
  class Builder;

  struct Copy {
    const void* from;
    Parcel::Part<char> to;
  };

  std::shared_ptr<Device> device_;  // first: it must go after the memory has gone
  Parcel parcel_;
  Event read_;
  Launch<PoolJob> pool_;
  Launch<SumJob> rows_, totals_;
  uint32_t parts_ = 0;
  // What a batch is built in. It keeps its memory.
  std::vector<LongRows> long_rows_;  // per table
  std::vector<RowSource> row_sources_;
  std::vector<GradientSource> gradient_sources_;
  std::vector<uint64_t> to_;
  std::vector<Copy> copies_;
};

}  // namespace ff
