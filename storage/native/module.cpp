#include <nanobind/nanobind.h>

namespace ff {
void bind_index(nanobind::module_& m);
void bind_arithmetic(nanobind::module_& m);
void bind_reclaim(nanobind::module_& m);
void bind_pad(nanobind::module_& m);
void bind_tier(nanobind::module_& m);
void bind_in_place(nanobind::module_& m);
void bind_file(nanobind::module_& m);
void bind_device(nanobind::module_& m);
void bind_device_ids(nanobind::module_& m);
void bind_bench_rows(nanobind::module_& m);
void bind_bench_disk(nanobind::module_& m);
}  // namespace ff

NB_MODULE(_native, m) {
  m.doc() = "Rows, index and pad of one rank.";
  nanobind::set_leak_warnings(false);  // a pad that lives until the end is no mistake of its user
  m.attr("ARCH") = FOURFOLD_ARCH;
  ff::bind_index(m);
  ff::bind_arithmetic(m);
  ff::bind_reclaim(m);
  ff::bind_pad(m);
  ff::bind_tier(m);
  ff::bind_in_place(m);
  ff::bind_file(m);
  ff::bind_device(m);
  ff::bind_device_ids(m);
  ff::bind_bench_rows(m);
  ff::bind_bench_disk(m);
}
