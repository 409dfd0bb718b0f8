#include "wire.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "wire_args.h"

namespace ff {
namespace {

constexpr size_t BLOCKS_PER_PROCESSOR = 16;  // twice what runs at once

bool aligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; }

void launch(const Stream& stream, const std::string& kernel, WireArgs args, Dtype dtype) {
  if (dtype == Dtype::fp32)
    throw std::invalid_argument("wire: the narrow format must be bf16 or fp16, not fp32");
  const bool all = aligned(args.from) && aligned(args.to) && aligned(args.random);
  args.whole = all ? args.n - args.n % WIRE_LANE : 0;
  const size_t lanes = all ? args.n / WIRE_LANE + args.n % WIRE_LANE : args.n;
  const size_t blocks = std::min((lanes + WIRE_THREADS - 1) / WIRE_THREADS,
                                 BLOCKS_PER_PROCESSOR * stream.device().processors());
  const std::string name = kernel + (dtype == Dtype::bf16 ? "_bf16" : "_fp16");
  stream.launch(name.c_str(), blocks, WIRE_THREADS, args);
}

}  // namespace

void narrow(const Stream& stream, const float* from, void* to, size_t n, Dtype dtype,
            const uint32_t* random) {
  launch(stream, random != nullptr ? "narrow_stochastic" : "narrow", {from, to, random, n, 0},
         dtype);
}

void widen(const Stream& stream, const void* from, float* to, size_t n, Dtype dtype) {
  launch(stream, "widen", {from, to, nullptr, n, 0}, dtype);
}

}  // namespace ff
