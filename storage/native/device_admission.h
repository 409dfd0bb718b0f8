// Which ids that have no row get one, decided in the memory of a GPU (admission.h).
#pragma once

#include <vector>

#include "admission.h"
#include "device_sort.h"

namespace ff {

// Not thread-safe, and its calls are on one stream or wait for each other. Answers, and what is
// remembered after them, are bit for bit those of Admission for the same specs, bytes, seed and
// calls in the same order; the ids of a call count as calls one after the other, equal ones too.
class DeviceAdmission {
 public:
  // As SketchLayout; DeviceError if the device has not so much memory.
  DeviceAdmission(const Device& device, const std::vector<AdmissionSpec>& by_tile, size_t bytes,
                  uint64_t seed);

  // admitted[i]: whether keys[i], which has no row, gets one. With `bloom` it waits for the stream,
  // a few times.
  void admit(const Stream& stream, uint32_t tile,
             const uint64_t* keys,       // (n,)
             const uint32_t* sightings,  // (n,): how often this batch names the key, at least once
             size_t n,                   // below 2^32
             uint64_t batch,             // its number
             bool* admitted);            // (n,) out

  // What `count` remembers of keys, 0 to 15 sightings; `bloom`: 0 or 1; others 0.
  void estimate(const Stream& stream, uint32_t tile,
                const uint64_t* keys,  // (n,)
                uint32_t* estimates,   // (n,) out
                size_t n) const;

  size_t tiles() const { return layout_.tiles.size(); }
  // Of what is remembered; and of what is kept for the next batch.
  size_t bytes() const { return lines_.bytes(); }
  size_t batch_bytes() const;

 private:
  using Area = SketchLayout::Area;

  SketchLine* lines_of(const Area& area) const { return lines_.as<SketchLine>() + area.first; }
  void sort_by_line(const Stream& stream, struct SketchArgs& args);
  void meet(const Stream& stream, struct SketchArgs& args);

  SketchLayout layout_;
  DeviceMemory lines_;
  DeviceSort sort_;
  DeviceScan scan_;
  DeviceMemory line_, sorted_, order_, counts_, before_, trial_, totals_;  // of a batch
};

}  // namespace ff
