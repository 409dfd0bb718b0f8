// Reply rows from the pad: rows as they are, or summed per bag, in the type of the wire. A block
// works on a piece of a segment, a team of lanes on one reply row, a lane on four of its columns.
#include "columns.h"
#include "row_kernels.h"
#include "team.h"

namespace ff {

// A segment, ready for the loops. Arrays are those of the whole request.
template <class Wire>
struct Reading {
  const char* const* rows;
  const int64_t* offsets;  // of the segment's bags
  const float* weights;    // or null
  uint32_t dim;
  Wire* out;
};

// Rows as they lie, in units of which `units` are a row. Several at a time.
template <class Unit>
FF_DEVICE void copy_rows(const char* const* rows, char* out, uint32_t units, uint32_t begin,
                         uint32_t end) {
  constexpr uint32_t TOGETHER = 4;
  const Team team(units);
  const uint32_t next = team.count();
  for (uint32_t r = begin + team.number(); r < end; r += TOGETHER * next) {
    const Unit* from[TOGETHER];
#pragma unroll
    for (uint32_t k = 0; k < TOGETHER; ++k)
      if (k * next < end - r) from[k] = reinterpret_cast<const Unit*>(rows[r + k * next]);
    for (uint32_t u = team.lane(); u < units; u += team.lanes()) {
      Unit unit[TOGETHER];
#pragma unroll
      for (uint32_t k = 0; k < TOGETHER; ++k)
        if (k * next < end - r) unit[k] = from[k][u];
#pragma unroll
      for (uint32_t k = 0; k < TOGETHER; ++k)
        if (k * next < end - r)
          reinterpret_cast<Unit*>(out)[uint64_t{r + k * next} * units + u] = unit[k];
    }
  }
}

FF_DEVICE void copy_rows(const char* const* rows, char* out, uint32_t bytes, uint32_t begin,
                         uint32_t end) {
  const uint32_t together = bytes | static_cast<uint32_t>(reinterpret_cast<uint64_t>(out));
  if (together % 16 == 0)
    copy_rows<uint4>(rows, out, bytes / 16, begin, end);
  else if (together % 8 == 0)
    copy_rows<uint2>(rows, out, bytes / 8, begin, end);
  else if (together % 4 == 0)
    copy_rows<uint32_t>(rows, out, bytes / 4, begin, end);
  else
    copy_rows<uint16_t>(rows, out, bytes / 2, begin, end);
}

// Rows in another type.
template <class T, class Wire, int V>
FF_DEVICE void convert_rows(const Reading<Wire>& r, uint32_t begin, uint32_t end) {
  constexpr uint32_t TOGETHER = 4;
  const Team team((r.dim + V - 1) / V);
  const uint32_t next = team.count();
  for (uint32_t b = begin + team.number(); b < end; b += TOGETHER * next) {
    const T* from[TOGETHER];
#pragma unroll
    for (uint32_t k = 0; k < TOGETHER; ++k)
      if (k * next < end - b) from[k] = reinterpret_cast<const T*>(r.rows[b + k * next]);
    for (uint32_t d = team.lane() * V; d < r.dim; d += team.lanes() * V) {
      Columns<T, V> columns[TOGETHER];
#pragma unroll
      for (uint32_t k = 0; k < TOGETHER; ++k)
        if (k * next < end - b) columns[k] = Columns<T, V>::load(from[k] + d);
#pragma unroll
      for (uint32_t k = 0; k < TOGETHER; ++k) {
        if (k * next >= end - b) break;
        float x[V];
        columns[k].widen(x);
        write_nearest(r.out + uint64_t{b + k * next} * r.dim + d, x);
      }
    }
  }
}

// Sums of bags, in the order of each bag.
template <class T, class Wire, int V>
FF_DEVICE void sum_bags(const Reading<Wire>& r, uint32_t begin, uint32_t end) {
  const Team team((r.dim + V - 1) / V);
  for (uint32_t b = begin + team.number(); b < end; b += team.count()) {
    const uint64_t first = r.offsets[b];
    const uint32_t length = static_cast<uint32_t>(r.offsets[b + 1] - first);
    const char* const* const rows = r.rows + first;
    const float* const weights = r.weights == nullptr ? nullptr : r.weights + first;
    const auto weight = [&](uint32_t i) { return weights == nullptr ? 1.0f : weights[i]; };
    for (uint32_t d = team.lane() * V; d < r.dim; d += team.lanes() * V) {
      const auto columns_of = [&](uint32_t i) {
        return Columns<T, V>::load(reinterpret_cast<const T*>(rows[i]) + d);
      };
      float sum[V];
      sum_columns<T, Columns<T, V>::TOGETHER>(0, length, columns_of, weight, sum);
      write_nearest(r.out + uint64_t{b} * r.dim + d, sum);
    }
  }
}

template <class T, class Wire, int V>
FF_DEVICE void read(const Reading<Wire>& r, bool pooled, const GatherPiece& piece) {
  if (pooled)
    sum_bags<T, Wire, V>(r, piece.begin, piece.end);
  else
    convert_rows<T, Wire, V>(r, piece.begin, piece.end);
}

template <class T, class Wire>
FF_DEVICE void read(const Reading<Wire>& r, bool pooled, const GatherPiece& piece) {
  if (r.dim % 4 == 0 && reinterpret_cast<uint64_t>(r.out) % (4 * sizeof(Wire)) == 0)
    read<T, Wire, 4>(r, pooled, piece);
  else
    read<T, Wire, 1>(r, pooled, piece);
}

template <class Wire>
FF_DEVICE void gather(const GatherArgs& args, Dtype wire) {
  const GatherPiece piece = args.pieces[blockIdx.x];
  const SegmentRows segment = args.segments[piece.segment];
  char* const out = reinterpret_cast<char*>(args.addresses[piece.segment]);
  const char* const* const rows = args.rows_at + (segment.pooled ? 0 : segment.id_begin);
  if (!segment.pooled && segment.dtype == wire)
    return copy_rows(rows, out, segment.dim * bytes_of(wire), piece.begin, piece.end);
  const Reading<Wire> reading{rows, args.offsets + segment.first_bag, args.weights, segment.dim,
                              reinterpret_cast<Wire*>(out)};
  if (segment.dtype == Dtype::bf16)
    read<Bf16>(reading, segment.pooled, piece);
  else if (segment.dtype == Dtype::fp16)
    read<Fp16>(reading, segment.pooled, piece);
  else
    read<float>(reading, segment.pooled, piece);
}

FF_KERNEL(gather_fp32, GatherArgs, FF_ROW_BOUNDS) { gather<float>(args, Dtype::fp32); }
FF_KERNEL(gather_bf16, GatherArgs, FF_ROW_BOUNDS) { gather<Bf16>(args, Dtype::bf16); }
FF_KERNEL(gather_fp16, GatherArgs, FF_ROW_BOUNDS) { gather<Fp16>(args, Dtype::fp16); }

}  // namespace ff
