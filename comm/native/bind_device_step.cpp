// The step on a GPU, for Python. Arrays of the device come as numbers: (address, shape, strides in
// bytes, element type).
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bind.h"
#include "device_step.h"
#include "outputs.h"

namespace ff {
namespace {

using namespace nb::literals;

using ArraySpec = std::tuple<uint64_t, std::vector<int64_t>, std::vector<int64_t>, uint8_t>;

// Looks to `matrix_of` as an array of nanobind's does.
struct DeviceArray {
  ArraySpec spec;

  size_t ndim() const { return std::get<1>(spec).size(); }
  size_t shape(size_t i) const { return static_cast<size_t>(std::get<1>(spec)[i]); }
  int64_t stride(size_t i) const { return std::get<2>(spec)[i] / bytes_of(dtype()); }
  Dtype dtype() const { return static_cast<Dtype>(std::get<3>(spec)); }
  void* data() const { return reinterpret_cast<void*>(std::get<0>(spec)); }
};

Dtype dtype_of(const DeviceArray& array, const char*) { return array.dtype(); }

Outputs outputs_of(const Router& router, const Route& route, const ArraySpec& pooled,
                   const std::vector<ArraySpec>& sequences) {
  std::vector<DeviceArray> arrays;
  for (const ArraySpec& spec : sequences) arrays.push_back({spec});
  return outputs_of(router, route, DeviceArray{pooled}, arrays);
}

// The route stays alive in Python's hands; its memory on the device belongs to it.
using Self = const std::shared_ptr<Route>&;

}  // namespace

void bind_device_step(nb::module_& m) {
  m.attr("MAX_SEQUENCES") = MAX_SEQUENCES;
  nb::class_<DeviceStep>(m, "DeviceStep")
      .def(nb::init<const Router&, std::shared_ptr<Device>>(), "router"_a, "device"_a,
           nb::keep_alive<1, 2>())
      .def(
          "upload", [](DeviceStep& step, Self route) { step.upload(*route); }, "route"_a,
          nb::call_guard<nb::gil_scoped_release>())
      .def(
          "pool",
          [](DeviceStep& step, Self route, uint64_t got, const ArraySpec& out,
             const std::vector<ArraySpec>& sequences, const Stream& stream) {
            const Outputs outputs = outputs_of(step.router(), *route, out, sequences);
            nb::gil_scoped_release release;
            step.pool(*route, reinterpret_cast<const uint8_t*>(got), outputs, stream);
          },
          "route"_a, "got"_a, "out"_a, "sequences"_a, "stream"_a)
      .def(
          "spread",
          [](DeviceStep& step, Self route, const ArraySpec& grad,
             const std::vector<ArraySpec>& sequences, uint64_t sent, const Stream& stream) {
            const Outputs gradients = outputs_of(step.router(), *route, grad, sequences);
            nb::gil_scoped_release release;
            step.spread(*route, gradients, reinterpret_cast<uint8_t*>(sent), stream);
          },
          "route"_a, "grad"_a, "sequences"_a, "sent"_a, "stream"_a);
}

}  // namespace ff
