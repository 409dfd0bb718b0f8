// Records in pinned memory of the host, which kernels read and write in place, beside others that
// go through buffers: built and called by test_row_mover.py.
#include "row_mover.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "../gpu/kernels.h"
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
const char* move_rows(const Device& device, bool in_place) {
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
  std::vector<std::pair<Fetch::Place, Fetch::Place>> between;
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
  mover.load(in.data(), in.size(), in_place ? in.size() / 3 * 2 : 0);
  for (const auto& [from, to] : between) mover.copy(from, to);
  mover.store(out.data(), out.size(), in_place ? out.size() / 2 : 0);

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

// Two rows of a block, the first of which is born: as a step that is held may still use both.
struct Newborn {
  explicit Newborn(const Device& device)
      : tiles(tiles_of(device, {layout()})), memory(device, 2 * PER_BLOCK) {
    tiles.rows[0].init = InitKind::constant;
    tiles.rows[0].init_scale = 0.25f;
    const Stream stream(device);
    stream.copy_in(tiles.memory.data(), tiles.rows.data(), tiles.memory.bytes());
    stream.synchronize();
    char* const block =
        memory.data() +
        (PER_BLOCK - reinterpret_cast<uint64_t>(memory.data()) % PER_BLOCK) % PER_BLOCK;
    first = {0, 0, block};
    second = {0, 1, block + layout().weight_stride};
  }
  static RowLayout layout() {
    RowLayout l = RowLayout::of(16, Dtype::fp32, 0, 0);
    l.divide(PER_BLOCK);
    return l;
  }

  DeviceTiles tiles;
  DeviceMemory memory;
  Fetch::Place first, second;
};

// Births and copies return while a step is held, and whoever waits for arrived() sees the rows.
const char* arrive_later(const Device& device) {
  const Newborn row(device);
  const PinnedMemory gate(device, 64), seen(device, 64);
  memset(gate.data(), 0, 64);
  std::atomic<bool> returned = false, late = false;
  std::thread warden([&] {
    for (int i = 0; i < 2000 && !returned; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    late = !returned;
    memset(gate.data(), 1, 64);
  });
  const Stream step(device), reader(device);
  const Event final(device);
  step.launch("test_hold", 1, 1,
              TestArgs{reinterpret_cast<const uint32_t*>(gate.data()), nullptr, 1, 0});
  final.record(step);
  RowMover mover(device, row.tiles, final, 1);
  const Fetch::Birth birth{row.first, 7, 0};
  mover.bear(&birth, 1);
  for (int i = 0; i < 50; ++i)
    i % 2 == 0 ? mover.copy(row.first, row.second) : mover.copy(row.second, row.first);
  const bool early = mover.arrived().done();
  reader.wait(mover.arrived());
  reader.copy_out(seen.data(), row.second.weights, 64);
  returned = true;
  warden.join();
  reader.synchronize();
  if (late) return "bear or copy has waited for the step";
  if (early) return "rows came before the step that may use their places was done";
  for (int i = 0; i < 16; ++i)
    if (reinterpret_cast<const float*>(seen.data())[i] != 0.25f) return "the row has not come";
  return "";
}

// What goes wrong after bear() has returned is told by the next call.
std::string fail_later(const Device& device) {
  const Newborn row(device);
  const Event final(device);
  RowMover mover(device, row.tiles, final, 1);
  char* const gone = DeviceMemory(device, PER_BLOCK).data();
  const Fetch::Birth birth{{0, 0, gone}, 7, 0};
  mover.bear(&birth, 1);
  const Stream other(device);
  try {
    other.wait(mover.arrived());
    other.synchronize();
    return "nobody was told";
  } catch (const DeviceError&) {
  }
  try {
    mover.bear(&birth, 1);
    return "rows are born on a device that has failed";
  } catch (const DeviceError& error) {
    return error.what();
  }
}

// Kernels cannot follow addresses of the host that are not pinned; once they are, they can, until
// they are not any more.
std::string follow(const Device& device, bool pinned_before) {
  const Newborn row(device);
  const Event final(device);
  RowMover mover(device, row.tiles, final, 1);
  void* const pages = aligned_alloc(4096, 4096);
  const std::unique_ptr<void, void (*)(void*)> records(pages, free);
  const Fetch::Move move{row.first, static_cast<char*>(pages) + 64};
  memset(pages, 0, 4096);
  {
    const PinnedMemory pinned(device, static_cast<char*>(pages), 4096);
    if (pinned_before) mover.load(&move, 1, 1);
  }
  mover.load(&move, 1, 0);
  mover.store(&move, 1, 1);
  return "the device followed an address that it cannot know";
}

template <class F>
const char* with_device(const char* library, const char* names, const uint64_t* handles,
                        size_t kernels, F&& f) {
  static std::string result;
  Device::Kernels found;
  for (size_t i = 0; i < kernels; names += strlen(names) + 1, ++i) found[names] = handles[i];
  try {
    const Device device(library, 0, found);
    result = f(device);
  } catch (const std::exception& e) {
    result = e.what();
  }
  return result.c_str();
}

}  // namespace
}  // namespace ff

// kernels: names, NUL after each, and the handles. They return what is wrong.
extern "C" const char* check_moves(const char* library, const char* names, const uint64_t* handles,
                                   size_t kernels, bool in_place) {
  return ff::with_device(library, names, handles, kernels,
                         [&](const auto& device) { return ff::move_rows(device, in_place); });
}

extern "C" const char* check_arrival(const char* library, const char* names,
                                     const uint64_t* handles, size_t kernels) {
  return ff::with_device(library, names, handles, kernels, ff::arrive_later);
}

extern "C" const char* check_failure(const char* library, const char* names,
                                     const uint64_t* handles, size_t kernels) {
  return ff::with_device(library, names, handles, kernels, ff::fail_later);
}

extern "C" const char* check_following(const char* library, const char* names,
                                       const uint64_t* handles, size_t kernels,
                                       bool pinned_before) {
  return ff::with_device(library, names, handles, kernels,
                         [&](const auto& device) { return ff::follow(device, pinned_before); });
}
