#include "device_route.h"

#include "parallel.h"

namespace ff {
namespace {

constexpr uint32_t COPIED_BAGS = 16, SUMMED_BAGS = 4,
                   SUMMED_ROWS = 8;  // of a warp, where rows are wide

// The columns that can be read at once where rows begin at multiples of all these columns.
uint32_t vector_of(uint32_t columns) { return columns % 8 == 0 ? 8 : columns % 4 == 0 ? 4 : 1; }

// Bags or rows of one warp: enough to give each lane something.
uint32_t of_unit(uint32_t least, uint32_t width, uint32_t vector) {
  const uint32_t lanes = std::max(1u, width / std::min(vector, 4u));
  return std::max(least, 32u / lanes);
}

}  // namespace

// Lays out what the device needs, in two passes: the first measures, the second knows where the
// memory is and fills in addresses.
class DeviceRoute::Builder {
 public:
  Builder(const Plan& plan, const Route& route, DeviceRoute& to)
      : plan_(plan), route_(route), to_(to) {}

  void build() {
    to_.parcel_.clear();
    to_.copies_.clear();
    put_tables();
    add_pool_jobs();
    add_sum_jobs();
    finish(to_.pool_);
    finish(to_.rows_);
    finish(to_.totals_);
  }

 private:
  // The index arrays of one table on the device.
  struct Table {
    const uint32_t* row;
    const uint16_t* bucket;
    const float* weight;
    const uint32_t* begin;
    const float* scale;
    const uint32_t *start, *bag;
    const float* coefficient;
    const uint32_t *long_row, *first_part, *part_first, *part_last;
  };

  // Where the array will lie on the device; null for an empty one.
  template <class T>
  const T* put(const T* from, size_t count) {
    const auto part = to_.parcel_.add<char>(count * sizeof(T));
    if (count > 0) to_.copies_.push_back({from, part});
    return reinterpret_cast<const T*>(to_.parcel_.device(part));
  }

  template <class Values>
  auto put(const Values& values) {
    return put(values.data(), values.size());
  }

  template <class T>
  static const T* behind(const T* array, size_t first) {
    return array == nullptr ? nullptr : array + first;
  }

  template <class Job>
  void finish(Launch<Job>& launch) {
    launch.jobs_there = put(launch.jobs);
    launch.first_unit_there = put(launch.first_unit);
  }

  void put_tables() {
    tables_.clear();
    for (size_t t = 0; t < route_.tables.size(); ++t) {
      const TableRoute& table = route_.tables[t];
      const LongRows& cut = to_.long_rows_[t];
      tables_.push_back({put(table.row), put(table.bucket), put(table.weight),
                         table.all_single ? nullptr : put(table.begin), put(table.scale),
                         put(table.start), put(table.bag), put(table.coefficient), put(cut.row),
                         put(cut.first_part), put(cut.first), put(cut.last)});
    }
  }

  void add_pool_jobs() {
    size_t count = 0;
    for (const Piece& piece : plan_.pieces) count += piece.sources.size();
    to_.row_sources_.resize(count);
    to_.pool_.clear();
    const RowSource* const sources = put(to_.row_sources_);
    count = 0;
    for (const Piece& piece : plan_.pieces) {
      const uint32_t vector = lay_sources(piece, to_.row_sources_.data() + count);
      add_pool_job(piece, sources + count, vector);
      count += piece.sources.size();
    }
  }

  // Returns how many columns of the piece can be read at once.
  uint32_t lay_sources(const Piece& piece, RowSource* sources) const {
    const TableRoute& table = route_.tables[plan_.features[piece.feature].table];
    const int64_t element = bytes_of(plan_.wire);
    uint32_t columns = piece.width;
    for (size_t b = 0; b < piece.sources.size(); ++b) {
      const Piece::Source& from = piece.sources[b];
      const uint32_t dim = plan_.tiles[plan_.out[from.link].tile].dim();
      sources[b].stride = dim * element;
      sources[b].base = route_.reply_got.offset[from.link] + from.inner * element -
                        sources[b].stride * table.first_row[b];
      columns |= dim | from.inner;  // a power of two divides them all if it divides this
    }
    return vector_of(columns);
  }

  void add_pool_job(const Piece& piece, const RowSource* sources, uint32_t vector) {
    const Feature& feature = plan_.features[piece.feature];
    const Table& table = tables_[feature.table];
    const Slice& slice = route_.tables[feature.table].slices[feature.in_table];
    PoolJob job{};
    job.row = table.row;
    job.bucket = table.bucket;
    job.weight = table.weight;
    job.begin = slice.single ? nullptr : behind(table.begin, slice.first_bag);
    job.scale = behind(table.scale, slice.first_bag);
    job.sources = sources;
    job.first_entry = slice.first_entry;
    job.bags = slice.bags;
    job.matrix = feature.pooling == Pooling::none ? static_cast<int32_t>(feature.column) : POOLED;
    job.column = piece.column;
    job.width = piece.width;
    job.vector = vector;
    job.bags_of_unit = of_unit(slice.single ? COPIED_BAGS : SUMMED_BAGS, piece.width, vector);
    to_.pool_.add(job, job.bags, job.bags_of_unit);
  }

  void add_sum_jobs() {
    size_t sources = plan_.tiles.size(), holders = plan_.out.size();  // one for the tile's parts
    for (const Tile& tile : plan_.tiles) sources += plan_.tables[tile.table].features.size();
    to_.gradient_sources_.clear();
    to_.gradient_sources_.resize(sources);
    to_.to_.clear();
    to_.to_.resize(holders);
    next_source_ = to_.gradient_sources_.data();
    next_holder_ = to_.to_.data();
    sources_there_ = put(to_.gradient_sources_);
    holders_there_ = put(to_.to_);
    to_.rows_.clear();
    to_.totals_.clear();
    to_.parts_ = 0;
    for (uint32_t t = 0; t < plan_.tiles.size(); ++t) add_tile(t);
  }

  // First the parts of long rows, which take longest.
  void add_tile(uint32_t t) {
    const Tile& tile = plan_.tiles[t];
    const TableRoute& table = route_.tables[tile.table];
    const Table& there = tables_[tile.table];
    SumJob rows = tile_job(t);
    add_parts(tile, rows);
    rows.first = behind(there.start, table.first_row[tile.bucket]);
    rows.last = rows.first + 1;
    rows.count = table.rows_in(tile.bucket);
    rows.longest = LONGEST_SUM;
    rows.sums_of_unit = of_unit(SUMMED_ROWS, rows.width, rows.vector);
    to_.rows_.add(rows, rows.count, rows.sums_of_unit);
  }

  // What all sums of a tile have in common: where gradients come from, and where rows go.
  SumJob tile_job(uint32_t t) {
    const Tile& tile = plan_.tiles[t];
    SumJob job{};
    job.bag = tables_[tile.table].bag;
    job.coefficient = tables_[tile.table].coefficient;
    job.sources = there(next_source_);
    job.to = holders_there_ + (next_holder_ - to_.to_.data());
    job.holders = 1 + static_cast<uint32_t>(plan_.copies[t].size());
    job.width = tile.dim();
    uint32_t columns = job.width;
    for (uint32_t f : plan_.tables[tile.table].features) {
      const Feature& feature = plan_.features[f];
      const bool sequence = feature.pooling == Pooling::none;
      const Slice& slice = route_.tables[tile.table].slices[feature.in_table];
      const uint32_t column = tile.start + (sequence ? 0 : feature.column);
      *next_source_++ = {slice.first_bag, slice.first_bag + slice.bags,
                         sequence ? static_cast<int32_t>(feature.column) : POOLED, column};
      columns |= column;
    }
    job.vector = vector_of(columns);
    *next_holder_++ = route_.gradient_sent.offset[plan_.first_link[t]];
    for (uint32_t link : plan_.copies[t]) *next_holder_++ = route_.gradient_sent.offset[link];
    return job;
  }

  // The parts of a tile's long rows become rows of fp32, from row `parts_` on, and sums over those
  // the rows.
  void add_parts(const Tile& tile, const SumJob& rows) {
    const LongRows& cut = to_.long_rows_[tile.table];
    const Table& there = tables_[tile.table];
    const uint32_t begin = cut.of_bucket[tile.bucket], end = cut.of_bucket[tile.bucket + 1];
    const uint32_t first = cut.first_part[begin];
    SumJob parts = rows;
    parts.first = behind(there.part_first, first);
    parts.last = behind(there.part_last, first);
    parts.to = nullptr;
    parts.first_place = to_.parts_;
    parts.count = cut.first_part[end] - first;
    parts.longest = LONGEST_SUM;
    parts.sums_of_unit = of_unit(1, parts.width, parts.vector);
    to_.rows_.add(parts, parts.count, parts.sums_of_unit);

    SumJob totals = rows;
    totals.first = behind(there.first_part, begin);
    totals.last = totals.first + 1;
    totals.bag = nullptr;
    totals.coefficient = nullptr;
    totals.sources = this->there(next_source_);
    *next_source_++ = {first - to_.parts_, UINT32_MAX, POOLED, 0};
    totals.place = behind(there.long_row, begin);
    totals.count = end - begin;
    totals.longest = UINT32_MAX;
    totals.vector = vector_of(totals.width);
    totals.sums_of_unit = of_unit(1, totals.width, totals.vector);
    to_.totals_.add(totals, totals.count, totals.sums_of_unit);
    to_.parts_ += parts.count;
  }

  const GradientSource* there(const GradientSource* source) const {
    return sources_there_ + (source - to_.gradient_sources_.data());
  }

  const Plan& plan_;
  const Route& route_;
  DeviceRoute& to_;
  std::vector<Table> tables_;
  GradientSource* next_source_ = nullptr;
  uint64_t* next_holder_ = nullptr;
  const GradientSource* sources_there_ = nullptr;
  const uint64_t* holders_there_ = nullptr;
};

DeviceRoute::DeviceRoute(std::shared_ptr<Device> device)
    : device_(std::move(device)), parcel_(*device_), read_(*device_) {}

DeviceRoute::~DeviceRoute() { read_.finish(); }

void DeviceRoute::upload(const Plan& plan, const Route& route, const Stream& uploads) {
  const auto tables = static_cast<size_t>(plan.tables.size());
  long_rows_.resize(tables);
  parallel_for(plan.threads, tables, 1, [&](size_t begin, size_t end, int) {
    for (size_t t = begin; t < end; ++t) long_rows_[t].find(route.tables[t], plan.tables[t].pooled);
  });
  Builder builder(plan, route, *this);
  builder.build();
  uploads.wait(read_);
  parcel_.open(uploads);
  builder.build();
  Copies copies(parcel_);
  for (const Copy& copy : copies_) copies.add(copy.to, static_cast<const char*>(copy.from));
  copies.run(plan.threads);
  parcel_.send(uploads);
}

}  // namespace ff
