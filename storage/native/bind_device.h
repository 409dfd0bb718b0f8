// The device as Python sees it. Each native core has a class of its own (NB_DOMAIN in
// CMakeLists.txt keeps their types apart), because each must be able to do without the other.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>

#include "device.h"

namespace ff {

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
      .def(nb::init<const std::string&, int, Device::Kernels>(), "library"_a, "ordinal"_a,
           "kernels"_a, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("ordinal", &Device::ordinal)
      .def_prop_ro("processors", &Device::processors);
}

}  // namespace ff
