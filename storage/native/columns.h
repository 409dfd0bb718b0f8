// Neighbouring columns of rows in the registers of one thread of a GPU: loaded, added up, stored.
#pragma once

#include "half.h"
#include "kernel.h"

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

// V columns as they lie in memory, at most 16 bytes: one access.
template <class T, int V>
struct Columns {
  using Whole = typename Word<V * sizeof(T)>::Type;
  struct Elements {
    T at[V];
  };
  static constexpr uint32_t TOGETHER = sizeof(Whole) <= 8 ? 8 : 4;  // to ask for before the first

  Whole whole;

  FF_DEVICE static Columns load(const T* from) { return {*reinterpret_cast<const Whole*>(from)}; }
  // Where nobody writes while the kernel runs.
  FF_DEVICE static Columns load_constant(const T* from) {
    return {__ldg(reinterpret_cast<const Whole*>(from))};
  }

  FF_DEVICE void widen(float (&x)[V]) const {
    const Elements elements = bit_cast<Elements>(whole);
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] = to_float(elements.at[v]);
  }

  FF_DEVICE static void store(T* to, const Elements& elements) {
    *reinterpret_cast<Whole*>(to) = bit_cast<Whole>(elements);
  }
};

template <class T, int V>
FF_DEVICE void load(const T* from, float (&x)[V]) {
  Columns<T, V>::load(from).widen(x);
}

template <class T, int V>
FF_DEVICE void write(T* to, const T (&x)[V]) {
  typename Columns<T, V>::Elements elements;
#pragma unroll
  for (int v = 0; v < V; ++v) elements.at[v] = x[v];
  Columns<T, V>::store(to, elements);
}

// To nearest.
template <class T, int V>
FF_DEVICE void write_nearest(T* to, const float (&x)[V]) {
  typename Columns<T, V>::Elements elements;
#pragma unroll
  for (int v = 0; v < V; ++v) elements.at[v] = nearest<T>(x[v]);
  Columns<T, V>::store(to, elements);
}

// To nearest, in as few accesses as the address allows.
template <class T, int V>
FF_DEVICE void write_anywhere(T* to, const float (&x)[V]) {
  constexpr int PART = V * sizeof(T) <= 16 ? V : 16 / static_cast<int>(sizeof(T));
  typename Columns<T, PART>::Elements parts[V / PART];
#pragma unroll
  for (int v = 0; v < V; ++v) parts[v / PART].at[v % PART] = nearest<T>(x[v]);
  if (reinterpret_cast<uint64_t>(to) % (PART * sizeof(T)) == 0) {
#pragma unroll
    for (int p = 0; p < V / PART; ++p) Columns<T, PART>::store(to + p * PART, parts[p]);
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) to[v] = parts[v / PART].at[v % PART];
  }
}

// Calls f with the address as one of elements of the type.
template <class F>
FF_DEVICE void with_elements(Dtype dtype, char* at, F&& f) {
  if (dtype == Dtype::bf16)
    f(reinterpret_cast<Bf16*>(at));
  else if (dtype == Dtype::fp16)
    f(reinterpret_cast<Fp16*>(at));
  else
    f(reinterpret_cast<float*>(at));
}

template <int V>
FF_DEVICE void write_anywhere(uint8_t* to, Dtype dtype, const float (&x)[V]) {
  with_elements(dtype, reinterpret_cast<char*>(to), [&](auto* row) { write_anywhere(row, x); });
}

// Sum of weight(i) * columns_of(i), i from begin to end, in order. TOGETHER of them are asked for
// at a time; each once, in rising order.
template <class T, uint32_t TOGETHER, int V, class ColumnsOf, class Weight>
FF_DEVICE void sum_columns(uint32_t begin, uint32_t end, ColumnsOf&& columns_of, Weight&& weight,
                           float (&sum)[V]) {
#pragma unroll
  for (int v = 0; v < V; ++v) sum[v] = 0;
#pragma unroll 1
  for (uint32_t i = begin; i < end; i += TOGETHER) {
    Columns<T, V> columns[TOGETHER];
#pragma unroll
    for (uint32_t k = 0; k < TOGETHER; ++k)
      if (k < end - i) columns[k] = columns_of(i + k);
#pragma unroll
    for (uint32_t k = 0; k < TOGETHER; ++k) {
      if (k >= end - i) continue;
      const float by = weight(i + k);
      float x[V];
      columns[k].widen(x);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] = fmaf(by, x[v], sum[v]);
    }
  }
}

}  // namespace ff
