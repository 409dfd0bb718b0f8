#include "write_back.h"

#include <algorithm>
#include <cstring>

#include "errors.h"

namespace ff {
namespace {

constexpr size_t INDEX_BYTES = 64;  // that a row may add to the file tier's index, with growth
constexpr size_t SLACK = size_t{3} << 20;
constexpr size_t TABLES = 4 * Mapping::PAGE;
constexpr size_t BATCH = size_t{1} << 20;  // bytes of records, at most

size_t rows_per_write(HostTier& host) {
  size_t largest = 1;
  for (size_t tile = 0; tile < host.num_tiles(); ++tile)
    largest = std::max(largest, host.record_bytes(tile));
  return std::max<size_t>(1, std::min(BATCH, host.pool().budget() / 16) / largest);
}

}  // namespace

WriteBack::WriteBack(HostTier& host, Tier& file, Fetcher& fetcher, std::mutex& guard,
                     std::function<void()> wrote, Spans& spans)
    : host_(host),
      file_(file),
      fetcher_(fetcher),
      guard_(guard),
      wrote_(std::move(wrote)),
      spans_(spans),
      most_(rows_per_write(host)) {
  if (!host_.reserve(aside(), true) || !host_.has_room())
    throw BudgetError(
        "the host tier has no room for rows beside the file tier's tables and buffers: " +
        bytes_text(host_.pool().held()) + " of " + bytes_text(host_.pool().budget()) +
        "; raise storage.host_bytes");
  thread_ = std::thread([this] { run(); });
}

// What writes may make the file tier take until more can be set aside: emptying blocks takes a few
// writes. Its tables of segments grow too.
size_t WriteBack::aside() const {
  const size_t growth = file_.growth();
  if (growth == 0) return TABLES;
  return growth + TABLES + INDEX_BYTES * most_ + std::min(SLACK, host_.pool().budget() / 16);
}

void WriteBack::wake() {
  std::lock_guard<std::mutex> lock(mutex_);
  awake_ = true;
  changed_.notify_one();
}

void WriteBack::close() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void WriteBack::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!closing_) {
    changed_.wait(lock, [&] { return awake_ || closing_; });
    awake_ = false;
    for (bool more = true; more && !closing_;) {
      lock.unlock();
      try {
        more = write_some();
      } catch (...) {
        fetcher_.fail(std::current_exception());
        finish();
        return;
      }
      lock.lock();
    }
  }
}

// Takes copies of rows to write, so that their slots may change; false if there are none.
bool WriteBack::begin() {
  std::lock_guard<std::mutex> lock(guard_);
  if (!host_.should_write()) return false;
  if (!host_.reserve(aside(), false)) {
    fetcher_.finish(fetcher_.pushed());  // nobody plans meanwhile: the guard is ours
    host_.reserve(aside(), true);
  }
  host_.begin_write(most_, static_cast<uint32_t>(fetcher_.done()), rows_);
  size_t bytes = 0;
  for (const auto& row : rows_) bytes += host_.record_bytes(row.tile);
  records_.resize(bytes);
  refs_.clear();
  char* to = records_.data();
  for (const auto& row : rows_) {
    const size_t size = host_.record_bytes(row.tile);
    memcpy(to, host_.record(row.tile, row.slot), size);
    refs_.push_back({row.tile, row.key, to});
    to += size;
  }
  return writing_ = !rows_.empty();
}

void WriteBack::finish() {
  {
    std::lock_guard<std::mutex> lock(guard_);
    writing_ = false;
  }
  wrote_();
}

bool WriteBack::write_some() {
  const int64_t start = now_ns();
  if (!begin()) return false;
  file_.write(refs_.data(), refs_.size());
  std::vector<RowRef> stale;
  {
    std::lock_guard<std::mutex> lock(guard_);
    for (size_t i = 0; i < rows_.size(); ++i)
      if (!host_.end_write(rows_[i])) stale.push_back(refs_[i]);
  }
  if (!stale.empty()) file_.erase(stale.data(), stale.size());
  const int64_t end = now_ns();
  busy_ns_ += end - start;
  bytes_ += records_.size();
  spans_.add({"write", "write back", start, end, rows_.size()});
  finish();
  return true;
}

}  // namespace ff
