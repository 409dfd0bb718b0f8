// A few columns of a row in the registers of one thread of a GPU, and the job of a warp.
#pragma once

#include "kernel.h"
#include "step_kernels.h"

namespace ff {

template <int BYTES>
struct Word;
template <>
struct Word<2> {
  using Type = uint16_t;
};
template <>
struct Word<4> {
  using Type = uint32_t;
};
template <>
struct Word<8> {
  using Type = uint2;
};
template <>
struct Word<16> {
  using Type = uint4;
};

// C neighbouring elements as they lie in memory, at most 16 bytes: one access.
template <class T, int C>
struct Elements {
  using Whole = typename Word<C * sizeof(T)>::Type;
  T at[C];

  static FF_DEVICE Elements load(const uint8_t* from) {
    return bit_cast<Elements>(__ldg(reinterpret_cast<const Whole*>(from)));
  }

  FF_DEVICE void store(uint8_t* to) const {
    *reinterpret_cast<Whole*>(to) = bit_cast<Whole>(*this);
  }
};

// C neighbouring columns in fp32.
template <int C>
struct Sum {
  float at[C];

  FF_DEVICE void clear() {
#pragma unroll
    for (int i = 0; i < C; ++i) at[i] = 0.0f;
  }

  template <class T>
  FF_DEVICE void take(const Elements<T, C>& x) {
#pragma unroll
    for (int i = 0; i < C; ++i) at[i] = to_float(x.at[i]);
  }

  template <class T>
  FF_DEVICE void add(const Elements<T, C>& x) {
#pragma unroll
    for (int i = 0; i < C; ++i) at[i] += to_float(x.at[i]);
  }

  template <class T>
  FF_DEVICE void add(const Elements<T, C>& x, float weight) {
#pragma unroll
    for (int i = 0; i < C; ++i) at[i] = fmaf(to_float(x.at[i]), weight, at[i]);
  }

  FF_DEVICE void scale(float by) {
#pragma unroll
    for (int i = 0; i < C; ++i) at[i] *= by;
  }

  // Rounded to nearest. In as few accesses as the address allows, for a matrix of somebody else's
  // may begin anywhere.
  template <class T>
  FF_DEVICE void store(uint8_t* to) const {
    constexpr int PART = C * sizeof(T) <= 16 ? C : 16 / static_cast<int>(sizeof(T));
    Elements<T, PART> parts[C / PART];
#pragma unroll
    for (int i = 0; i < C; ++i) parts[i / PART].at[i % PART] = nearest<T>(at[i]);
    if (reinterpret_cast<uint64_t>(to) % (PART * sizeof(T)) == 0) {
#pragma unroll
      for (int i = 0; i < C / PART; ++i) parts[i].store(to + i * PART * sizeof(T));
    } else {
#pragma unroll
      for (int i = 0; i < C; ++i) reinterpret_cast<T*>(to)[i] = parts[i / PART].at[i % PART];
    }
  }

  FF_DEVICE void store(uint8_t* to, Dtype dtype) const {
    if (dtype == Dtype::bf16)
      store<Bf16>(to);
    else if (dtype == Dtype::fp16)
      store<Fp16>(to);
    else
      store<float>(to);
  }
};

// The unit of this warp, and the job that it is a unit of. All lanes of the warp call it.
struct Unit {
  uint32_t lane, job, number;  // number: within the job

  // False for a warp beyond the last unit.
  FF_DEVICE bool find(const uint32_t* first_unit, uint32_t jobs, uint32_t units) {
    lane = threadIdx.x % WARP;
    const uint32_t unit = (blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (unit >= units) return false;
    job = 0;
    for (uint32_t j = 1; j < jobs; j += WARP) {
      const uint32_t begun =
          __ballot_sync(ALL_LANES, j + lane < jobs && first_unit[j + lane] <= unit);
      job += __popc(begun);
      if (begun != ALL_LANES) break;
    }
    number = unit - first_unit[job];
    return true;
  }
};

}  // namespace ff
