// Random work on the index against std::unordered_map, for builds with sanitizers and without
// AVX-512: test_index.py compiles and runs it. Arguments: rounds, seed.
#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>
#include <unordered_map>

#include "index.h"

namespace {

using ff::Index;
using Model = std::unordered_map<uint64_t, uint32_t>;

void require(bool holds, const char* what, uint64_t seed) {
  if (holds) return;
  std::fprintf(stderr, "seed %llu: %s\n", static_cast<unsigned long long>(seed), what);
  std::exit(1);
}

// Keys as clients make them: few distinct, strided, in the high bits only, or anything.
uint64_t any_key(std::mt19937_64& random, int kind) {
  const uint64_t x = random();
  if (kind == 0) return x % 3000;
  if (kind == 1) return (x % 20000) * 4096;
  if (kind == 2) return (x % 20000) << 45;
  return kind == 3 ? x % 20000 * 0x9e3779b97f4a7c15ull : ~(x % 2000);
}

std::vector<uint64_t> batch_of(std::mt19937_64& random, int kind) {
  std::vector<uint64_t> keys(random() % 4000);
  for (uint64_t& key : keys) key = any_key(random, kind);
  return keys;
}

void insert(Index& index, Model& model, const std::vector<uint64_t>& keys, uint32_t& next,
            int threads, uint64_t seed) {
  std::vector<uint32_t> slots(keys.size());
  const size_t before = model.size();
  const size_t fresh = index.find_or_insert(
      keys.data(), slots.data(), keys.size(), [&](size_t) { return next++; }, threads);
  uint32_t expected = next - static_cast<uint32_t>(fresh);
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto [at, is_new] = model.try_emplace(keys[i], expected);
    expected += is_new;
    require(slots[i] == at->second, "a wrong slot from find_or_insert", seed);
  }
  require(fresh == model.size() - before, "a wrong number of new keys", seed);
}

void erase(Index& index, Model& model, const std::vector<uint64_t>& keys, uint64_t seed) {
  std::vector<uint32_t> slots(keys.size());
  const size_t before = model.size();
  const size_t erased = index.erase(keys.data(), keys.size(), slots.data());
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto at = model.find(keys[i]);
    require(slots[i] == (at == model.end() ? Index::NONE : at->second), "a wrong slot erased",
            seed);
    if (at != model.end()) model.erase(at);
  }
  require(erased == before - model.size(), "a wrong number of erased keys", seed);
}

void compare(const Index& index, const Model& model, const std::vector<uint64_t>& keys, int threads,
             uint64_t seed) {
  std::vector<uint32_t> slots(keys.size());
  index.find(keys.data(), slots.data(), keys.size(), threads);
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto at = model.find(keys[i]);
    require(slots[i] == (at == model.end() ? Index::NONE : at->second), "a wrong slot found", seed);
  }
  size_t seen = 0;
  index.for_each([&](uint64_t key, uint32_t slot) {
    const auto at = model.find(key);
    require(at != model.end() && at->second == slot, "for_each gave a pair that is not in", seed);
    ++seen;
  });
  require(seen == model.size() && index.size() == seen, "a wrong number of keys", seed);
  require(index.consistent(), "overflow counts or places are wrong", seed);
}

// Slots or memory that cannot be had (a budget): keys before that are in, the others are not,
// nothing is torn, and what was charged is what is held.
void refuse(std::mt19937_64& random, uint64_t seed) {
  size_t charged = 0;
  const size_t budget = 4096 + random() % 100000;
  Index index(0, true, [&](size_t more) {
    if (charged + more > budget) throw std::bad_alloc();
    charged += more;
  });
  Model model;
  std::vector<uint64_t> keys(6000);
  for (uint64_t& key : keys) key = random();
  std::vector<uint32_t> slots(keys.size());
  const size_t until = random() % keys.size();
  try {
    index.find_or_insert(keys.data(), slots.data(), keys.size(), [&](size_t i) {
      if (i == until) throw std::bad_alloc();
      model.emplace(keys[i], static_cast<uint32_t>(i));
      return static_cast<uint32_t>(i);
    });
    require(false, "an exception was lost", seed);
  } catch (const std::bad_alloc&) {
  }
  compare(index, model, keys, 1, seed);
  require(index.bytes() == charged && charged <= budget, "charged is not what is held", seed);
}

void run(uint64_t seed) {
  std::mt19937_64 random(seed);
  Index index(random() % 3 == 0 ? random() % 5000 : 0);
  Model model;
  uint32_t next = 0;
  const int kind = static_cast<int>(seed % 5);
  for (int step = 0; step < 30; ++step) {
    const int threads = 1 + static_cast<int>(random() % 3);
    const bool shrink = step / 10 % 2 == 1;  // in waves, so that overflow comes and goes
    if ((random() % 4 == 0) != shrink)
      erase(index, model, batch_of(random, kind), seed);
    else
      insert(index, model, batch_of(random, kind), next, threads, seed);
    compare(index, model, batch_of(random, kind), threads, seed);
    if (random() % 40 == 0) {
      index.clear();
      model.clear();
    }
  }
  refuse(random, seed);
}

}  // namespace

int main(int count, char** arguments) {
  const uint64_t rounds = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 20;
  const uint64_t seed = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 0;
  for (uint64_t round = 0; round < rounds; ++round) run(seed + round);
}
