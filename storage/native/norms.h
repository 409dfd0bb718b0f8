// Norms of a batch's gradients. The device works them out in the step; they come to the host on
// their own, and are read when the batch counts, which is some batches later.
#pragma once

#include <vector>

#include "device.h"
#include "population.h"
#include "row_memory.h"

namespace ff {

class Norms final : public LateTouches {
 public:
  // The device must outlive this.
  Norms(const Device& device, int threads)
      : device_(&device), arrived_(device), threads_(threads) {}
  ~Norms() override;

  // A ticket that was planned and will train: whose norms they will be.
  void expect(const Ticket& ticket, const TileList& tiles, const Population& population);
  bool fetched() const { return fetched_; }
  // Once for a ticket, on the step's stream, from memory of the device: (groups of all runs,).
  void fetch(const float* norms, const Stream& step);
  // Waits for the norms, if there are any.
  std::vector<Touch> take() override;

 private:
  struct Part {  // a run whose rows can be reclaimed
    uint32_t tile;
    size_t begin, end;  // of its rows here
    size_t first_norm;
  };

  void read();

  const Device* device_;
  const Population* population_ = nullptr;
  PinnedMemory here_;
  Event arrived_;
  int threads_;
  bool fetched_ = false;
  uint16_t tick_ = 0;
  size_t count_ = 0;
  std::vector<Part> parts_;
  std::vector<Meta*> rows_;
  std::vector<Touch> touches_;
};

}  // namespace ff
