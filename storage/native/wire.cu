// fp32 to bf16 and fp16 and back, as half.h does it, eight elements at a time.
#include "half.h"
#include "kernel.h"
#include "wire_args.h"

namespace ff {
namespace {

struct alignas(16) Eight {
  uint32_t word[4];  // two 16-bit elements each, the first in the low half
};

FF_DEVICE void load8(const void* array, uint64_t at, float (&x)[8]) {
  const float4* const from = reinterpret_cast<const float4*>(static_cast<const float*>(array) + at);
  const float4 a = from[0], b = from[1];
  x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
  x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}

FF_DEVICE void load8(const uint32_t* array, uint64_t at, uint32_t (&x)[8]) {
  const uint4* const from = reinterpret_cast<const uint4*>(array + at);
  const uint4 a = from[0], b = from[1];
  x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
  x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}

template <class T, bool STOCHASTIC>
FF_DEVICE T narrowed(float x, uint32_t random) {
  return STOCHASTIC ? stochastic<T>(x, random) : nearest<T>(x);
}

template <class T, bool STOCHASTIC>
FF_DEVICE void narrow(const WireArgs& args) {
  const uint64_t thread = uint64_t{blockIdx.x} * WIRE_THREADS + threadIdx.x;
  const uint64_t threads = uint64_t{gridDim.x} * WIRE_THREADS;
  for (uint64_t at = thread * WIRE_LANE; at < args.whole; at += threads * WIRE_LANE) {
    float x[8];
    uint32_t random[8] = {};
    load8(args.from, at, x);
    if (STOCHASTIC) load8(args.random, at, random);
    Eight eight;
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i)
      eight.word[i] =
          narrowed<T, STOCHASTIC>(x[2 * i], random[2 * i]).bits |
          static_cast<uint32_t>(narrowed<T, STOCHASTIC>(x[2 * i + 1], random[2 * i + 1]).bits)
              << 16;
    *reinterpret_cast<Eight*>(static_cast<T*>(args.to) + at) = eight;
  }
  for (uint64_t at = args.whole + thread; at < args.n; at += threads)
    static_cast<T*>(args.to)[at] = narrowed<T, STOCHASTIC>(static_cast<const float*>(args.from)[at],
                                                           STOCHASTIC ? args.random[at] : 0);
}

template <class T>
FF_DEVICE void widen(const WireArgs& args) {
  const uint64_t thread = uint64_t{blockIdx.x} * WIRE_THREADS + threadIdx.x;
  const uint64_t threads = uint64_t{gridDim.x} * WIRE_THREADS;
  for (uint64_t at = thread * WIRE_LANE; at < args.whole; at += threads * WIRE_LANE) {
    const Eight eight = *reinterpret_cast<const Eight*>(static_cast<const T*>(args.from) + at);
    float x[8];
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i)
      x[i] = to_float(T{static_cast<uint16_t>(eight.word[i / 2] >> (i % 2 * 16))});
    float4* const to = reinterpret_cast<float4*>(static_cast<float*>(args.to) + at);
    to[0] = make_float4(x[0], x[1], x[2], x[3]);
    to[1] = make_float4(x[4], x[5], x[6], x[7]);
  }
  for (uint64_t at = args.whole + thread; at < args.n; at += threads)
    static_cast<float*>(args.to)[at] = to_float(static_cast<const T*>(args.from)[at]);
}

}  // namespace

FF_KERNEL(narrow_bf16, WireArgs, 256) { narrow<Bf16, false>(args); }
FF_KERNEL(narrow_fp16, WireArgs, 256) { narrow<Fp16, false>(args); }
FF_KERNEL(narrow_stochastic_bf16, WireArgs, 256) { narrow<Bf16, true>(args); }
FF_KERNEL(narrow_stochastic_fp16, WireArgs, 256) { narrow<Fp16, true>(args); }
FF_KERNEL(widen_bf16, WireArgs, 256) { widen<Bf16>(args); }
FF_KERNEL(widen_fp16, WireArgs, 256) { widen<Fp16>(args); }

}  // namespace ff
