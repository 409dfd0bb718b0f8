// Who works on what: gather and update cut into equal shares, when the batch is planned.
#include "share.h"

#include "pad.h"

namespace ff {

void Pad::share_replies(Ticket& ticket) const {
  auto bytes = [&](const Segment& segment) {
    return static_cast<double>(tiles_[segment.tile]->layout().weight_stride);
  };
  auto cost = [&](const Segment& segment) {
    const size_t touched = segment.id_end - segment.id_begin + segment.rows;
    return segment.reply ? bytes(segment) * static_cast<double>(touched) : 0.0;
  };
  double total = 0;
  for (const Segment& segment : ticket.segments) total += cost(segment);
  Shares shares(ticket.replies, static_cast<size_t>(threads_), total);
  for (size_t s = 0; s < ticket.segments.size(); ++s) {
    const Segment& segment = ticket.segments[s];
    if (!segment.reply) continue;
    shares.add(s, 0, segment.rows, cost(segment), [&](double reach) {
      const double touched = reach / bytes(segment);
      if (!segment.pooled) return static_cast<size_t>(touched / 2);
      // The first bag at which ids and bags so far exceed what the reach allows.
      size_t low = 0, high = segment.rows;
      const int64_t* const offsets = ticket.offsets.data() + segment.first_bag;
      while (low < high) {
        const size_t middle = (low + high) / 2;
        const size_t so_far = offsets[middle] - offsets[0] + middle;
        if (static_cast<double>(so_far) < touched)
          low = middle + 1;
        else
          high = middle;
      }
      return low;
    });
  }
}

void Pad::share_updates(Ticket& ticket) const {
  auto bytes = [&](const Run& run) {
    return static_cast<double>(tiles_[run.tile]->layout().row_bytes());
  };
  auto touched = [&](const Run& run, size_t group) {  // rows and entries before this group
    if (run.distinct) return 2 * (group - run.group_begin);
    return group - run.group_begin + ticket.group_first[group] -
           ticket.group_first[run.group_begin];
  };
  double total = 0;
  ticket.unique = 0;
  for (Run& run : ticket.runs) {
    if (run.distinct) {
      run.group_begin = run.id_begin;
      run.group_end = run.id_end;
    }
    ticket.unique += run.group_end - run.group_begin;
    total += bytes(run) * static_cast<double>(touched(run, run.group_end));
  }
  Shares shares(ticket.updates, static_cast<size_t>(threads_), total);
  for (size_t r = 0; r < ticket.runs.size(); ++r) {
    const Run& run = ticket.runs[r];
    const double cost = bytes(run) * static_cast<double>(touched(run, run.group_end));
    shares.add(r, run.group_begin, run.group_end, cost, [&](double reach) {
      size_t low = run.group_begin, high = run.group_end;
      while (low < high) {
        const size_t middle = (low + high) / 2;
        if (static_cast<double>(touched(run, middle)) * bytes(run) < reach)
          low = middle + 1;
        else
          high = middle;
      }
      return low;
    });
  }
}

}  // namespace ff
