#include "device_index.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace ff {
namespace {

constexpr size_t SMALLEST = 61;              // buckets, not quite 4 KiB
constexpr size_t LOAD = 3, LOAD_OF = 4;      // of the ways: in use before it grows
constexpr size_t GROWTH = 3, GROWTH_OF = 2;  // of the buckets
constexpr size_t SHARE = 8;                  // threads that go through a bucket

size_t blocks_for(size_t threads) { return (threads + INDEX_THREADS - 1) / INDEX_THREADS; }

size_t room_in(size_t count) { return count * IndexBucket::WAYS * LOAD / LOAD_OF; }

bool is_prime(size_t n) {  // odd
  for (size_t d = 3; d * d <= n; d += 2)
    if (n % d == 0) return false;
  return true;
}

size_t prime_from(size_t n) {
  n |= 1;
  while (!is_prime(n)) n += 2;
  return n;
}

}  // namespace

DeviceIndex::DeviceIndex(const Device& device, size_t expected) : device_(&device) {
  open(count_for(expected));
}

// Buckets that hold so many keys.
uint32_t DeviceIndex::count_for(size_t keys) const {
  if (keys >= NONE)
    throw std::length_error("DeviceIndex: " + std::to_string(keys) +
                            " keys; there are slots for fewer than 2^32 - 1");
  const size_t least = keys * LOAD_OF / (IndexBucket::WAYS * LOAD) + 1;
  return static_cast<uint32_t>(prime_from(std::max(SMALLEST, least)));
}

void DeviceIndex::open(uint32_t count) {
  memory_ = DeviceMemory(*device_, count * sizeof(IndexBucket));
  count_ = count;
  const Stream stream(*device_, 0);
  stream.fill(memory_.data(), 0, memory_.bytes());
  stream.synchronize();  // others may use other streams
}

size_t DeviceIndex::batch_bytes() const {
  return distinct_.bytes() + scan_.bytes() + sort_.bytes() + keys_.bytes() + number_.bytes() +
         found_.bytes() + erased_.bytes();
}

size_t DeviceIndex::growth(size_t keys) const {
  if (size_ + keys <= room_in(count_)) return 0;
  const size_t count = prime_from(count_ * GROWTH / GROWTH_OF);
  return std::max<size_t>(count, count_for(size_ + keys)) * sizeof(IndexBucket);
}

void DeviceIndex::grow(const Stream& stream, size_t keys) {
  const size_t bytes = growth(keys);
  if (bytes == 0) return;
  DeviceMemory larger;
  try {
    larger = DeviceMemory(*device_, bytes);
  } catch (const DeviceError& error) {
    throw DeviceError("DeviceIndex: no memory to grow from " + std::to_string(size_) + " to " +
                      std::to_string(size_ + keys) + " keys beside the " +
                      std::to_string(memory_.bytes()) + " bytes in use: " + error.what() +
                      "; expect the keys when the index is made, or give the device less to hold");
  }
  const IndexArray to{larger.as<IndexBucket>(), bytes / sizeof(IndexBucket)};
  stream.fill(larger.data(), 0, bytes);
  stream.launch("index_rehash", blocks_for(count_ * SHARE), INDEX_THREADS, RehashArgs{array(), to});
  stream.synchronize();  // before the old memory goes
  std::swap(memory_, larger);
  count_ = static_cast<uint32_t>(to.count);
}

void DeviceIndex::find(const Stream& stream, const uint64_t* keys, uint32_t* slots,
                       size_t n) const {
  stream.launch("index_find", blocks_for(n), INDEX_THREADS, FindArgs{array(), keys, slots, n});
}

// Distinct keys into keys_, and which of them each position names into number_.
void DeviceIndex::make_distinct(const Stream& stream, const uint64_t* keys, const uint32_t* taken,
                                size_t n) {
  keys_.reserve(stream, n * sizeof(uint64_t));
  number_.reserve(stream, n * sizeof(uint32_t));
  DistinctBatch batch;
  batch.ids = keys;
  batch.n = n;
  batch.taken = taken;
  batch.distinct = keys_.as<uint64_t>();
  batch.inverse = number_.as<uint32_t>();
  distinct_.find(stream, batch);
}

size_t DeviceIndex::find_or_insert(const Stream& stream, const uint64_t* keys, uint32_t* slots,
                                   size_t n, const NewSlots& new_slots) {
  DeviceDistinct::check(n);
  find(stream, keys, slots, n);
  make_distinct(stream, keys, slots, n);
  const size_t num_new = distinct_.read_total(stream);
  if (num_new == 0) return 0;
  if (num_new > new_slots.count)
    throw std::overflow_error("DeviceIndex: " + std::to_string(num_new) + " new keys, but only " +
                              std::to_string(new_slots.count) + " slots are left");
  grow(stream, num_new);
  const uint32_t first = new_slots.first;
  stream.launch("index_insert", blocks_for(num_new), INDEX_THREADS,
                InsertArgs{array(), keys_.as<uint64_t>(), new_slots.free, num_new, first});
  stream.launch("index_answer", blocks_for(n), INDEX_THREADS,
                AnswerArgs{number_.as<uint32_t>(), new_slots.free, slots, n, first});
  size_ += num_new;
  return num_new;
}

size_t DeviceIndex::erase(const Stream& stream, const uint64_t* keys, size_t n, uint32_t* slots) {
  DeviceDistinct::check(n);
  make_distinct(stream, keys, nullptr, n);
  found_.reserve(stream, n * sizeof(uint32_t));
  erased_.reserve(stream, sizeof(uint32_t));
  stream.fill(erased_.data(), 0, sizeof(uint32_t));
  const EraseArgs args{array(),
                       keys_.as<uint64_t>(),
                       distinct_.total(),
                       found_.as<uint32_t>(),
                       erased_.as<uint32_t>(),
                       n,
                       distinct_.first_positions(),
                       number_.as<uint32_t>(),
                       slots};
  stream.launch("index_erase", blocks_for(n), INDEX_THREADS, args);
  if (slots != nullptr) stream.launch("index_erased", blocks_for(n), INDEX_THREADS, args);
  uint32_t erased = 0;
  stream.copy_out(&erased, erased_.data(), sizeof erased);
  stream.synchronize();
  size_ -= erased;
  return erased;
}

void DeviceIndex::items(const Stream& stream, uint64_t* keys, uint32_t* slots) {
  const size_t n = size_;
  const DeviceMemory before(*device_, (count_ + size_t{1}) * sizeof(uint32_t));
  const DeviceMemory found(*device_, n * sizeof(uint64_t)), lie(*device_, n * sizeof(uint32_t));
  const DeviceMemory order(*device_, n * sizeof(uint32_t));
  ItemsArgs args{array(),
                 before.as<uint32_t>(),
                 found.as<uint64_t>(),
                 lie.as<uint32_t>(),
                 found.as<uint64_t>(),
                 order.as<uint32_t>(),
                 n};
  stream.launch("index_count", blocks_for(count_), INDEX_THREADS, args);
  scan_.exclusive(stream, args.before, count_, args.before + count_);
  stream.launch("index_items", blocks_for(count_ * SHARE), INDEX_THREADS, args);
  sort_.sort(stream, args.slots, nullptr, n, 32, slots, order.as<uint32_t>());
  args.keys = keys;
  stream.launch("index_by_slot", blocks_for(n), INDEX_THREADS, args);
  stream.synchronize();  // before the memory goes
}

void DeviceIndex::clear(const Stream& stream) {
  stream.fill(memory_.data(), 0, memory_.bytes());
  size_ = 0;
}

}  // namespace ff
