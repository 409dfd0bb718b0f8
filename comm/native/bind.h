// The parts of Python's view of the native core; module.cpp puts them together.
#pragma once

#include <nanobind/nanobind.h>

namespace ff {

void bind_device_memory(nanobind::module_& m);  // bind_device_memory.cpp
void bind_device_step(nanobind::module_& m);    // bind_device_step.cpp

}  // namespace ff
