// Arguments of the kernels in kernels.cu, which test the stand-in itself.
#pragma once

#include "config.h"

namespace ff {

struct TestArgs {
  const uint32_t* in;
  uint32_t* out;
  uint32_t count;  // elements of `in`
  uint32_t mode;
};

}  // namespace ff
