// The part of plan that reads a request: its shape, checked and copied to the ticket.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "pad.h"
#include "parallel.h"

namespace ff {
namespace {

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(std::string("Pad.plan: malformed request: ") + what);
}

constexpr size_t IDS_PER_THREAD = 16384, LENGTHS_PER_THREAD = 16384;

// offsets (rows + 1,)
void read_bags(const Segment& segment, const int32_t* lengths, int64_t* offsets) {
  int64_t end = offsets[0] = static_cast<int64_t>(segment.id_begin);
  for (size_t bag = 0; bag < segment.rows; ++bag) {
    require(lengths[bag] >= 0, "a negative length");
    offsets[bag + 1] = end += lengths[bag];
  }
  require(end == static_cast<int64_t>(segment.id_end),
          "lengths of a pooled segment do not sum to its ids");
}

}  // namespace

// Copies the request's shape, checking that its arrays agree.
void Pad::read_segments(const Request& request, Ticket& ticket) const {
  const size_t S = request.segments;
  require(request.first[0] == 0 && request.first[S] == static_cast<int64_t>(request.num_ids),
          "first does not cover ids");
  require(request.num_ids < (uint64_t{1} << 32), "2^32 or more ids in one batch");
  ticket.segments.clear();
  size_t offsets = 0, bags = 0;
  for (size_t s = 0; s < S; ++s) {
    const int32_t tile = request.tile[s];
    require(tile >= 0 && static_cast<size_t>(tile) < tiles_.size(), "a tile that is not held");
    require(s == 0 || tile >= request.tile[s - 1], "segments are not ordered by tile");
    const int64_t begin = request.first[s], end = request.first[s + 1];
    const int64_t rows = request.bags[s + 1] - request.bags[s];
    require(begin <= end && rows >= 0, "first or bags goes down");
    const Segment segment{static_cast<uint32_t>(tile),
                          request.pooled[s],
                          request.replies[s],
                          static_cast<size_t>(begin),
                          static_cast<size_t>(end),
                          static_cast<size_t>(rows),
                          offsets};
    require(segment.pooled || rows == end - begin, "a rows segment needs one reply row per id");
    offsets += segment.pooled ? segment.rows + 1 : 0;
    bags += segment.pooled ? segment.rows : 0;
    require(bags <= request.num_lengths, "fewer lengths than pooled bags");
    ticket.segments.push_back(segment);
  }
  require(bags == request.num_lengths, "more lengths than pooled bags");
  ticket.offsets.resize(offsets);
  read_lengths(request, ticket);
  auto copy = [&](const float* from, Array<float>& to) {
    to.resize(from == nullptr ? 0 : request.num_ids);
    parallel_for(threads_, to.size(), IDS_PER_THREAD, [&](size_t begin, size_t end, int) {
      std::copy(from + begin, from + end, to.data() + begin);
    });
  };
  copy(request.weights, ticket.weights);
  const bool credited = ticket.train && population_ && population_->by_credit();
  copy(credited ? request.credits : nullptr, ticket.credits);
}

// Where the bags of the pooled segments begin and end.
void Pad::read_lengths(const Request& request, Ticket& ticket) const {
  const std::vector<Segment>& segments = ticket.segments;
  const size_t each = request.num_lengths / std::max<size_t>(1, segments.size());
  parallel_for(threads_, segments.size(), LENGTHS_PER_THREAD / (each + 1) + 1,
               [&](size_t first, size_t last, int) {
                 const int32_t* lengths = request.lengths;
                 for (size_t s = 0; s < last; ++s) {
                   const Segment& segment = segments[s];
                   if (!segment.pooled) continue;
                   if (s >= first) read_bags(segment, lengths, &ticket.offsets[segment.first_bag]);
                   lengths += segment.rows;
                 }
               });
}

void Pad::make_runs(Ticket& ticket) const {
  ticket.runs.clear();
  for (size_t s = 0; s < ticket.segments.size(); ++s) {
    const Segment& segment = ticket.segments[s];
    if (s == 0 || ticket.runs.back().tile != segment.tile)
      ticket.runs.push_back(
          {segment.tile, s, s, segment.id_begin, segment.id_begin, !segment.pooled, 0, 0, 0});
    Run& run = ticket.runs.back();
    run.distinct = run.distinct && run.segment_end == run.segment_begin;
    run.segment_end = s + 1;
    run.id_end = segment.id_end;
  }
  for (const Run& run : ticket.runs)
    require(groupable(ticket.segments, run), "more reply rows of a tile than 32 bits can name");
}

// Ids of the tables, kept where the noise of stochastic rounding needs them.
void Pad::keep_ids(const Request& request, Ticket& ticket) const {
  bool needed = false;
  for (const Run& run : ticket.runs)
    needed |= ticket.train && tiles_[run.tile]->spec().dtype != Dtype::fp32;
  ticket.ids.resize(needed ? request.num_ids : 0);
  if (!needed) return;
  const auto every = [](const Run&) { return true; };
  each_share(share_ids(ticket.runs, threads_, every), [&](size_t, const Share& share) {
    const Tile& tile = *tiles_[ticket.runs[share.part].tile];
    for (size_t i = share.begin; i < share.end; ++i)
      ticket.ids[i] = tile.id_of(static_cast<uint64_t>(request.ids[i]));
  });
}

}  // namespace ff
