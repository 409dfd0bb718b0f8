// What the index of a GPU looks like from within, for tests: on a copy in host memory.
#include <algorithm>
#include <unordered_set>
#include <vector>

#include "device_index.h"

namespace ff {
namespace {

std::vector<IndexBucket> copy_of(const Stream& stream, const IndexArray& array) {
  std::vector<IndexBucket> buckets(array.count);
  stream.copy_out(buckets.data(), array.buckets, buckets.size() * sizeof(IndexBucket));
  stream.synchronize();
  return buckets;
}

// f(bucket, key) for every key.
template <class F>
void each_key(const std::vector<IndexBucket>& buckets, F&& f) {
  for (uint32_t at = 0; at < buckets.size(); ++at)
    for (uint32_t way = 0; way < IndexBucket::WAYS; ++way)
      if (buckets[at].state >> way & 1) f(at, buckets[at].key[way]);
}

}  // namespace

std::pair<size_t, size_t> DeviceIndex::probes(const Stream& stream) const {
  size_t sum = 0, most = 0;
  each_key(copy_of(stream, array()), [&](uint32_t bucket, uint64_t key) {
    size_t looked = 1;
    for (IndexPath path = array().path(key); path.at != bucket; array().advance(path)) ++looked;
    sum += looked;
    most = std::max(most, looked);
  });
  return {sum, most};
}

bool DeviceIndex::consistent(const Stream& stream) const {
  const std::vector<IndexBucket> buckets = copy_of(stream, array());
  std::vector<uint32_t> overflow(count_);
  std::unordered_set<uint64_t> keys;
  size_t ways = 0;
  each_key(buckets, [&](uint32_t bucket, uint64_t key) {
    ++ways;
    keys.insert(key);
    for (IndexPath path = array().path(key); path.at != bucket; array().advance(path))
      ++overflow[path.at];
  });
  for (uint32_t at = 0; at < count_; ++at)
    if (buckets[at].state / IndexBucket::PASSED != overflow[at]) return false;
  return ways == size_ && keys.size() == size_;
}

}  // namespace ff
