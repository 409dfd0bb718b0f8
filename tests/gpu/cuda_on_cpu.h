// The words of CUDA for kernels that the C++ compiler compiles: storage/native/kernel.h includes
// this file where no CUDA compiler is at work. README.md says how it stands in for a GPU. Only what
// the kernels of Fourfold use is here, so that a test notices the use of anything else.
#pragma once

#include <atomic>
#include <cstring>
#include <type_traits>
#include <vector>

#include "block.h"

#define FF_DEVICE inline __attribute__((always_inline))
#define FF_KERNEL(name, Args, threads)                      \
  static void name(const Args& args);                       \
  static const stand_in::Kernel name##_registered(          \
      #name, sizeof(Args), threads, +[](const void* args) { \
        static_assert(std::is_trivially_copyable_v<Args>);  \
        stand_in::begun().clear();                          \
        name(*static_cast<const Args*>(args));              \
      });                                                   \
  static void name([[maybe_unused]] const Args& args)

// Blocks that run at the same time are on threads of their own.
#define __shared__ static thread_local

#define threadIdx stand_in::thread_index
#define blockIdx stand_in::block_index
#define blockDim stand_in::block_size
#define gridDim stand_in::grid_size

// Where a call stands, in messages.
#define FF_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(FF_CALLER) { stand_in::meet_block(file, line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, FF_CALLER) {
  stand_in::meet_warp(stand_in::Meeting::warp, mask, 0, 0, file, line);
}

namespace stand_in {

template <class T>
constexpr bool is_word = std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8);

template <class To, class From>
To bits_as(From from) {
  To to{};
  __builtin_memcpy(&to, &from, sizeof to < sizeof from ? sizeof to : sizeof from);
  return to;
}

template <class T>
T shuffle(unsigned mask, T value, unsigned source, const char* file, int line) {
  static_assert(is_word<T>, "shuffles take 32 or 64 bits");
  return bits_as<T>(
      meet_warp(Meeting::shuffle, mask, bits_as<uint64_t>(value), source, file, line));
}

inline unsigned lane() { return thread_index.x % 32; }

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

// The copies that this thread has begun.
inline std::vector<Copy>& begun() {
  static thread_local std::vector<Copy> begun[1024];
  return begun[thread_index.x];
}

}  // namespace stand_in

// A shuffle may go within groups of `width` lanes; a lane that looks beyond its group gets its own.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, FF_CALLER) {
  const unsigned group = stand_in::lane() & ~unsigned(width - 1);
  return stand_in::shuffle(mask, value, group | (unsigned(source) & unsigned(width - 1)), file,
                           line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32, FF_CALLER) {
  const unsigned lane = stand_in::lane(), end = (lane & ~unsigned(width - 1)) + unsigned(width);
  const unsigned source = lane ^ unsigned(flip);
  return stand_in::shuffle(mask, value, source < end ? source : lane, file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, FF_CALLER) {
  const unsigned lane = stand_in::lane(), at = lane & unsigned(width - 1);
  return stand_in::shuffle(mask, value, at + delta < unsigned(width) ? lane + delta : lane, file,
                           line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, FF_CALLER) {
  const unsigned lane = stand_in::lane(), at = lane & unsigned(width - 1);
  return stand_in::shuffle(mask, value, at >= delta ? lane - delta : lane, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int vote, FF_CALLER) {
  return unsigned(stand_in::meet_warp(stand_in::Meeting::ballot, mask, vote != 0, 0, file, line));
}
inline int __any_sync(unsigned mask, int vote, FF_CALLER) {
  return int(stand_in::meet_warp(stand_in::Meeting::any, mask, vote != 0, 0, file, line));
}
inline int __all_sync(unsigned mask, int vote, FF_CALLER) {
  return int(stand_in::meet_warp(stand_in::Meeting::all, mask, vote != 0, 0, file, line));
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, FF_CALLER) {
  static_assert(stand_in::is_word<T>, "__match_any_sync takes 32 or 64 bits");
  return unsigned(stand_in::meet_warp(stand_in::Meeting::match, mask,
                                      stand_in::bits_as<uint64_t>(value), 0, file, line));
}
// Which lanes run together is never promised: here each runs alone.
inline unsigned __activemask() { return 1u << stand_in::lane(); }

// Atomics return what was there. Kernels of two streams may meet in them.
#define FF_ATOMIC(name, change)                                                      \
  template <class T>                                                                 \
  T name(T* at, std::type_identity_t<T> value) {                                     \
    static_assert(stand_in::is_word<T> && std::is_integral_v<T>);                    \
    stand_in::give_way();                                                            \
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);                                   \
    while (!__atomic_compare_exchange_n(at, &old, T(change), true, __ATOMIC_RELAXED, \
                                        __ATOMIC_RELAXED)) {                         \
    }                                                                                \
    return old;                                                                      \
  }
FF_ATOMIC(atomicAdd, old + value)
FF_ATOMIC(atomicExch, value)
FF_ATOMIC(atomicOr, old | value)
FF_ATOMIC(atomicAnd, old& value)
FF_ATOMIC(atomicMin, value < old ? value : old)
FF_ATOMIC(atomicMax, old < value ? value : old)
#undef FF_ATOMIC

inline float atomicAdd(float* at, float value) {
  stand_in::give_way();
  return std::atomic_ref<float>(*at).fetch_add(value, std::memory_order_relaxed);
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> wanted) {
  static_assert(stand_in::is_word<T> && std::is_integral_v<T>);
  stand_in::give_way();
  __atomic_compare_exchange_n(at, &expected, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

[[noreturn]] inline void __trap(FF_CALLER) { stand_in::fail("has called __trap", file, line); }

template <class T>
T __ldg(const T* at) {
  return *at;
}
template <class T>
T __ldcs(const T* at) {
  return *at;
}
template <class T>
void __stcs(T* at, std::type_identity_t<T> value) {
  *at = value;
}

namespace ff {

// Until a thread waits for what it copies, it finds rubbish there (kernel.h).
template <int BYTES>
void begin_copy(void* shared, const void* from) {
  struct alignas(BYTES) Word {
    unsigned char bytes[BYTES];
  };
  const Word there = *static_cast<const Word*>(from);  // looks at the addresses
  *static_cast<Word*>(shared) = there;
  memset(shared, 0xcd, BYTES);
  stand_in::begun().push_back({shared, from, BYTES});
}
inline void finish_copies() {
  for (const auto& [to, from, bytes] : stand_in::begun()) memcpy(to, from, bytes);
  stand_in::begun().clear();
}

}  // namespace ff

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __clzll(long long x) {
  return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1u) << (31 - bit);
  return reversed;
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

#undef FF_CALLER
