// Records in pinned memory of the host, which kernels read and write in place, beside others that
// go through buffers: built and called by test_row_mover.py.
#include "row_mover.h"

#include <cstring>

#include "rows.h"

namespace ff {
namespace {

constexpr size_t PER_BLOCK = size_t{1} << 16;

DeviceTiles tiles_of(const Device& device, const std::vector<RowLayout>& layouts) {
  DeviceTiles tiles;
  for (const RowLayout& l : layouts) {
    TileRows rows{};
    rows.rows = {};
    rows.rows.mask = (1u << l.shift) - 1;
    rows.rows.block_bytes = l.block_bytes;
    rows.rows.state_stride = l.state_stride;
    rows.rows.row_state_stride = l.row_state_stride;
    rows.rows.state_offset = l.state_offset;
    rows.rows.row_state_offset = l.row_state_offset;
    rows.dim = l.dim;
    rows.dtype = l.dtype;
    rows.element_states = static_cast<uint8_t>(l.element_states);
    rows.row_states = static_cast<uint8_t>(l.row_states);
    tiles.rows.push_back(rows);
  }
  tiles.memory = DeviceMemory(device, tiles.rows.size() * sizeof(TileRows));
  const Stream stream(device);
  stream.copy_in(tiles.memory.data(), tiles.rows.data(), tiles.memory.bytes());
  stream.synchronize();
  return tiles;
}

// A block of rows per layout; as many rows as there are, from there to other rows and back.
const char* move_rows(const Device& device, bool pinned) {
  std::vector<RowLayout> layouts;
  for (const uint32_t dim : {1, 3, 8, 60, 64})
    for (const Dtype dtype : {Dtype::fp32, Dtype::fp16})
      for (const uint32_t states : {0, 1, 2}) {
        layouts.push_back(RowLayout::of(dim, dtype, states, states % 2));
        layouts.back().divide(PER_BLOCK);
      }
  const DeviceTiles tiles = tiles_of(device, layouts);
  const DeviceMemory memory(device, (layouts.size() + 1) * PER_BLOCK);
  char* const blocks =
      memory.data() +
      (PER_BLOCK - reinterpret_cast<uint64_t>(memory.data()) % PER_BLOCK) % PER_BLOCK;
  size_t bytes = 0;
  for (const RowLayout& l : layouts) bytes += 8 * l.record_bytes();
  const PinnedMemory before(device, bytes), after(device, bytes);
  for (size_t i = 0; i < bytes; ++i) before.data()[i] = static_cast<char>(i * 31 + i / 255);
  memset(after.data(), 0x55, bytes);

  std::vector<Fetch::Move> in, out;
  std::vector<RowMover::Copy> between;
  size_t at = 0;
  for (uint32_t t = 0; t < layouts.size(); ++t)
    for (uint32_t row = 0; row < 8; ++row, at += layouts[t].record_bytes()) {
      char* const block = blocks + t * PER_BLOCK;
      const uint32_t stride = layouts[t].weight_stride;
      const Fetch::Place from{t, row, block + row * stride},
          to{t, row + 9, block + (row + 9) * stride};
      in.push_back({from, before.data() + at});
      between.push_back({from, to});
      out.push_back({to, after.data() + at});
    }
  const Event final(device);
  RowMover mover(device, tiles, final, 2);
  mover.load(in.data(), in.size(), pinned);
  mover.copy(between.data(), between.size());
  mover.store(out.data(), out.size(), pinned);

  at = 0;
  for (const Fetch::Move& move : out) {
    const size_t size = layouts[move.pad.tile].record_bytes(), rows = size - sizeof(Meta);
    if (memcmp(before.data() + at, after.data() + at, rows) != 0) return "a record has changed";
    for (size_t i = rows; i < size; ++i)
      if (after.data()[at + i] != 0x55) return "metadata was written";
    at += size;
  }
  return "";
}

}  // namespace
}  // namespace ff

// kernels: names, NUL after each, and the handles. Returns what is wrong.
extern "C" const char* check_moves(const char* library, const char* names, const uint64_t* handles,
                                   size_t kernels, bool pinned) {
  static std::string error;
  ff::Device::Kernels found;
  for (size_t i = 0; i < kernels; names += strlen(names) + 1, ++i) found[names] = handles[i];
  try {
    const ff::Device device(library, 0, found);
    return ff::move_rows(device, pinned);
  } catch (const std::exception& e) {
    error = e.what();
    return error.c_str();
  }
}
