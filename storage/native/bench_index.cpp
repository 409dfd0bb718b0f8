// What `fourfold bench store` measures the index against: linear probing over 16-byte slots at load
// 0.6, sized for its keys once and never grown, with batched prefetch. The fastest plain hash table
// there is to write for batched lookups; it cannot grow, erase, or hold key 0.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>

#include "hash.h"
#include "mapping.h"
#include "parallel.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ff {
namespace {

class LinearProbing {
 public:
  using Keys = nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
  using Slots = nb::ndarray<nb::numpy, uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

  explicit LinearProbing(size_t capacity) : memory_(true), cells_(capacity * 10 / 6 + 64) {
    memory_.grow(cells_ * sizeof(Cell));
    memory_.populate();
  }

  void insert(Keys keys, uint32_t first_slot) {
    nb::gil_scoped_release released;
    Cell* const all = static_cast<Cell*>(memory_.data());
    for (size_t i = 0; i < keys.size(); ++i) {
      const uint64_t key = keys.data()[i];
      size_t at = home(key);
      while (all[at].key != 0 && all[at].key != key) at = next(at);
      all[at] = {key, first_slot + i};
    }
  }

  void find(Keys keys, int threads, Slots out) const {
    nb::gil_scoped_release released;
    parallel_for(threads, std::min(keys.size(), out.size()), 1, [&](size_t begin, size_t end, int) {
      find_part(keys.data() + begin, out.data() + begin, end - begin);
    });
  }

  size_t bytes() const { return memory_.bytes(); }

 private:
  static constexpr size_t GROUP = 16;
  static constexpr size_t TAIL = 32;  // cells past the last home

  struct Cell {
    uint64_t key;
    uint64_t slot;
  };

  size_t home(uint64_t key) const { return multiply_high(mix(key), cells_ - TAIL); }
  size_t next(size_t at) const { return at + 1 < cells_ ? at + 1 : 0; }

  void find_part(const uint64_t* keys, uint32_t* slots, size_t n) const {
    const Cell* const all = static_cast<const Cell*>(memory_.data());
    size_t homes[2][GROUP];
    auto prepare = [&](size_t first, size_t* to) {
      const size_t count = std::min(GROUP, n - first);
      for (size_t i = 0; i < count; ++i) {
        to[i] = home(keys[first + i]);
        __builtin_prefetch(all + to[i]);
      }
    };
    if (n > 0) prepare(0, homes[0]);
    for (size_t first = 0, turn = 0; first < n; first += GROUP, turn ^= 1) {
      if (first + GROUP < n) prepare(first + GROUP, homes[turn ^ 1]);
      const size_t count = std::min(GROUP, n - first);
      for (size_t i = 0; i < count; ++i) {
        size_t at = homes[turn][i];
        uint32_t slot = 0xffffffffu;
        for (; all[at].key != 0; at = next(at))
          if (all[at].key == keys[first + i]) {
            slot = static_cast<uint32_t>(all[at].slot);
            break;
          }
        slots[first + i] = slot;
      }
    }
  }

  Mapping memory_;
  size_t cells_;
};

}  // namespace

void bind_linear_probing(nb::module_& m) {
  nb::class_<LinearProbing>(m, "LinearProbing",
                            "The reference of the index benchmark: fixed size, no key 0.")
      .def(nb::init<size_t>(), "capacity"_a)
      .def("insert", &LinearProbing::insert, "keys"_a.noconvert(), "first_slot"_a,
           "keys[i] gets slot first_slot + i.")
      .def("find", &LinearProbing::find, "keys"_a.noconvert(), "threads"_a, "out"_a.noconvert(),
           "out (n,) uint32 receives the slots of keys (n,) uint64; 2**32 - 1 where absent.")
      .def_prop_ro("bytes", &LinearProbing::bytes);
}

}  // namespace ff
