// The part of Tiers that moves rows: what the fetcher's thread carries out, and rows by key.
#include <algorithm>
#include <stdexcept>

#include "tiers.h"

namespace ff {
uint64_t Tiers::start(Fetch&& fetch) {
  return fetch.empty() ? fetcher_->pushed() : fetcher_->push(std::move(fetch));
}

void Tiers::carry_out(Fetch& fetch) {
  const int64_t begin = now_ns();
  rows_.store(fetch.down);
  for (const Fetch::Copy& copy : fetch.copies) memcpy(copy.to, copy.host, copy.bytes);
  rows_.load(fetch.up);
  rows_.bear(fetch.births);
  const int64_t moved = now_ns();
  read_file(fetch);
  const int64_t end = now_ns();
  fetch_ns_ += end - begin;
  spans_.add({"fetch", "move rows", begin, moved,
              fetch.down.size() + fetch.up.size() + fetch.births.size() + fetch.copies.size()});
  if (!fetch.from_file.empty())
    spans_.add({"fetch", "read file", moved, end, fetch.from_file.size()});
}

// Rows from the file. Those that go into the pad leave it.
void Tiers::read_file(Fetch& fetch) {
  std::vector<RowRef> rows, left;
  size_t bytes = 0;
  for (const auto& row : fetch.from_file)
    if (row.to == nullptr) bytes += host_.record_bytes(row.pad.tile);
  staging_.resize(std::max(staging_.size(), bytes));
  char* next = staging_.data();
  for (const auto& row : fetch.from_file) {
    rows.push_back({row.pad.tile, row.key, row.to != nullptr ? row.to : next});
    if (row.to == nullptr) next += host_.record_bytes(row.pad.tile);
  }
  if (!rows.empty()) {
    std::unique_ptr<bool[]> found(new bool[rows.size()]);
    file_->read(rows.data(), rows.size(), found.get());
    if (const bool* gone = std::find(found.get(), found.get() + rows.size(), false);
        gone != found.get() + rows.size()) {
      const RowRef& row = rows[gone - found.get()];
      throw std::logic_error(tiles_[row.tile]->spec().label() + ": the file tier lost row " +
                             std::to_string(keys_[row.tile].id(row.key)));
    }
  }
  std::vector<Fetch::Move> up;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Fetch::FromFile& row = fetch.from_file[i];
    if (row.to != nullptr) continue;
    up.push_back({row.pad, rows[i].record});
    left.push_back(rows[i]);
  }
  rows_.load(up);
  for (const auto& row : fetch.stale) left.push_back({row.tile, row.key, nullptr});
  if (!left.empty()) file_->erase(left.data(), left.size());
}

Traffic Tiers::traffic() {
  std::lock_guard<std::mutex> lock(guard_);
  Traffic now = traffic_;
  now.fetch_ns = fetch_ns_;
  if (write_back_) {
    now.write_ns = write_back_->busy_ns();
    now.file_written_bytes = write_back_->bytes();
  }
  return now;
}

uint32_t Tiers::find(size_t tile, uint64_t key) const {
  uint32_t slot;
  index_of(tile).find(&key, &slot, 1, 1);
  return slot;
}

void Tiers::read(const RowRef* rows, size_t n, bool* found) {
  std::vector<Fetch::Move> here;
  for (size_t i = 0; i < n; ++i) {
    const RowRef& row = rows[i];
    const uint32_t slot = find(row.tile, row.key);
    found[i] = true;
    if (slot != Shelf::NONE)
      here.push_back({place(row.tile, slot), row.record});
    else
      host_.read(&row, 1, found + i);
  }
  rows_.store(here);
  if (file_ == nullptr) return;
  std::vector<RowRef> rest;
  std::vector<size_t> at;
  for (size_t i = 0; i < n; ++i)
    if (!found[i]) {
      rest.push_back(rows[i]);
      at.push_back(i);
    }
  std::unique_ptr<bool[]> there(new bool[rest.size()]);
  file_->read(rest.data(), rest.size(), there.get());
  for (size_t i = 0; i < rest.size(); ++i) found[at[i]] = there[i];
}

size_t Tiers::erase(const RowRef* rows, size_t n) {
  size_t erased = 0;
  for (size_t i = 0; i < n; ++i) {
    const RowRef& row = rows[i];
    const uint32_t slot = find(row.tile, row.key);
    size_t here = slot != Shelf::NONE;
    const bool can_go = population_ != nullptr && population_->reclaims(row.tile);
    if (can_go) forget_score(row.tile, row.key, slot);
    if (here) {
      index_of(row.tile).erase(&row.key, 1);
      residents_of(row.tile).leave(slot);
      residents_of(row.tile).shelf().give(slot);
    }
    here += host_.erase(&row, 1);
    if (file_ != nullptr) here += file_->erase(&row, 1);
    if (here == 0) continue;
    tiles_[row.tile]->count(-1);
    ++erased;
  }
  return erased;
}

std::vector<uint64_t> Tiers::keys(size_t tile) const {
  if (population_ != nullptr && population_->reclaims(tile)) return living_keys(tile);
  std::vector<uint64_t> all = host_.keys(tile);
  index_of(tile).for_each([&](uint64_t key, uint32_t) {
    if (keys_[tile].owns(key)) all.push_back(key);
  });
  if (file_ != nullptr)
    for (const uint64_t key : file_->keys(tile)) all.push_back(key);
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

}  // namespace ff
