// Work on ids in the memory of a GPU as Python sees it. Arrays there are named by their addresses,
// streams by their handles (CUstream; 0: the default one). Nobody checks what lies at an address.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include "device_admission.h"
#include "device_buckets.h"
#include "device_index.h"
#include "device_score.h"
#include "wire.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ff {
namespace {

template <class T>
T* at(uint64_t address) {
  return reinterpret_cast<T*>(address);
}

// Something that works on the streams of one device. What it began is done when it goes.
template <class T>
struct OnDevice {
  const Device& device;
  T it;

  explicit OnDevice(const Device& on) : device(on) {}
  template <class First, class... Args>
  OnDevice(const Device& on, First&& first, Args&&... args)
      : device(on), it(on, std::forward<First>(first), std::forward<Args>(args)...) {}
  ~OnDevice() { device.finish(); }
  Stream stream(uint64_t handle) const { return Stream(device, handle); }
};

using Released = nb::call_guard<nb::gil_scoped_release>;

void bind_index_class(nb::module_& m) {
  using D = OnDevice<DeviceIndex>;
  nb::class_<D>(m, "DeviceIndex", "The key index of a GPU (storage/device_index.py).")
      .def(nb::init<const Device&, size_t>(), "device"_a, "expected"_a, nb::keep_alive<1, 2>(),
           Released())
      .def(
          "find",
          [](const D& d, uint64_t keys, uint64_t slots, size_t n, uint64_t stream) {
            d.it.find(d.stream(stream), at<uint64_t>(keys), at<uint32_t>(slots), n);
          },
          "keys"_a, "slots"_a, "n"_a, "stream"_a, Released())
      .def(
          "insert",
          [](D& d, uint64_t keys, uint64_t slots, size_t n, uint32_t first, uint64_t free,
             size_t num_free, uint64_t stream) {
            return d.it.find_or_insert(
                d.stream(stream), at<uint64_t>(keys), at<uint32_t>(slots), n,
                free != 0 ? NewSlots::of(at<uint32_t>(free), num_free) : NewSlots::from(first));
          },
          "keys"_a, "slots"_a, "n"_a, "first"_a, "free"_a, "num_free"_a, "stream"_a, Released())
      .def(
          "erase",
          [](D& d, uint64_t keys, size_t n, uint64_t slots, uint64_t stream) {
            return d.it.erase(d.stream(stream), at<uint64_t>(keys), n, at<uint32_t>(slots));
          },
          "keys"_a, "n"_a, "slots"_a, "stream"_a, Released())
      .def(
          "items",
          [](D& d, uint64_t keys, uint64_t slots, uint64_t stream) {
            d.it.items(d.stream(stream), at<uint64_t>(keys), at<uint32_t>(slots));
          },
          "keys"_a, "slots"_a, "stream"_a, Released())
      .def(
          "clear", [](D& d, uint64_t stream) { d.it.clear(d.stream(stream)); }, "stream"_a,
          Released())
      .def(
          "probes", [](const D& d, uint64_t stream) { return d.it.probes(d.stream(stream)); },
          "stream"_a, Released())
      .def(
          "consistent",
          [](const D& d, uint64_t stream) { return d.it.consistent(d.stream(stream)); }, "stream"_a,
          Released())
      .def(
          "growth", [](const D& d, size_t keys) { return d.it.growth(keys); }, "keys"_a)
      .def("__len__", [](const D& d) { return d.it.size(); })
      .def_prop_ro("bytes", [](const D& d) { return d.it.bytes(); })
      .def_prop_ro("batch_bytes", [](const D& d) { return d.it.batch_bytes(); });
}

void bind_sums(nb::module_& m) {
  using Scan = OnDevice<DeviceScan>;
  nb::class_<Scan>(m, "DeviceScan", "Exclusive sums, in place; for tests.")
      .def(nb::init<const Device&>(), "device"_a, nb::keep_alive<1, 2>())
      .def(
          "exclusive",
          [](Scan& d, uint64_t data, size_t n, uint64_t total, uint64_t stream) {
            d.it.exclusive(d.stream(stream), at<uint32_t>(data), n, at<uint32_t>(total));
          },
          "data"_a, "n"_a, "total"_a, "stream"_a, Released());
  using Sort = OnDevice<DeviceSort>;
  nb::class_<Sort>(m, "DeviceSort", "Stable sort of pairs; for tests.")
      .def(nb::init<const Device&>(), "device"_a, nb::keep_alive<1, 2>())
      .def(
          "sort",
          [](Sort& d, uint64_t keys, uint64_t values, size_t n, uint32_t bits, uint64_t sorted_keys,
             uint64_t sorted_values, uint64_t stream) {
            d.it.sort(d.stream(stream), at<uint32_t>(keys), at<uint32_t>(values), n, bits,
                      at<uint32_t>(sorted_keys), at<uint32_t>(sorted_values));
          },
          "keys"_a, "values"_a, "n"_a, "bits"_a, "sorted_keys"_a, "sorted_values"_a, "stream"_a,
          Released());
}

void bind_batch(nb::module_& m) {
  using Distinct = OnDevice<DeviceDistinct>;
  nb::class_<Distinct>(m, "DeviceDistinct", "Distinct ids (storage/device_ids.py).")
      .def(nb::init<const Device&>(), "device"_a, nb::keep_alive<1, 2>())
      .def(
          "find",
          [](Distinct& d, uint64_t ids, size_t n, uint64_t first, size_t segments,
             uint64_t distinct, uint64_t inverse, uint64_t count, uint64_t segment_first,
             uint64_t stream) {
            DistinctBatch batch;
            batch.ids = at<uint64_t>(ids);
            batch.n = n;
            batch.first = at<uint64_t>(first);
            batch.segments = segments;
            batch.distinct = at<uint64_t>(distinct);
            batch.inverse = at<uint32_t>(inverse);
            batch.count = at<uint32_t>(count);
            batch.segment_first = at<uint32_t>(segment_first);
            d.it.find(d.stream(stream), batch);
          },
          "ids"_a, "n"_a, "first"_a, "segments"_a, "distinct"_a, "inverse"_a, "count"_a,
          "segment_first"_a, "stream"_a, Released())
      .def(
          "total",
          [](const Distinct& d, uint64_t stream) { return d.it.read_total(d.stream(stream)); },
          "stream"_a, Released());
  using Dealer = OnDevice<DeviceBuckets>;
  nb::class_<Dealer>(m, "DeviceBuckets", "Ids by bucket (storage/device_ids.py).")
      .def(nb::init<const Device&>(), "device"_a, nb::keep_alive<1, 2>())
      .def(
          "deal",
          [](Dealer& d, uint64_t ids, size_t n, uint64_t table, uint64_t buckets, uint64_t limit,
             bool dynamic, bool hashed, uint64_t bucket, uint64_t place, uint64_t position,
             uint64_t bucket_first, uint64_t stream) {
            const Placer placer{{divisor_of(buckets), bucket_salt(table)}, limit, dynamic, hashed};
            d.it.deal(d.stream(stream), placer, at<int64_t>(ids), n, at<uint32_t>(bucket),
                      at<uint32_t>(place), at<uint64_t>(position), at<uint32_t>(bucket_first));
          },
          "ids"_a, "n"_a, "table"_a, "buckets"_a, "limit"_a, "dynamic"_a, "hashed"_a, "bucket"_a,
          "place"_a, "position"_a, "bucket_first"_a, "stream"_a, Released());
  m.def(
      "device_hash_ids",
      [](const Device& device, uint64_t raw, uint64_t ids, size_t n, uint64_t limit,
         uint64_t stream) {
        hash_ids(Stream(device, stream), at<uint64_t>(raw), at<uint64_t>(ids), n, limit);
      },
      "device"_a, "raw"_a, "ids"_a, "n"_a, "limit"_a, "stream"_a, Released());
  using Groups = OnDevice<DeviceGroups>;
  nb::class_<Groups>(m, "DeviceGroups", "Positions by slot (storage/device_ids.py).")
      .def(nb::init<const Device&>(), "device"_a, nb::keep_alive<1, 2>())
      .def(
          "group",
          [](Groups& d, uint64_t slots, size_t n, uint32_t limit, uint64_t entry,
             uint64_t group_slot, uint64_t group_first, uint64_t stream) {
            d.it.group(d.stream(stream), at<uint32_t>(slots), n, limit, at<uint32_t>(entry),
                       at<uint32_t>(group_slot), at<uint32_t>(group_first));
          },
          "slots"_a, "n"_a, "limit"_a, "entry"_a, "group_slot"_a, "group_first"_a, "stream"_a,
          Released())
      .def(
          "totals",
          [](const Groups& d, uint64_t stream) { return d.it.read_totals(d.stream(stream)); },
          "stream"_a, Released());
}

void bind_decisions(nb::module_& m) {
  using D = OnDevice<DeviceAdmission>;
  nb::class_<D>(m, "DeviceAdmission", "Which new ids get a row (storage/device_admission.py).")
      .def(nb::init<const Device&, const std::vector<AdmissionSpec>&, size_t, uint64_t>(),
           "device"_a, "by_tile"_a, "bytes"_a, "seed"_a, nb::keep_alive<1, 2>())
      .def(
          "admit",
          [](D& d, uint32_t tile, uint64_t keys, uint64_t sightings, size_t n, uint64_t batch,
             uint64_t admitted, uint64_t stream) {
            d.it.admit(d.stream(stream), tile, at<uint64_t>(keys), at<uint32_t>(sightings), n,
                       batch, at<bool>(admitted));
          },
          "tile"_a, "keys"_a, "sightings"_a, "n"_a, "batch"_a, "admitted"_a, "stream"_a, Released())
      .def(
          "estimate",
          [](const D& d, uint32_t tile, uint64_t keys, uint64_t estimates, size_t n,
             uint64_t stream) {
            d.it.estimate(d.stream(stream), tile, at<uint64_t>(keys), at<uint32_t>(estimates), n);
          },
          "tile"_a, "keys"_a, "estimates"_a, "n"_a, "stream"_a, Released())
      .def_prop_ro("bytes", [](const D& d) { return d.it.bytes(); })
      .def_prop_ro("batch_bytes", [](const D& d) { return d.it.batch_bytes(); });
  m.def(
      "device_credit_scores",
      [](const Device& device, const Decay& decay, uint64_t scores, uint64_t intervals,
         uint64_t credits, uint64_t credited, size_t n, uint64_t stream) {
        credit_scores(Stream(device, stream), decay, at<uint16_t>(scores), at<uint32_t>(intervals),
                      at<float>(credits), at<uint16_t>(credited), n);
      },
      "device"_a, "decay"_a, "scores"_a, "intervals"_a, "credits"_a, "credited"_a, "n"_a,
      "stream"_a, Released());
}

void bind_wire(nb::module_& m) {
  m.def(
      "device_narrow",
      [](const Device& device, uint64_t from, uint64_t to, size_t n, int dtype, uint64_t random,
         uint64_t stream) {
        narrow(Stream(device, stream), at<float>(from), at<void>(to), n, static_cast<Dtype>(dtype),
               at<uint32_t>(random));
      },
      "device"_a, "source"_a, "to"_a, "n"_a, "dtype"_a, "random"_a, "stream"_a, Released());
  m.def(
      "device_widen",
      [](const Device& device, uint64_t from, uint64_t to, size_t n, int dtype, uint64_t stream) {
        widen(Stream(device, stream), at<void>(from), at<float>(to), n, static_cast<Dtype>(dtype));
      },
      "device"_a, "source"_a, "to"_a, "n"_a, "dtype"_a, "stream"_a, Released());
}

}  // namespace

void bind_device_ids(nb::module_& m) {
  bind_index_class(m);
  bind_sums(m);
  bind_batch(m);
  bind_decisions(m);
  bind_wire(m);
}

}  // namespace ff
