// The arithmetic headers over whole arrays: what tests compare with references, and what tells
// other parts of the program where a row lives.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <vector>

#include "half.h"
#include "hash.h"
#include "init.h"
#include "parallel.h"
#include "vector.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ff {
namespace {

template <class T>
using In = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<nb::numpy, T, nb::ndim<1>>;

template <class T, class F>
Out<T> fill(size_t n, F&& element) {
  T* const data = new T[n];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  nb::gil_scoped_release release;
  for (size_t i = 0; i < n; ++i) data[i] = element(i);
  nb::gil_scoped_acquire acquire;
  return Out<T>(data, {n}, owner);
}

// Values of 16-bit types cross as their bits.
Out<uint16_t> narrow(In<float> values, int dtype) {
  const float* const x = values.data();
  if (static_cast<Dtype>(dtype) == Dtype::bf16)
    return fill<uint16_t>(values.size(), [=](size_t i) { return nearest<Bf16>(x[i]).bits; });
  return fill<uint16_t>(values.size(), [=](size_t i) { return nearest<Fp16>(x[i]).bits; });
}

Out<uint16_t> narrow_stochastic(In<float> values, In<uint32_t> random, int dtype) {
  const float* const x = values.data();
  const uint32_t* const r = random.data();
  if (values.size() != random.size())
    throw nb::value_error("narrow_stochastic: values and random differ in length");
  if (static_cast<Dtype>(dtype) == Dtype::bf16)
    return fill<uint16_t>(values.size(),
                          [=](size_t i) { return stochastic<Bf16>(x[i], r[i]).bits; });
  return fill<uint16_t>(values.size(), [=](size_t i) { return stochastic<Fp16>(x[i], r[i]).bits; });
}

Out<float> widen(In<uint16_t> values, int dtype) {
  const uint16_t* const x = values.data();
  if (static_cast<Dtype>(dtype) == Dtype::bf16)
    return fill<float>(values.size(), [=](size_t i) { return to_float(Bf16{x[i]}); });
  return fill<float>(values.size(), [=](size_t i) { return to_float(Fp16{x[i]}); });
}

// The conversions of vector.h, 16 lanes at a time.
Out<uint16_t> narrow_lanes(In<float> values, int dtype) {
  const size_t n = values.size() / 16 * 16;
  uint16_t* const data = new uint16_t[n];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<uint16_t*>(p); });
  using L = Lanes<16>;
  for (size_t i = 0; i < n; i += 16) {
    if (static_cast<Dtype>(dtype) == Dtype::bf16)
      L::store(reinterpret_cast<Bf16*>(data + i), L::load(values.data() + i));
    else
      L::store(reinterpret_cast<Fp16*>(data + i), L::load(values.data() + i));
  }
  return Out<uint16_t>(data, {n}, owner);
}

Out<float> widen_lanes(In<uint16_t> values, int dtype) {
  const size_t n = values.size() / 16 * 16;
  float* const data = new float[n];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  using L = Lanes<16>;
  for (size_t i = 0; i < n; i += 16) {
    if (static_cast<Dtype>(dtype) == Dtype::bf16)
      L::store(data + i, L::load(reinterpret_cast<const Bf16*>(values.data() + i)));
    else
      L::store(data + i, L::load(reinterpret_cast<const Fp16*>(values.data() + i)));
  }
  return Out<float>(data, {n}, owner);
}

}  // namespace

void bind_arithmetic(nb::module_& m) {
  m.def(
      "bucket_of",
      [](In<int64_t> ids, uint64_t table, uint64_t buckets, bool dynamic) {
        const int64_t* const x = ids.data();
        const uint64_t salt = bucket_salt(table);
        return fill<int64_t>(ids.size(), [=](size_t i) -> int64_t {
          return dynamic ? bucket_of_dynamic(x[i], buckets, salt)
                         : bucket_of_static(x[i], buckets, salt);
        });
      },
      "ids"_a, "table"_a, "buckets"_a, "dynamic"_a, "Row bucket of each id >= 0 (hash.h).");
  m.def(
      "id_of",
      [](In<int64_t> positions, uint64_t table, uint64_t bucket, uint64_t buckets) {
        const int64_t* const x = positions.data();
        const uint64_t salt = bucket_salt(table);
        return fill<int64_t>(positions.size(), [=](size_t i) -> int64_t {
          return id_of(x[i], bucket, buckets, salt);
        });
      },
      "positions"_a, "table"_a, "bucket"_a, "buckets"_a,
      "Id at each position of a bucket of a static table.");
  m.def(
      "bucket_rows",
      [](uint64_t rows, uint64_t table, uint64_t bucket, uint64_t buckets) {
        return bucket_rows(rows, bucket, buckets, bucket_salt(table));
      },
      "rows"_a, "table"_a, "bucket"_a, "buckets"_a, "Rows of a bucket of a static table.");
  m.def(
      "normal_of",
      [](In<float> x) {
        const float* const values = x.data();
        return fill<float>(x.size(), [=](size_t i) { return normal_of(values[i]); });
      },
      "x"_a, "sqrt(2) * erfinv(x)");
  m.def("narrow", &narrow, "values"_a, "dtype"_a, "fp32 to the bits of bf16 or fp16, to nearest.");
  m.def("narrow_stochastic", &narrow_stochastic, "values"_a, "random"_a, "dtype"_a);
  m.def("widen", &widen, "values"_a, "dtype"_a, "Bits of bf16 or fp16 to fp32.");
  m.def("narrow_lanes", &narrow_lanes, "values"_a, "dtype"_a);
  m.def("widen_lanes", &widen_lanes, "values"_a, "dtype"_a);
  m.def(
      "parallel_sums",
      [](size_t n, int threads, int calls) {
        // For tests: the calls overlap with those of other Python threads.
        nb::gil_scoped_release release;
        size_t total = 0;
        for (int call = 0; call < calls; ++call) {
          std::vector<size_t> sums(static_cast<size_t>(threads));
          parallel_for(threads, n, 1, [&](size_t begin, size_t end, int worker) {
            for (size_t i = begin; i < end; ++i) sums[static_cast<size_t>(worker)] += i;
          });
          for (const size_t sum : sums) total += sum;
        }
        return total;
      },
      "n"_a, "threads"_a, "calls"_a);
}

}  // namespace ff
