// The device as Python sees it. Each native core has a class of its own (NB_DOMAIN in
// CMakeLists.txt keeps their types apart), because each must be able to do without the other.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>

#include "device.h"

namespace ff {

// Calls Python, from whatever thread. Its errors become text, for they must not cross threads. No
// call into a native core may wait, with Python's lock held, for a thread that may come here.
inline Device::Relief relief_of(std::function<void()> callback) {
  namespace nb = nanobind;
  if (!callback) return {};
  return [callback = std::move(callback)]() -> std::string {
    const nb::gil_scoped_acquire gil;
    if (!gil.is_valid()) return "Python is shutting down";
    try {
      callback();
      return {};
    } catch (nb::python_error& error) {
      return nb::cast<std::string>(nb::str(error.value()));
    }
  };
}

// errors: the module whose class DeviceError stands for the one of device.h.
inline void bind_device(nanobind::module_& m, const char* errors) {
  namespace nb = nanobind;
  using namespace nb::literals;
  nb::register_exception_translator(
      [](const std::exception_ptr& error, void* module) {
        try {
          std::rethrow_exception(error);
        } catch (const DeviceError& e) {
          nb::object type =
              nb::module_::import_(static_cast<const char*>(module)).attr("DeviceError");
          PyErr_SetString(type.ptr(), e.what());
        }
      },
      const_cast<char*>(errors));

  nb::class_<Device>(m, "Device")
      .def(
          "__init__",
          [](Device* device, const std::string& library, int ordinal, Device::Kernels kernels,
             std::function<void()> relief) {
            new (device) Device(library, ordinal, std::move(kernels), relief_of(std::move(relief)));
          },
          "library"_a, "ordinal"_a, "kernels"_a, "relief"_a.none() = nb::none(),
          nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("ordinal", &Device::ordinal)
      .def_prop_ro("processors", &Device::processors);
}

}  // namespace ff
