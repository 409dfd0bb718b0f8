// Memory of a GPU, pinned memory, streams and events, for Python. Addresses are plain numbers.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>

#include <memory>
#include <string>

#include "bind.h"
#include "device.h"

namespace ff {
namespace {

namespace nb = nanobind;
using namespace nb::literals;

// The device is named first: it must go after what it gave.
template <class T>
struct Of {
  std::shared_ptr<Device> device;
  T it;
};

struct DeviceBuffer : Of<DeviceMemory> {
  ~DeviceBuffer() {
    if (it.data() != nullptr) device->finish();
  }
};

// Grows, never shrinks. An array handed out keeps its memory alive.
class PinnedBuffer {
 public:
  using Memory = Of<PinnedMemory>;

  explicit PinnedBuffer(std::shared_ptr<Device> device)
      : memory_(std::make_shared<Memory>(Memory{std::move(device), {}})) {}

  nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>> reserve(size_t bytes) {
    if (bytes > memory_->it.bytes() || memory_->it.data() == nullptr) {
      const std::shared_ptr<Device> device = memory_->device;
      const size_t room = bytes + bytes / 4 + 64;
      memory_ = std::make_shared<Memory>(Memory{device, PinnedMemory(*device, room)});
    }
    nb::capsule owner(new std::shared_ptr<Memory>(memory_), [](void* held) noexcept {
      delete static_cast<std::shared_ptr<Memory>*>(held);
    });
    return {reinterpret_cast<uint8_t*>(memory_->it.data()), {memory_->it.bytes()}, owner};
  }

 private:
  std::shared_ptr<Memory> memory_;
};

using Host = nb::ndarray<nb::ro, nb::device::cpu, nb::c_contig>;
using HostOut = nb::ndarray<nb::device::cpu, nb::c_contig>;

void* at(uint64_t address) { return reinterpret_cast<void*>(address); }

}  // namespace

void bind_device_memory(nb::module_& m) {
  using Release = nb::call_guard<nb::gil_scoped_release>;
  nb::class_<DeviceBuffer>(m, "DeviceBuffer")
      .def("__init__",
           [](DeviceBuffer* self, std::shared_ptr<Device> device) {
             new (self) DeviceBuffer{{std::move(device), {}}};
           })
      .def(
          "reserve",
          [](DeviceBuffer& self, size_t bytes, const Stream& stream) {
            self.it.reserve(stream, bytes);
            return reinterpret_cast<uint64_t>(self.it.data());
          },
          "bytes"_a, "stream"_a, Release());
  nb::class_<PinnedBuffer>(m, "PinnedBuffer")
      .def(nb::init<std::shared_ptr<Device>>(), "device"_a)
      .def("reserve", &PinnedBuffer::reserve, "bytes"_a);
  nb::class_<Stream>(m, "Stream")
      .def(
          "__init__",
          [](Stream* self, const Device& device, std::optional<uint64_t> handle) {
            if (handle)
              new (self) Stream(device, *handle);
            else
              new (self) Stream(device);
          },
          "device"_a, "handle"_a.none() = nb::none(), nb::keep_alive<1, 2>())
      .def_prop_ro("handle", &Stream::handle)
      .def(
          "copy_in",
          [](const Stream& self, uint64_t device, const Host& host) {
            self.copy_in(at(device), host.data(), host.nbytes());
          },
          "device"_a, "host"_a.noconvert())
      .def(
          "copy_out",
          [](const Stream& self, const HostOut& host, uint64_t device) {
            self.copy_out(host.data(), at(device), host.nbytes());
          },
          "host"_a.noconvert(), "device"_a)
      .def("wait", &Stream::wait, "event"_a)
      .def("synchronize", &Stream::synchronize, Release());
  nb::class_<Event>(m, "Event")
      .def(
          "__init__",
          [](Event* self, const Device& device, bool host_waits) {
            new (self) Event(device, host_waits ? Event::For::host : Event::For::device);
          },
          "device"_a, "host_waits"_a = true, nb::keep_alive<1, 2>())
      .def_prop_ro("handle", &Event::handle)
      .def("record", &Event::record, "stream"_a)
      .def("done", &Event::done)
      .def("synchronize", &Event::synchronize, Release());
}

}  // namespace ff
