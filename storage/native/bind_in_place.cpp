// Rows of a GPU whose records are read and written in place, as Python sees them (in_place.py).
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <optional>

#include "pad.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ff {
namespace {

std::optional<size_t> or_never(size_t bytes) {
  return bytes == Crossover::NEVER ? std::nullopt : std::optional(bytes);
}

}  // namespace

void bind_in_place(nb::module_& m) {
  m.def(
      "in_place",
      [](const Pad& pad) {
        InPlace now;
        {
          nb::gil_scoped_release release;
          now = pad.rows().in_place();
        }
        const Crossover from = now.from.value_or(Crossover{});
        return std::tuple{now.pinned_bytes,     now.refusal,         now.rows,
                          now.from.has_value(), or_never(from.load), or_never(from.store)};
      },
      "pad"_a);
  m.def(
      "set_in_place",
      [](Pad& pad, std::optional<size_t> loads_from, std::optional<size_t> stores_from) {
        nb::gil_scoped_release release;
        pad.rows().set_in_place(
            {loads_from.value_or(Crossover::NEVER), stores_from.value_or(Crossover::NEVER)});
      },
      "pad"_a, "loads_from"_a.none(), "stores_from"_a.none());
  m.def(
      "measure_crossover",
      [](const Device& device, int threads, size_t rows) {
        nb::gil_scoped_release release;
        const Crossover from = Crossover::measure(device, threads, rows);
        return std::tuple{or_never(from.load), or_never(from.store)};
      },
      "device"_a, "threads"_a, "rows"_a = size_t{Crossover::ROWS});
}

}  // namespace ff
