#include "bind_device.h"

namespace ff {

void bind_device(nanobind::module_& m) { bind_device(m, "fourfold.comm.errors"); }

}  // namespace ff
