// The file tier as Python sees it. storage/tier.py and storage/container.py wrap what is here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "crc.h"
#include "errors.h"
#include "file_tier.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ff {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Flags = nb::ndarray<const bool, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void translate(const std::exception_ptr& error, void*) {
  const nb::module_ errors = nb::module_::import_("fourfold.storage.errors");
  try {
    std::rethrow_exception(error);
  } catch (const StorageError& e) {
    const nb::object raised = errors.attr("StorageError")(e.code, e.what());
    PyErr_SetObject(raised.type().ptr(), raised.ptr());
  } catch (const CorruptionError& e) {
    PyErr_SetString(errors.attr("CorruptionError").ptr(), e.what());
  }
}

// The pieces of one call, which end with it.
struct Pieces {
  Piece* first;
  size_t n;

  Piece& at(size_t i) const {
    if (i >= n) throw nb::index_error();
    return first[i];
  }
};

// An engine behind Python functions, for tests: they pass pieces on to the real one, or fail.
class PythonDisk final : public Disk {
 public:
  using Move = std::function<void(Pieces, const Each&)>;

  PythonDisk(std::shared_ptr<Disk> real, Move read, Move write)
      : real_(std::move(real)), read_(std::move(read)), write_(std::move(write)) {}

  void read(Piece* pieces, size_t n, const Each& arrived) override { read_({pieces, n}, arrived); }
  void write(Piece* pieces, size_t n, const Each& fill) override { write_({pieces, n}, fill); }
  bool discard(uint64_t offset, size_t bytes) override { return real_->discard(offset, bytes); }
  std::string engine() const override { return real_->engine(); }

 private:
  std::shared_ptr<Disk> real_;
  Move read_, write_;
};

void bind_disk(nb::module_& m) {
  nb::class_<Piece>(m, "Piece")
      .def_ro("offset", &Piece::offset)
      .def_ro("bytes", &Piece::bytes)
      .def_rw("result", &Piece::result, "Bytes moved, or -errno.");
  nb::class_<Pieces>(m, "Pieces")
      .def("__len__", [](const Pieces& pieces) { return pieces.n; })
      .def("__getitem__", &Pieces::at, nb::rv_policy::reference)
      .def(
          "first",
          [](const Pieces& pieces, size_t n) {
            return Pieces{pieces.first, std::min(n, pieces.n)};
          },
          "n"_a, "The first n of them.");
  nb::class_<Disk>(m, "Disk", "Moves many pieces of one file at once.")
      .def_static("open", &make_disk, "file"_a, "engine"_a, "depth"_a)
      .def(
          "read",
          [](Disk& disk, Pieces pieces, const Disk::Each& arrived) {
            nb::gil_scoped_release release;
            disk.read(pieces.first, pieces.n, arrived);
          },
          "pieces"_a, "arrived"_a)
      .def(
          "write",
          [](Disk& disk, Pieces pieces, const Disk::Each& fill) {
            nb::gil_scoped_release release;
            disk.write(pieces.first, pieces.n, fill);
          },
          "pieces"_a, "fill"_a)
      .def_prop_ro("engine", &Disk::engine);
  nb::class_<PythonDisk, Disk>(m, "PythonDisk")
      .def(nb::init<std::shared_ptr<Disk>, PythonDisk::Move, PythonDisk::Move>(), "real"_a,
           "read"_a, "write"_a);
}

nb::object live(const FileTier& tier, size_t kind) {
  auto* const bits = new std::vector<uint8_t>;
  nb::capsule owner(bits, [](void* p) noexcept { delete static_cast<std::vector<uint8_t>*>(p); });
  {
    nb::gil_scoped_release release;
    *bits = tier.live(kind);
  }
  return nb::cast(
      nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(bits->data(), {bits->size()}, owner));
}

void bind_facts(nb::module_& m) {
  nb::class_<KindFacts>(m, "KindFacts")
      .def(
          "__init__",
          [](KindFacts* facts, std::string dataset, size_t record_bytes, size_t segment_bytes) {
            new (facts) KindFacts{std::move(dataset), record_bytes, segment_bytes};
          },
          "dataset"_a, "record_bytes"_a, "segment_bytes"_a);
  nb::class_<TileFacts>(m, "TileFacts")
      .def(
          "__init__",
          [](TileFacts* facts, std::string label, uint64_t key_base, uint32_t key_bits,
             std::optional<int64_t> positions, uint32_t kind) {
            new (facts)
                TileFacts{std::move(label), {key_base, key_bits}, positions.value_or(-1), kind};
          },
          "label"_a, "key_base"_a, "key_bits"_a, "positions"_a.none(), "kind"_a);
}

// An error of Python must not cross threads: it can be raised once only, and dies with the GIL.
FileTier::Extend without_python_errors(FileTier::Extend extend) {
  return [extend = std::move(extend)](uint32_t kind, size_t count) {
    nb::gil_scoped_acquire gil;
    try {
      return extend(kind, count);
    } catch (nb::python_error& error) {
      const nb::object value = nb::borrow(error.value());
      const nb::object code = nb::getattr(value, "errno", nb::none());
      if (code.is_none()) throw StorageError(EIO, nb::cast<std::string>(nb::str(value)));
      throw StorageError(nb::cast<int>(code),
                         nb::cast<std::string>(nb::str(value.attr("strerror"))));
    }
  };
}

}  // namespace

void bind_file(nb::module_& m) {
  nb::register_exception_translator(translate);
  bind_disk(m);
  bind_facts(m);

  nb::class_<FileTier, Tier>(m, "FileTier")
      .def(
          "__init__",
          [](FileTier* tier, std::vector<KindFacts> kinds, std::vector<TileFacts> tiles,
             std::string path, std::optional<size_t> budget, size_t buffer_bytes,
             std::shared_ptr<Disk> disk, FileTier::Extend extend) {
            new (tier)
                FileTier(std::move(kinds), std::move(tiles),
                         {std::move(path), budget.value_or(FileTier::UNLIMITED), buffer_bytes},
                         std::move(disk), without_python_errors(std::move(extend)));
          },
          nb::kw_only(), "kinds"_a, "tiles"_a, "path"_a, "budget"_a.none(), "buffer_bytes"_a,
          "disk"_a, "extend"_a)
      .def("charge_to", &FileTier::charge_to, "charge"_a.none())
      .def("contains", &FileTier::contains, "tile"_a, "key"_a,
           nb::call_guard<nb::gil_scoped_release>())
      .def(
          "space",
          [](const FileTier& tier, size_t kind) {
            const FileTier::Space space = tier.space(kind);
            return std::make_tuple(space.segments, space.free, space.live);
          },
          "kind"_a, "Segments of a kind, those of them that are free, and rows that live.",
          nb::call_guard<nb::gil_scoped_release>())
      .def("live", &live, "kind"_a)
      .def("discard_free", &FileTier::discard_free, nb::call_guard<nb::gil_scoped_release>())
      .def(
          "restore",
          [](FileTier& tier, size_t kind, std::vector<uint64_t> offsets, Flags live) {
            nb::gil_scoped_release release;
            tier.restore(kind, offsets, live.data());
          },
          "kind"_a, "offsets"_a, "live"_a.noconvert())
      .def_prop_ro("memory", &FileTier::memory)
      .def_prop_ro("engine", &FileTier::engine);

  m.def(
      "page_layout",
      [](size_t record_bytes) {
        const PageLayout layout = PageLayout::of(record_bytes);
        return std::make_tuple(layout.page_bytes, layout.rows, layout.stored_bytes);
      },
      "record_bytes"_a, "Bytes of a page, records in it, and bytes of each.");
  m.def(
      "crc32c",
      [](Bytes data, bool plain) {
        const char* const bytes = reinterpret_cast<const char*>(data.data());
        return plain ? crc32c_plain(bytes, data.size()) : crc32c(bytes, data.size());
      },
      "data"_a.noconvert(), "plain"_a = false, "CRC-32C; `plain` without the CPU's instruction.");
}

}  // namespace ff
