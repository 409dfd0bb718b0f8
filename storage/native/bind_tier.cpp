// The tiers below the pad as Python sees them. storage/tier.py wraps what is here in plain types.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>

#include "host_tier.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ff {
namespace {

template <class T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Records = nb::ndarray<uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Found = nb::ndarray<bool, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::vector<RowRef> refs(uint32_t tile, const Vector<uint64_t>& keys, uint8_t* records,
                         size_t record_bytes) {
  std::vector<RowRef> rows;
  rows.reserve(keys.size());
  for (size_t i = 0; i < keys.size(); ++i)
    rows.push_back({tile, keys.data()[i], reinterpret_cast<char*>(records + i * record_bytes)});
  return rows;
}

}  // namespace

void bind_tier(nb::module_& m) {
  nb::class_<Tier>(m, "Tier")
      .def(
          "read",
          [](Tier& tier, uint32_t tile, Vector<uint64_t> keys, Records records, Found found) {
            const auto rows = refs(tile, keys, records.data(), records.shape(1));
            nb::gil_scoped_release release;
            tier.read(rows.data(), rows.size(), found.data());
          },
          "tile"_a, "keys"_a.noconvert(), "records"_a.noconvert(), "found"_a.noconvert())
      .def(
          "write",
          [](Tier& tier, uint32_t tile, Vector<uint64_t> keys, Records records) {
            const auto rows = refs(tile, keys, records.data(), records.shape(1));
            nb::gil_scoped_release release;
            tier.write(rows.data(), rows.size());
          },
          "tile"_a, "keys"_a.noconvert(), "records"_a.noconvert())
      .def(
          "erase",
          [](Tier& tier, uint32_t tile, Vector<uint64_t> keys) {
            const auto rows = refs(tile, keys, nullptr, 0);
            nb::gil_scoped_release release;
            return tier.erase(rows.data(), rows.size());
          },
          "tile"_a, "keys"_a.noconvert())
      .def(
          "keys",
          [](const Tier& tier, size_t tile) {
            auto* const keys = new std::vector<uint64_t>;
            nb::capsule owner(
                keys, [](void* p) noexcept { delete static_cast<std::vector<uint64_t>*>(p); });
            {
              nb::gil_scoped_release release;
              *keys = tier.keys(tile);
            }
            return nb::cast(
                nb::ndarray<nb::numpy, uint64_t, nb::ndim<1>>(keys->data(), {keys->size()}, owner));
          },
          "tile"_a)
      .def("rows", &Tier::rows, "tile"_a)
      .def_prop_ro("bytes", &Tier::bytes);

  nb::class_<HostTier, Tier>(m, "HostTier")
      .def(
          "__init__",
          [](HostTier* tier, std::vector<TileSpec> tiles, Vector<uint64_t> base,
             Vector<uint32_t> bits, std::optional<size_t> budget, bool huge_pages) {
            std::vector<KeyRange> keys;
            for (size_t t = 0; t < tiles.size(); ++t)
              keys.push_back({base.data()[t], bits.data()[t]});
            new (tier) HostTier(std::move(tiles), std::move(keys), budget.value_or(Pool::UNLIMITED),
                                huge_pages);
          },
          "tiles"_a, "key_base"_a, "key_bits"_a, "budget"_a.none(), "huge_pages"_a);
}

}  // namespace ff
