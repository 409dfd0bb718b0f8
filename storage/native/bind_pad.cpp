// The pad and the pool as Python sees them. storage/pad.py wraps what is here in plain types.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <optional>

#include "errors.h"
#include "file_tier.h"
#include "pad.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ff {
namespace {

template <class T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Records = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// Raises the class of storage/errors.py that stands for a C++ error.
void translate(const std::exception_ptr& error, void*) {
  try {
    std::rethrow_exception(error);
  } catch (const BudgetError& e) {
    nb::object type = nb::module_::import_("fourfold.storage.errors").attr("BudgetError");
    PyErr_SetString(type.ptr(), e.what());
  }
}

template <class T>
void require_length(const Vector<T>& array, size_t length, const char* name) {
  if (array.size() != length)
    throw nb::value_error((std::string("Pad.plan: malformed request: ") + name + " has " +
                           std::to_string(array.size()) + " elements, expected " +
                           std::to_string(length))
                              .c_str());
}

// The arrays of a request, checked against each other and kept.
struct Arrays {
  Vector<int32_t> tile;
  Vector<int64_t> ids, first, bags;
  Vector<int32_t> lengths;
  Vector<bool> pooled;
  std::optional<Vector<float>> weights;
  Vector<bool> replies;
  std::optional<Vector<float>> credits;

  void check() const {
    require_length(first, tile.size() + 1, "first");
    require_length(bags, tile.size() + 1, "bags");
    require_length(pooled, tile.size(), "pooled");
    require_length(replies, tile.size(), "replies");
    if (weights && weights->size() > 0) require_length(*weights, ids.size(), "weights");
    if (credits) require_length(*credits, ids.size(), "credits");
  }
  Request request() const {
    const bool weighted = weights && weights->size() > 0;
    return {tile.size(),    ids.size(),
            lengths.size(), tile.data(),
            ids.data(),     first.data(),
            bags.data(),    lengths.data(),
            pooled.data(),  weighted ? weights->data() : nullptr,
            replies.data(), credits ? credits->data() : nullptr};
  }
};

std::pair<nb::object, nb::object> read(const Pad& pad, size_t tile, Vector<int64_t> ids) {
  const size_t n = ids.size(), bytes = pad.record_bytes(tile);
  uint8_t* const records = new uint8_t[n * bytes];
  nb::capsule own_records(records, [](void* p) noexcept { delete[] static_cast<uint8_t*>(p); });
  bool* const found = new bool[n];
  nb::capsule own_found(found, [](void* p) noexcept { delete[] static_cast<bool*>(p); });
  {
    nb::gil_scoped_release release;
    pad.read(tile, ids.data(), n, reinterpret_cast<char*>(records), found);
  }
  using Bytes = nb::ndarray<nb::numpy, uint8_t, nb::ndim<2>>;
  using Flags = nb::ndarray<nb::numpy, bool, nb::ndim<1>>;
  return {nb::cast(Bytes(records, {n, bytes}, own_records)),
          nb::cast(Flags(found, {n}, own_found))};
}

std::vector<KeyRange> key_ranges(Vector<uint64_t> base, Vector<uint32_t> bits) {
  std::vector<KeyRange> keys;
  for (size_t t = 0; t < base.size(); ++t) keys.push_back({base.data()[t], bits.data()[t]});
  return keys;
}

nb::object ids_of(const Pad& pad, size_t tile) {
  auto* const ids = new std::vector<int64_t>;
  nb::capsule owner(ids, [](void* p) noexcept { delete static_cast<std::vector<int64_t>*>(p); });
  {
    nb::gil_scoped_release release;
    *ids = pad.ids(tile);
  }
  return nb::cast(nb::ndarray<nb::numpy, int64_t, nb::ndim<1>>(ids->data(), {ids->size()}, owner));
}

}  // namespace

void bind_pad(nb::module_& m) {
  nb::register_exception_translator(translate);

  nb::class_<OptimizerSpec>(m, "OptimizerSpec")
      .def(
          "__init__",
          [](OptimizerSpec* spec, int kind, float eps, float beta1, float beta2, float beta,
             float l1, float l2, float initial) {
            new (spec) OptimizerSpec{
                static_cast<OptimizerKind>(kind), eps, beta1, beta2, beta, l1, l2, initial};
          },
          "kind"_a, nb::kw_only(), "eps"_a = 0.0f, "beta1"_a = 0.0f, "beta2"_a = 0.0f,
          "beta"_a = 0.0f, "l1"_a = 0.0f, "l2"_a = 0.0f, "initial"_a = 0.0f);

  nb::class_<TileSpec>(m, "TileSpec")
      .def(
          "__init__",
          [](TileSpec* spec, std::string name, uint32_t table, uint32_t dim, uint32_t column,
             int64_t rows, uint32_t bucket, uint32_t buckets, int dtype, OptimizerSpec optimizer,
             int init, float scale, uint64_t seed, int admission, double admit_probability,
             uint32_t admit_count, uint64_t time_to_live, bool high_priority, bool absent_zeros) {
            new (spec) TileSpec{
                std::move(name),
                table,
                dim,
                column,
                rows,
                bucket,
                buckets,
                static_cast<Dtype>(dtype),
                optimizer,
                Init{static_cast<InitKind>(init), scale},
                seed,
                {static_cast<AdmissionSpec::Kind>(admission), admit_probability, admit_count},
                time_to_live,
                high_priority,
                absent_zeros};
          },
          nb::kw_only(), "name"_a, "table"_a, "dim"_a, "column"_a, "rows"_a, "bucket"_a,
          "buckets"_a, "dtype"_a, "optimizer"_a, "init"_a, "scale"_a, "seed"_a, "admission"_a,
          "admit_probability"_a, "admit_count"_a, "time_to_live"_a, "high_priority"_a,
          "absent_zeros"_a)
      .def(
          "row_bytes",
          [](const TileSpec& spec) {
            return RowLayout::of(spec.dim, spec.dtype, spec.optimizer.element_states(),
                                 spec.optimizer.row_states())
                .row_bytes();
          },
          "Bytes of a row in memory.");

  nb::class_<Ticket>(m, "Ticket", "The plan of one batch on this rank.")
      .def_ro("train", &Ticket::train, "Whether rows may be updated with it.")
      .def_ro("released", &Ticket::released)
      .def_ro("rows", &Ticket::rows, "Ids asked for, over all segments.")
      .def_ro("unique", &Ticket::unique, "Distinct rows that get a gradient (training).")
      .def_ro("new", &Ticket::born, "Rows that were born with this plan.")
      .def_ro("missing", &Ticket::missing,
              "Ids without a row: they read as their table says, and train nothing.");

  nb::class_<Policy>(m, "Policy", "What rows may take, and how those that go are chosen.")
      .def(
          "__init__",
          [](Policy* policy, int ranking, bool gradients, double decay, uint32_t interval,
             uint64_t max_rows, uint64_t max_bytes, double share, double free,
             size_t admission_bytes) {
            new (policy) Policy{ranking >= 0, static_cast<Ranking>(std::max(ranking, 0)),
                                gradients,    decay,
                                interval,     max_rows,
                                max_bytes,    share,
                                free,         admission_bytes};
          },
          nb::kw_only(), "ranking"_a, "gradients"_a, "decay"_a, "interval"_a, "max_rows"_a,
          "max_bytes"_a, "share"_a, "free"_a, "admission_bytes"_a);

  nb::class_<Arrays>(m, "Request", "The arrays of a request, checked against each other.")
      .def(
          "__init__",
          [](Arrays* arrays, Vector<int32_t> tile, Vector<int64_t> ids, Vector<int64_t> first,
             Vector<int64_t> bags, Vector<int32_t> lengths, Vector<bool> pooled,
             std::optional<Vector<float>> weights, Vector<bool> replies,
             std::optional<Vector<float>> credits) {
            new (arrays) Arrays{tile, ids, first, bags, lengths, pooled, weights, replies, credits};
            arrays->check();
          },
          "tile"_a.noconvert(), "ids"_a.noconvert(), "first"_a.noconvert(), "bags"_a.noconvert(),
          "lengths"_a.noconvert(), "pooled"_a.noconvert(), "weights"_a.noconvert().none(),
          "replies"_a.noconvert(), "credits"_a.noconvert().none());

  nb::class_<Pad>(m, "Pad")
      .def(
          "__init__",
          [](Pad* pad, std::vector<TileSpec> tiles, Vector<uint64_t> key_base,
             Vector<uint32_t> key_bits, std::optional<size_t> budget, int threads, bool huge_pages,
             const Policy& policy, HostTier* host, FileTier* file, const Device* device) {
            if (file != nullptr) file->charge_to([host](ptrdiff_t bytes) { host->charge(bytes); });
            new (pad) Pad(std::move(tiles), key_ranges(key_base, key_bits),
                          budget.value_or(Pool::UNLIMITED), threads, huge_pages, policy, host, file,
                          device);
          },
          "tiles"_a, "key_base"_a, "key_bits"_a, "budget"_a.none(), "threads"_a, "huge_pages"_a,
          "policy"_a, "host"_a.none(), "file"_a.none(), "device"_a.none(), nb::keep_alive<1, 9>(),
          nb::keep_alive<1, 10>(), nb::keep_alive<1, 11>(), nb::keep_alive<10, 9>())
      .def(
          "plan",
          [](Pad& pad, const Arrays& arrays, bool train) {
            nb::gil_scoped_release release;
            return pad.plan(arrays.request(), train);
          },
          "request"_a, "train"_a, nb::keep_alive<0, 1>())  // a ticket has memory of the pad's GPU
      .def(
          "try_plan",
          [](Pad& pad, const Arrays& arrays, bool train) {
            nb::gil_scoped_release release;
            return pad.try_plan(arrays.request(), train);
          },
          "request"_a, "train"_a, nb::keep_alive<0, 1>())
      .def(
          "foresee",
          [](Pad& pad, const Arrays& arrays) {
            nb::gil_scoped_release release;
            pad.foresee(arrays.request());
          },
          "request"_a)
      .def("forget_foreseen", &Pad::forget_foreseen, nb::call_guard<nb::gil_scoped_release>())
      .def("wait_for_room", &Pad::wait_for_room, "seconds"_a,
           nb::call_guard<nb::gil_scoped_release>())
      .def("wait", &Pad::wait, "ticket"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("close", &Pad::close, nb::call_guard<nb::gil_scoped_release>())
      .def("traffic",
           [](Pad& pad) {
             Traffic t;
             if (pad.tiers()) {
               nb::gil_scoped_release release;
               t = pad.tiers()->traffic();
             }
             return std::vector<double>{
                 static_cast<double>(t.pad_hits),        static_cast<double>(t.host_hits),
                 static_cast<double>(t.file_hits),       static_cast<double>(t.born),
                 static_cast<double>(t.host_read_bytes), static_cast<double>(t.host_written_bytes),
                 static_cast<double>(t.file_read_bytes), static_cast<double>(t.file_written_bytes),
                 static_cast<double>(t.fetch_ns) * 1e-9, static_cast<double>(t.write_ns) * 1e-9};
           })
      .def(
          "trace",
          [](Pad& pad, bool on) {
            if (pad.tiers()) pad.tiers()->spans().record(on);
          },
          "on"_a)
      .def("spans",
           [](Pad& pad) {
             std::vector<std::tuple<std::string, std::string, int64_t, int64_t, uint64_t>> spans;
             if (!pad.tiers()) return spans;
             for (const Span& span : pad.tiers()->spans().take())
               spans.emplace_back(span.thread, span.name, span.begin_ns, span.end_ns, span.rows);
             return spans;
           })
      .def(
          "gather",
          [](Pad& pad, const Ticket& ticket, Vector<uint64_t> addresses, int wire,
             uint64_t stream) {
            nb::gil_scoped_release release;
            pad.gather(ticket, addresses.data(), addresses.size(), static_cast<Dtype>(wire),
                       stream);
          },
          "ticket"_a, "addresses"_a.noconvert(), "wire"_a, "stream"_a = 0)
      .def(
          "update",
          [](Pad& pad, Ticket& ticket, Vector<uint64_t> addresses, int wire, float lr,
             uint64_t step, uint64_t stream) {
            nb::gil_scoped_release release;
            pad.update(ticket, addresses.data(), addresses.size(), static_cast<Dtype>(wire), lr,
                       step, stream);
          },
          "ticket"_a, "addresses"_a.noconvert(), "wire"_a, "lr"_a, "step"_a, "stream"_a = 0)
      .def("release", &Pad::release, "ticket"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("read", &read, "tile"_a, "ids"_a.noconvert())
      .def(
          "write",
          [](Pad& pad, size_t tile, Vector<int64_t> ids, Records records) {
            if (records.shape(0) != ids.size() || records.shape(1) != pad.record_bytes(tile))
              throw nb::value_error("Pad.write: records must be (number of ids, record bytes)");
            nb::gil_scoped_release release;
            pad.write(tile, ids.data(), ids.size(), reinterpret_cast<const char*>(records.data()));
          },
          "tile"_a, "ids"_a.noconvert(), "records"_a.noconvert())
      .def(
          "erase",
          [](Pad& pad, size_t tile, Vector<int64_t> ids) {
            nb::gil_scoped_release release;
            return pad.erase(tile, ids.data(), ids.size());
          },
          "tile"_a, "ids"_a.noconvert())
      .def("ids", &ids_of, "tile"_a)
      .def("tile_rows", &Pad::tile_rows, "tile"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("tile_bytes", &Pad::tile_bytes, "tile"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("set_window", &Pad::set_window, "batches"_a, nb::call_guard<nb::gil_scoped_release>())
      .def(
          "tile_counts",
          [](const Pad& pad, size_t tile) {
            nb::gil_scoped_release release;
            const Population::Counts c = pad.tile_counts(tile);
            return std::tuple{c.admitted, c.refused, c.expired, c.reclaimed};
          },
          "tile"_a, "Admitted, refused, expired, reclaimed, since the start.")
      .def("record_bytes", &Pad::record_bytes, "tile"_a)
      .def_prop_ro("bytes", [](const Pad& pad) { return pad.pool().held(); })
      .def_prop_ro("beside_bytes", [](const Pad& pad) { return pad.pool().beside(); })
      .def_prop_ro("huge_pages", [](const Pad& pad) { return pad.pool().huge_pages(); });
}

}  // namespace ff
