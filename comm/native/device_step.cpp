#include "device_step.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace ff {
namespace {

bool is_aligned(const Matrix& matrix) {
  return (reinterpret_cast<uint64_t>(matrix.data) | static_cast<uint64_t>(matrix.stride)) % 16 == 0;
}

Matrices matrices_of(const Outputs& outputs) {
  Matrices matrices;
  matrices.dtype = outputs.dtype;
  matrices.pooled = outputs.pooled;
  matrices.aligned = is_aligned(outputs.pooled);
  for (size_t s = 0; s < outputs.sequences.size(); ++s) {
    matrices.sequences[s] = outputs.sequences[s];
    matrices.aligned &= is_aligned(outputs.sequences[s]);
  }
  return matrices;
}

DeviceRoute& uploaded(const Route& route) {
  if (route.on_device == nullptr)
    throw std::invalid_argument("the route has not been uploaded to the device");
  return *route.on_device;
}

template <class Args, class Job>
void launch(const std::string& kernel, const Launch<Job>& jobs, Args& args, const Stream& stream) {
  args.jobs = jobs.jobs_there;
  args.first_unit = jobs.first_unit_there;
  args.num_jobs = jobs.num_jobs();
  args.units = jobs.units();
  stream.launch(kernel.c_str(), jobs.blocks(), STEP_THREADS, args);
}

}  // namespace

DeviceStep::DeviceStep(const Router& router, std::shared_ptr<Device> device)
    : router_(router), plan_(router.plan()), device_(std::move(device)), uploads_(*device_) {
  if (plan_.num_sequences > MAX_SEQUENCES)
    throw std::invalid_argument(std::to_string(plan_.num_sequences) +
                                " features with pooling 'none'; on a GPU at most " +
                                std::to_string(MAX_SEQUENCES) + " are supported");
  for (const Tile& tile : plan_.tiles) widest_ = std::max(widest_, tile.dim());
}

void DeviceStep::upload(Route& route) {
  if (route.on_device == nullptr) route.on_device = std::make_shared<DeviceRoute>(device_);
  route.on_device->upload(plan_, route, uploads_);
}

void DeviceStep::pool(const Route& route, const uint8_t* got, const Outputs& out,
                      const Stream& stream) {
  const DeviceRoute& there = uploaded(route);
  PoolArgs args{};
  args.got = got;
  args.out = matrices_of(out);
  there.begin(stream);
  launch(kernel_for("pool", plan_.wire), there.pool(), args, stream);
  there.end(stream);
}

void DeviceStep::spread(const Route& route, const Outputs& grad, uint8_t* sent,
                        const Stream& stream) {
  const DeviceRoute& there = uploaded(route);
  const int64_t stride = (int64_t{widest_} + 3) / 4 * 16;
  partial_.reserve(stream, static_cast<size_t>(there.parts()) * static_cast<size_t>(stride));
  SumArgs args{};
  args.wire = plan_.wire;
  args.sent = sent;
  args.partial = {reinterpret_cast<uint8_t*>(partial_.data()), stride};
  args.grad = matrices_of(grad);
  there.begin(stream);
  launch(kernel_for("spread", grad.dtype), there.rows(), args, stream);
  args.grad = {};
  args.grad.pooled = args.partial;
  args.grad.aligned = true;
  launch("spread_fp32", there.totals(), args, stream);
  there.end(stream);
}

}  // namespace ff
