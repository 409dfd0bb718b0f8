// The two halves of a step on the requester's side where rows and gradients lie in the memory of a
// GPU: the same sums as pool and spread (step.h), by kernels, enqueued on the stream of the step.
#pragma once

#include <cstdint>
#include <memory>

#include "device.h"
#include "device_route.h"
#include "route.h"
#include "step.h"

namespace ff {

class DeviceStep {
 public:
  // Throws std::invalid_argument for more sequences than the kernels take.
  DeviceStep(const Router& router, std::shared_ptr<Device> device);
  ~DeviceStep() { device_->finish(); }

  const Router& router() const { return router_; }

  // Starts to copy what the step needs of a route to the device, beside the step. To be called when
  // the route has been accepted, by the thread that routes.
  void upload(Route& route);

  // As pool and spread. All addresses are the device's. One thread at a time. Throw
  // std::invalid_argument for a route that was not uploaded.
  void pool(const Route& route, const uint8_t* got, const Outputs& out, const Stream& stream);
  void spread(const Route& route, const Outputs& grad, uint8_t* sent, const Stream& stream);

 private:
  const Router& router_;
  const Plan& plan_;
  std::shared_ptr<Device> device_;  // first: it must go after the memory has gone
  Stream uploads_;
  DeviceMemory partial_;  // sums over parts of long rows
  uint32_t widest_ = 0;   // columns of a tile
};

}  // namespace ff
