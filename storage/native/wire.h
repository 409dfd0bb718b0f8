// Arrays of numbers in another format, in the memory of a GPU. Addresses that are multiples of 16
// bytes make it fast. std::invalid_argument for a format that does not have 16 bits.
#pragma once

#include "device.h"
#include "half.h"

namespace ff {

// To nearest even; or, with `random`, up or down, by 16 uniform low bits of each.
void narrow(const Stream& stream,
            const float* from,  // (n,)
            void* to,           // (n,) of dtype, out
            size_t n, Dtype dtype,
            const uint32_t* random = nullptr);  // (n,), or null

void widen(const Stream& stream,
           const void* from,  // (n,) of dtype
           float* to,         // (n,) out
           size_t n, Dtype dtype);

}  // namespace ff
