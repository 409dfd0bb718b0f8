// Where a row lives: id -> (bucket, position) and back, for both kinds of table.
//
// A static table with ids in [0, rows) is cut into k buckets so that every group of k consecutive
// ids lands once in every bucket: bucket sizes differ by at most one, nothing is stored, and the
// map can be inverted. The group q = id / k is turned by a hash of q, so that ids with a common
// stride do not share a bucket. The position of a row inside its bucket is q.
//
// A dynamic table has no range: bucket = hash of the id, and the "position" is the id itself.
//
// Ids are int64 values >= 0, so every argument here is below 2^63.
#pragma once

#include "config.h"

namespace ff {

// A strong 64-bit finaliser (splitmix64, with Stafford's variant 13 of the constants): every input
// bit changes every output bit with probability about one half. The key index uses another one, so
// the bucket of an id and its place in the index are independent.
FF_HD uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// A hash scaled to [0, count), count < 2^32, without a division.
FF_HD uint64_t scale(uint64_t hash, uint64_t count) { return ((hash >> 32) * count) >> 32; }

// The salt of a table's buckets. It depends on the table's ordinal alone, so that those who send
// ids and those who hold rows agree without exchanging it.
FF_HD uint64_t bucket_salt(uint64_t table) { return mix(table ^ 0x66f0f0f10f1fff04ull); }

// Exact n / d for n < 2^63 by multiplication: magic = ceil(2^(63+l) / d), l = ceil(log2 d)
// (Granlund and Montgomery, PLDI 1994, theorem 4.2 with 63-bit dividends).
struct Divisor {
  uint64_t divisor = 1;
  uint64_t magic = 1ull << 63;
  uint32_t shift = 0;

  FF_HD uint64_t quotient(uint64_t n) const { return multiply_high(magic, n << 1) >> shift; }
};

#ifndef __CUDACC_RTC__
inline Divisor divisor_of(uint64_t d) {
  uint32_t l = 0;
  while (l < 63 && (1ull << l) < d) ++l;
  const unsigned __int128 power = static_cast<unsigned __int128>(1) << (63 + l);
  return {d, static_cast<uint64_t>((power + d - 1) / d), l};
}
#endif

FF_HD uint64_t turn_of(uint64_t q, uint64_t k, uint64_t salt) { return scale(mix(q ^ salt), k); }

FF_HD uint64_t position(uint64_t id, uint64_t k) { return id / k; }

FF_HD uint64_t bucket_of_static(uint64_t id, uint64_t k, uint64_t salt) {
  const uint64_t q = id / k;
  const uint64_t bucket = id - q * k + turn_of(q, k, salt);
  return bucket < k ? bucket : bucket - k;
}

FF_HD uint64_t id_of(uint64_t position, uint64_t bucket, uint64_t k, uint64_t salt) {
  const uint64_t turn = turn_of(position, k, salt);
  return position * k + (bucket >= turn ? bucket - turn : bucket + k - turn);
}

FF_HD uint64_t bucket_of_dynamic(uint64_t id, uint64_t k, uint64_t salt) {
  return scale(mix(id ^ salt), k);
}

// The same map with the division prepared, for loops over many ids of one static table.
struct Buckets {
  Divisor by;
  uint64_t salt = 0;

  struct Place {
    uint64_t bucket, position;
  };

  FF_HD Place place(uint64_t id) const {
    const uint64_t k = by.divisor, q = by.quotient(id);
    const uint64_t bucket = id - q * k + turn_of(q, k, salt);
    return {bucket < k ? bucket : bucket - k, q};
  }
};

// The id that a table of `limit` ids has in place of any 64-bit one.
FF_HD uint64_t hashed_id(uint64_t raw, uint64_t limit) { return multiply_high(mix(raw), limit); }

// From the caller's id to bucket and position for any kind of table, for loops: no table in sight.
struct Placer {
  Buckets place;  // dynamic: only the number of buckets and the salt are used
  uint64_t limit;
  bool dynamic, hashed;

  FF_HD Buckets::Place operator()(int64_t raw) const {
    uint64_t id = static_cast<uint64_t>(raw);
    if (hashed) id = hashed_id(id, limit);
    if (dynamic) return {bucket_of_dynamic(id, place.by.divisor, place.salt), id};
    return place.place(id);
  }
};

// Number of positions in a bucket of a static table: the group that is cut short at the end of the
// table gives its ids to some buckets only.
FF_HD uint64_t bucket_rows(uint64_t rows, uint64_t bucket, uint64_t k, uint64_t salt) {
  const uint64_t whole = rows / k;
  return whole + (whole * k < rows && id_of(whole, bucket, k, salt) < rows ? 1 : 0);
}

}  // namespace ff
