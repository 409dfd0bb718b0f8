// Python's view of the native core: plain arrays in, plain arrays out. The GIL is released in
// everything that depends on the size of a batch.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bind.h"
#include "numpy.h"
#include "outputs.h"
#include "route.h"
#include "step.h"

namespace ff {

void bind_device(nb::module_& m);

namespace {

using namespace nb::literals;

// Memory for messages: grows, never shrinks. An array handed out keeps its memory alive.
class Buffer {
 public:
  std::shared_ptr<Array<uint8_t>> reserve(size_t bytes) {
    if (bytes > data_->size()) {
      data_ = std::make_shared<Array<uint8_t>>();
      data_->resize(bytes);
    }
    return data_;
  }

 private:
  std::shared_ptr<Array<uint8_t>> data_ = std::make_shared<Array<uint8_t>>();
};

nb::tuple tuple_of(const Layout& layout, const std::shared_ptr<Route>& route) {
  return nb::make_tuple(view(layout.counts, route), view(layout.starts, route), layout.bytes);
}

nb::tuple tuple_of(const Layout& layout) {
  return nb::make_tuple(copy(layout.counts), copy(layout.starts), layout.bytes);
}

using TableSpec = std::tuple<std::string, uint32_t, uint64_t, bool, bool, bool, bool>;
using FeatureSpec = std::tuple<std::string, uint32_t, uint8_t>;
using TileSpec = std::tuple<uint32_t, uint32_t, uint32_t, uint32_t, std::vector<int32_t>>;

Plan plan_of(int32_t rank, int32_t size, int32_t threads, uint8_t wire,
             const std::vector<TableSpec>& tables, const std::vector<FeatureSpec>& features,
             const std::vector<TileSpec>& tiles, uint32_t chunk) {
  Plan plan;
  plan.rank = rank;
  plan.size = size;
  plan.threads = threads;
  plan.chunk = std::max(1u, chunk);
  plan.wire = static_cast<Dtype>(wire);
  for (const auto& [name, dim, limit, dynamic, hashed, pooled, credited] : tables) {
    Table& table = plan.tables.emplace_back();
    table.name = name;
    table.dim = dim;
    table.limit = limit;
    table.dynamic = dynamic;
    table.hashed = hashed;
    table.pooled = pooled;
    table.credited = credited;
  }
  for (const auto& [name, table, pooling] : features)
    plan.features.push_back({name, table, static_cast<Pooling>(pooling), 0, 0});
  for (const auto& [table, bucket, start, stop, ranks] : tiles)
    plan.tiles.push_back({table, bucket, start, stop, ranks});
  plan.connect();
  return plan;
}

using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig>;

std::shared_ptr<Route> route_batch(Router& router,
                                   nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig> ids,
                                   nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig> offsets,
                                   std::optional<Floats> weights, int64_t batch,
                                   std::optional<Floats> credits, bool live) {
  const size_t features = router.plan().features.size();
  if (batch < 0 || offsets.shape(0) != features * static_cast<size_t>(batch) + 1)
    throw nb::value_error(("offsets: expected " + std::to_string(features) + " features * " +
                           std::to_string(batch) + " samples + 1 values, got " +
                           std::to_string(offsets.shape(0)))
                              .c_str());
  if (weights && weights->shape(0) != ids.shape(0))
    throw nb::value_error(("weights: expected one per id (" + std::to_string(ids.shape(0)) +
                           "), got " + std::to_string(weights->shape(0)))
                              .c_str());
  const size_t wanted = router.plan().credited ? static_cast<size_t>(batch) : 0;
  if (const size_t given = credits ? credits->shape(0) : 0; given != wanted)
    throw nb::value_error(
        ("credits: expected " +
         (router.plan().credited ? "one per sample (" + std::to_string(wanted) + ")"
                                 : "none, for no table of this exchange takes them") +
         ", got " + std::to_string(given))
            .c_str());
  try {
    nb::gil_scoped_release release;
    return router.route(ids.data(), ids.shape(0), offsets.data(),
                        weights ? weights->data() : nullptr, credits ? credits->data() : nullptr,
                        batch, live);
  } catch (const BadBatch& error) {
    throw nb::value_error(error.message.c_str());
  }
}

// An array that has an owner already; the default for properties would make it the object.
constexpr auto kOwned = nb::rv_policy::automatic;

using Self = const std::shared_ptr<Route>&;

void bind_route(nb::module_& m) {
  nb::class_<Route>(m, "Route")
      .def_ro("batch", &Route::batch)
      .def_ro("global_batch", &Route::global_batch)
      .def_ro("any_live", &Route::any_live)
      .def_ro("failed_rank", &Route::failed_rank)
      .def_prop_ro(
          "header_sent", [](Self r) { return view(r->header_sent, r); }, kOwned)
      .def_prop_ro(
          "header_got", [](Self r) { return view(r->header_got, r); }, kOwned)
      .def_prop_ro(
          "message_sent", [](Self r) { return view(r->message_sent, r); }, kOwned)
      .def_prop_ro(
          "message_got", [](Self r) { return view(r->message_got, r); }, kOwned)
      .def_prop_ro("messages_sent", [](Self r) { return tuple_of(r->messages_sent, r); })
      .def_prop_ro("messages_got", [](Self r) { return tuple_of(r->messages_got, r); })
      .def_prop_ro("reply_sent", [](Self r) { return tuple_of(r->reply_sent, r); })
      .def_prop_ro("reply_got", [](Self r) { return tuple_of(r->reply_got, r); })
      .def_prop_ro("gradient_sent", [](Self r) { return tuple_of(r->gradient_sent, r); })
      .def_prop_ro("gradient_got", [](Self r) { return tuple_of(r->gradient_got, r); })
      .def_prop_ro(
          "ids", [](Self r) { return view(r->ids, r); }, kOwned)
      .def_prop_ro(
          "first", [](Self r) { return view(r->first, r); }, kOwned)
      .def_prop_ro(
          "bags", [](Self r) { return view(r->bags, r); }, kOwned)
      .def_prop_ro(
          "lengths", [](Self r) { return view(r->lengths, r); }, kOwned)
      .def_prop_ro(
          "weights", [](Self r) { return view(r->values[kWeights], r); }, kOwned)
      .def_prop_ro(
          "credits", [](Self r) { return view(r->values[kCredits], r); }, kOwned)
      .def_prop_ro("traffic", [](Self r) {
        const Traffic& t = r->traffic;
        return nb::make_tuple(t.lookups, t.rows, t.id_bytes, t.reply_bytes, t.gradient_bytes,
                              t.torchrec_id_bytes, t.torchrec_reply_bytes,
                              t.torchrec_gradient_bytes);
      });
}

using Bytes = nb::ndarray<nb::ro, uint8_t, nb::ndim<1>, nb::c_contig>;

// sent, got: addresses of the buffers, in whatever memory.
Numpy<uint64_t> addresses(const Router& router, Self route, uint64_t sent, uint64_t got,
                          decltype(&reply_addresses) fill) {
  auto array = std::make_shared<Array<uint64_t>>();
  array->resize(router.plan().segments());
  fill(router.plan(), *route, reinterpret_cast<const uint8_t*>(sent),
       reinterpret_cast<const uint8_t*>(got), array->data());
  return view(*array, array);
}

void bind_router(nb::module_& m) {
  nb::class_<Router>(m, "Router")
      .def(
          "__init__",
          [](Router* self, int32_t rank, int32_t size, int32_t threads, uint8_t wire,
             const std::vector<TableSpec>& tables, const std::vector<FeatureSpec>& features,
             const std::vector<TileSpec>& tiles, uint32_t chunk) {
            new (self) Router(plan_of(rank, size, threads, wire, tables, features, tiles, chunk));
          },
          "rank"_a, "size"_a, "threads"_a, "wire"_a, "tables"_a, "features"_a, "tiles"_a,
          "chunk"_a = kChunk)
      .def_prop_ro("headers_sent", [](const Router& r) { return tuple_of(r.headers_sent()); })
      .def_prop_ro("headers_got", [](const Router& r) { return tuple_of(r.headers_got()); })
      .def_prop_ro(
          "segment_tile", [](const Router& r) { return copy(r.segment_tile()); }, kOwned)
      .def_prop_ro(
          "segment_pooled", [](const Router& r) { return copy(r.segment_pooled()); }, kOwned)
      .def_prop_ro(
          "segment_replies", [](const Router& r) { return copy(r.segment_replies()); }, kOwned)
      .def_prop_ro("output_dim", [](const Router& r) { return r.plan().output_dim; })
      .def("route", &route_batch, "ids"_a.noconvert(), "offsets"_a.noconvert(),
           "weights"_a.noconvert().none(), "batch"_a, "credits"_a.noconvert().none() = nb::none(),
           "live"_a = true)
      .def("refuse", &Router::refuse)
      .def("accept", &Router::accept, "route"_a)
      .def("unpack", &Router::unpack, "route"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("reply_addresses",
           [](const Router& router, Self route, uint64_t sent, uint64_t got) {
             return addresses(router, route, sent, got, &reply_addresses);
           })
      .def("gradient_addresses",
           [](const Router& router, Self route, uint64_t sent, uint64_t got) {
             return addresses(router, route, sent, got, &gradient_addresses);
           })
      .def(
          "pool",
          [](const Router& router, Self route, const Bytes& got, const WriteArray& out,
             const std::vector<WriteArray>& sequences) {
            const Outputs outputs = outputs_of(router, *route, out, sequences);
            nb::gil_scoped_release release;
            pool(router.plan(), *route, got.data(), outputs);
          },
          "route"_a, "got"_a, "out"_a, "sequences"_a)
      .def(
          "spread",
          [](const Router& router, Self route, const ReadArray& grad,
             const std::vector<ReadArray>& sequences, const Bytes& sent) {
            const Outputs gradients = outputs_of(router, *route, grad, sequences);
            nb::gil_scoped_release release;
            spread(router.plan(), *route, gradients, const_cast<uint8_t*>(sent.data()));
          },
          "route"_a, "grad"_a, "sequences"_a, "sent"_a);
}

}  // namespace
}  // namespace ff

NB_MODULE(_native, m) {
  using namespace ff;
  m.doc() =
      "Native core of the exchange: routing of ids, pooling of replies, spreading of gradients";
  m.attr("BLOCK") = kBlock;
  m.attr("ARCH") = FOURFOLD_ARCH;
  nb::class_<Buffer>(m, "Buffer").def(nb::init<>()).def("reserve", [](Buffer& self, size_t bytes) {
    const auto data = self.reserve(bytes);
    return view(*data, data);
  });
  bind_route(m);
  bind_router(m);
  bind_device(m);
  bind_device_memory(m);
  bind_device_step(m);
}
