// NumPy arrays in and out of the native core: views of memory with an owner, matrices of a caller.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstring>
#include <memory>
#include <string>

#include "array.h"
#include "half.h"
#include "step.h"

namespace ff {

namespace nb = nanobind;

template <class T>
using Numpy = nb::ndarray<nb::numpy, T, nb::ndim<1>>;

// A NumPy view that keeps `owner` alive, and with it the memory.
template <class T, class Owner>
Numpy<T> view(const Array<T>& array, const std::shared_ptr<Owner>& owner) {
  static T none{};
  T* const data = array.size() > 0 ? const_cast<T*>(array.data()) : &none;
  nb::capsule capsule(new std::shared_ptr<Owner>(owner), [](void* held) noexcept {
    delete static_cast<std::shared_ptr<Owner>*>(held);
  });
  return Numpy<T>(data, {array.size()}, capsule);
}

template <class T>
Numpy<T> copy(const Array<T>& array) {
  auto own = std::make_shared<Array<T>>();
  own->resize(array.size());
  if (array.size() > 0) std::memcpy(own->data(), array.data(), array.size() * sizeof(T));
  return view(*own, own);
}

using ReadArray = nb::ndarray<nb::ro, nb::device::cpu>;
using WriteArray = nb::ndarray<nb::device::cpu>;  // refuses read-only arrays

template <class AnyArray>
Dtype dtype_of(const AnyArray& array, const char* what) {
  const nb::dlpack::dtype dtype = array.dtype();
  if (dtype == nb::dtype<float>()) return Dtype::fp32;
  if (dtype == nb::dtype<uint16_t>()) return Dtype::bf16;
  if (dtype.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Bfloat) && dtype.bits == 16)
    return Dtype::bf16;
  if (dtype.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) && dtype.bits == 16)
    return Dtype::fp16;
  throw nb::value_error(
      (std::string(what) + ": expected float32, float16, or bfloat16 (as uint16)").c_str());
}

template <class AnyArray>
Matrix matrix_of(const AnyArray& array, Dtype dtype, size_t rows, size_t columns,
                 const std::string& what) {
  const auto text = [](size_t a, size_t b) {
    return "(" + std::to_string(a) + ", " + std::to_string(b) + ")";
  };
  if (array.ndim() != 2 || array.shape(0) != rows || array.shape(1) != columns)
    throw nb::value_error((what + ": expected shape " + text(rows, columns) + ", got " +
                           (array.ndim() == 2 ? text(array.shape(0), array.shape(1))
                                              : std::to_string(array.ndim()) + " dimensions"))
                              .c_str());
  if (rows > 0 && columns > 1 && array.stride(1) != 1)
    throw nb::value_error((what + ": the columns of a row must be contiguous").c_str());
  if (dtype_of(array, what.c_str()) != dtype)
    throw nb::value_error((what + ": all arrays of a call must have the same dtype").c_str());
  return {static_cast<uint8_t*>(const_cast<void*>(array.data())),
          array.stride(0) * static_cast<int64_t>(bytes_of(dtype))};
}

}  // namespace ff
