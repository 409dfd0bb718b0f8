// The index as Python sees it, for tests and benchmarks: the pad uses index.h itself.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <mutex>
#include <optional>
#include <shared_mutex>
#include <stdexcept>

#include "index.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ff {

void bind_linear_probing(nb::module_& m);  // bench_index.cpp

namespace {

using Keys = nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Slots = nb::ndarray<nb::numpy, uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> new_vector(size_t n) {
  T* const data = new T[n];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return {data, {n}, owner};
}

// An Index that gives out slots 0, 1, 2, ... and may be used by several Python threads.
class NumberedIndex {
 public:
  explicit NumberedIndex(size_t expected, bool huge_pages) : index_(expected, huge_pages) {}

  Slots find(Keys keys, int threads, std::optional<Slots> out) const {
    if (out && out->size() != keys.size())
      throw nb::value_error("Index.find: out must have as many elements as keys");
    Slots slots = out ? *out : Slots(new_vector<uint32_t>(keys.size()));
    nb::gil_scoped_release released;
    std::shared_lock lock(mutex_);
    index_.find(keys.data(), slots.data(), keys.size(), threads);
    return slots;
  }

  std::pair<Slots, size_t> insert(Keys keys, int threads) {
    Slots slots(new_vector<uint32_t>(keys.size()));
    nb::gil_scoped_release released;
    std::unique_lock lock(mutex_);
    const size_t num_new = index_.find_or_insert(
        keys.data(), slots.data(), keys.size(), [this](size_t) { return next_slot(); }, threads);
    return {slots, num_new};
  }

  size_t erase(Keys keys) {
    nb::gil_scoped_release released;
    std::unique_lock lock(mutex_);
    return index_.erase(keys.data(), keys.size());
  }

  nb::object items() const {
    std::shared_lock lock(mutex_);  // with the interpreter's lock held: writers never wait for it
    auto keys = new_vector<uint64_t>(index_.size());
    auto slots = new_vector<uint32_t>(index_.size());
    size_t i = 0;
    index_.for_each([&](uint64_t key, uint32_t slot) {
      keys.data()[i] = key;
      slots.data()[i++] = slot;
    });
    return nb::make_tuple(keys, slots);
  }

  void clear() {
    std::unique_lock lock(mutex_);
    index_.clear();
    next_ = 0;
  }

  std::pair<size_t, size_t> probes() const {
    std::shared_lock lock(mutex_);
    return index_.probes();
  }

  bool consistent() const {
    std::shared_lock lock(mutex_);
    return index_.consistent();
  }

  size_t size() const { return index_.size(); }
  size_t bytes() const { return index_.bytes(); }

 private:
  uint32_t next_slot() {
    if (next_ == Index::NONE)
      throw std::overflow_error("Index.insert: all 2^32 - 1 slots have been given out; clear()");
    return next_++;
  }

  mutable std::shared_mutex mutex_;
  Index index_;
  uint32_t next_ = 0;
};

}  // namespace

void bind_index(nb::module_& m) {
  nb::class_<NumberedIndex>(m, "Index",
                            "Exact map of uint64 keys to uint32 slots 0, 1, 2, ... in the order in "
                            "which new keys come. Thread-safe: finds run together, changes alone.")
      .def(nb::init<size_t, bool>(), "expected"_a = 0, "huge_pages"_a = true,
           "Empty, with memory in place for `expected` keys (below 2**32 - 1, else ValueError).")
      .def("find", &NumberedIndex::find, "keys"_a.noconvert(), "threads"_a = 1,
           "out"_a.noconvert() = nb::none(),
           "Slots (n,) uint32 of keys (n,) uint64; 2**32 - 1 where a key is absent.")
      .def("insert", &NumberedIndex::insert, "keys"_a.noconvert(), "threads"_a = 1,
           "Slots (n,) uint32 of keys (n,) uint64 and the number of keys that were absent and have "
           "now entered, numbered in the order of the batch.")
      .def("erase", &NumberedIndex::erase, "keys"_a.noconvert(),
           "Removes keys (n,) uint64 and returns how many of them were present.")
      .def("items", &NumberedIndex::items,
           "All keys (n,) uint64 and their slots (n,) uint32, in an order spread over the hashes.",
           nb::sig("def items(self) -> tuple[NDArray[numpy.uint64], NDArray[numpy.uint32]]"))
      .def("clear", &NumberedIndex::clear, "Forgets all keys and returns the memory.")
      .def("probes", &NumberedIndex::probes,
           "Buckets looked at to find every present key once: their sum, and the most for one key.")
      .def("consistent", &NumberedIndex::consistent,
           "Whether every key can be found where it is and all overflow counts are true.")
      .def("__len__", &NumberedIndex::size)
      .def_prop_ro("bytes", &NumberedIndex::bytes, "Memory taken from the system.");
  bind_linear_probing(m);
}

}  // namespace ff
