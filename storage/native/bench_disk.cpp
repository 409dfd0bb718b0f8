// The references of `fourfold bench file`: an engine moving pages, and nothing else.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "disk.h"
#include "mapping.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace ff {
namespace {

using Offsets = nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr size_t BUFFER = size_t{4} << 20;

// Nobody looks at what arrives, so pieces far apart share memory.
std::vector<Piece> pieces_at(const Offsets& offsets, size_t bytes, const Mapping& buffer) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < offsets.size(); ++i) {
    char* const data = static_cast<char*>(buffer.data()) + i % (BUFFER / bytes) * bytes;
    pieces.push_back({offsets.data()[i], data, bytes});
  }
  return pieces;
}

void require_moved(const std::vector<Piece>& pieces) {
  for (const Piece& piece : pieces)
    if (piece.result != static_cast<int64_t>(piece.bytes))
      throw std::runtime_error("the reference could not read or write");
}

}  // namespace

void bind_bench_disk(nb::module_& m) {
  m.def(
      "reference_read",
      [](Disk& disk, Offsets offsets, size_t bytes) {
        nb::gil_scoped_release release;
        Mapping buffer(true);
        buffer.grow(BUFFER);
        std::vector<Piece> pieces = pieces_at(offsets, bytes, buffer);
        disk.read(pieces.data(), pieces.size(), [](size_t) {});
        require_moved(pieces);
      },
      "disk"_a, "offsets"_a.noconvert(), "bytes"_a,
      "Reads `bytes` at each offset (n,) and drops them.");
  m.def(
      "reference_write",
      [](Disk& disk, Offsets offsets, size_t bytes) {
        nb::gil_scoped_release release;
        Mapping buffer(true);
        buffer.grow(BUFFER);
        buffer.populate();
        std::vector<Piece> pieces = pieces_at(offsets, bytes, buffer);
        disk.write(pieces.data(), pieces.size(), [](size_t) {});
        require_moved(pieces);
      },
      "disk"_a, "offsets"_a.noconvert(), "bytes"_a, "Writes `bytes` at each offset (n,).");
}

}  // namespace ff
