#include "bind_device.h"

namespace ff {

void bind_device(nanobind::module_& m) { bind_device(m, "fourfold.storage.errors"); }

}  // namespace ff
