#include "reclaimer.h"

#include <algorithm>
#include <stdexcept>

namespace ff {
namespace {

constexpr uint32_t RETURN = Clock::NAMES - Reclaimer::LIFETIME;  // ticks from death to a new life

}  // namespace

Reclaimer::Reclaimer(Ranking ranking, const Decay& decay, Clock& clock,
                     std::vector<RowClass> classes)
    : ranking_(ranking), decay_(decay), clock_(clock) {
  for (const RowClass& rule : classes) {
    Ledger& ledger = ledgers_.emplace_back();
    ledger.rule = rule;
    if (!rule.by_score && rule.time_to_live == 0) continue;
    ledger.bars.resize(Clock::NAMES);
    ledger.cells.resize(Clock::NAMES);
    // As if the clock had always run: names that it has not come to yet are past their lifetime.
    for (uint32_t age = LIFETIME; age < Clock::NAMES; ++age)
      ledger.bars[static_cast<uint16_t>(clock_.now() - age)] = SCORE_BINS;
  }
}

void Reclaimer::count_cell(Ledger& ledger, Meta meta, int64_t rows, int64_t bytes) {
  std::unique_ptr<Cells>& cells = ledger.cells[meta.time];
  if (cells == nullptr) {
    cells = std::make_unique<Cells>();
    ++num_cells_;
  }
  const uint32_t bin = score_bin(meta.score);
  Count& count = cells->bin[bin];
  count.rows += rows;
  count.bytes += bytes;
  if (count.rows != 0) {
    cells->used |= 1ull << bin;
    return;
  }
  cells->used &= ~(1ull << bin);
  // Those of this tick will be needed again.
  if (cells->used == 0 && meta.time != clock_.now()) drop_cells(ledger, meta.time);
}

void Reclaimer::drop_cells(Ledger& ledger, uint16_t time) {
  if (ledger.cells[time] == nullptr) return;
  ledger.cells[time].reset();
  --num_cells_;
}

// Condemns the rows below the bar; returns their bytes.
int64_t Reclaimer::raise_bar(Ledger& ledger, uint16_t time, uint32_t bar) {
  if (bar <= ledger.bars[time]) return 0;
  ledger.bars[time] = static_cast<uint8_t>(bar);
  Cells* const cells = ledger.cells[time].get();
  if (cells == nullptr) return 0;
  Count gone;
  for (uint32_t bin = 0; bin < bar; ++bin) {
    gone.rows += cells->bin[bin].rows;
    gone.bytes += cells->bin[bin].bytes;
    cells->bin[bin] = {};
    cells->used &= ~(1ull << bin);
  }
  ledger.rows -= gone.rows;
  ledger.bytes -= gone.bytes;
  bytes_ -= gone.bytes;
  if (gone.rows != 0) to_be_swept();
  if (cells->used == 0) drop_cells(ledger, time);
  return gone.bytes;
}

bool Reclaimer::expired(uint32_t row_class, uint16_t time) const {
  const uint64_t time_to_live = ledgers_[row_class].rule.time_to_live;
  if (time_to_live == 0 || time == clock_.now()) return false;
  return clock_.batch() - clock_.batch_of(static_cast<uint16_t>(time + 1)) > time_to_live;
}

int64_t Reclaimer::expire() {
  int64_t gone = 0;
  for (uint32_t c = 0; c < ledgers_.size(); ++c) {
    if (ledgers_[c].rule.time_to_live == 0) continue;
    for (uint32_t time = 0; time < Clock::NAMES; ++time)
      if (ledgers_[c].cells[time] != nullptr && expired(c, static_cast<uint16_t>(time)))
        gone += raise_bar(ledgers_[c], static_cast<uint16_t>(time), SCORE_BINS);
  }
  return gone;
}

// Adds the cells of a class.
void Reclaimer::rank_class(uint32_t row_class, std::vector<Rank>& ranks) const {
  const Ledger& ledger = ledgers_[row_class];
  const auto first = static_cast<ptrdiff_t>(ranks.size());
  for (uint32_t time = 0; time < Clock::NAMES; ++time) {
    if (ledger.cells[time] == nullptr) continue;
    const Cells& cells = *ledger.cells[time];
    const auto name = static_cast<uint16_t>(time);
    const uint32_t gone = clock_.intervals(name, clock_.now());
    for (uint64_t used = cells.used; used != 0; used &= used - 1) {
      const auto bin = static_cast<uint32_t>(__builtin_ctzll(used));
      const uint64_t value = ranking_ == Ranking::recency ? 0 : decay_.apply(bin_value(bin), gone);
      ranks.push_back(
          {static_cast<double>(value), clock_.age(name), bin, row_class, cells.bin[bin].rows});
    }
  }
  if (ranking_ != Ranking::importance) return;
  std::vector<Rank> sorted(ranks.begin() + first, ranks.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const Rank& a, const Rank& b) { return a.value < b.value; });
  double unit = 0;  // the value that 95% of the rows do not exceed
  int64_t below = 0;
  for (const Rank& cell : sorted) {
    unit = cell.value;
    if (20 * (below += cell.rows) >= 19 * ledger.rows) break;
  }
  unit = std::max(unit, 1.0);
  for (auto cell = ranks.begin() + first; cell != ranks.end(); ++cell) cell->value /= unit;
}

int64_t Reclaimer::condemn_lowest(int64_t bytes) {
  std::vector<Rank> ranks;
  for (uint32_t c = 0; c < ledgers_.size(); ++c)
    if (ledgers_[c].rule.by_score) rank_class(c, ranks);
  const auto later = [](const Rank& a, const Rank& b) {
    if (a.value != b.value) return a.value > b.value;
    if (a.age != b.age) return a.age < b.age;
    return a.bin != b.bin ? a.bin > b.bin : a.row_class > b.row_class;
  };
  std::make_heap(ranks.begin(), ranks.end(), later);  // the first to die is on top
  int64_t gone = 0;
  for (; gone < bytes && !ranks.empty(); ranks.pop_back()) {
    std::pop_heap(ranks.begin(), ranks.end(), later);
    const Rank& cell = ranks.back();
    const auto time = static_cast<uint16_t>(clock_.now() - cell.age);
    gone += raise_bar(ledgers_[cell.row_class], time, cell.bin + 1);
  }
  return gone;
}

size_t Reclaimer::condemn(size_t bytes) {
  const auto wanted = static_cast<int64_t>(std::min<size_t>(bytes, INT64_MAX));
  int64_t gone = expire();
  if (gone < wanted) gone += condemn_lowest(wanted - gone);
  return static_cast<size_t>(gone) + tick();
}

size_t Reclaimer::tick() {
  if (unswept_ > 0 && clock_.ticks() + 1 - swept_from_ >= RETURN)
    throw std::logic_error("Reclaimer.tick: dead rows were not swept before their name returns");
  for (Ledger& ledger : ledgers_) {
    if (ledger.bars.empty()) continue;
    const Cells* const cells = ledger.cells[clock_.now()].get();
    if (cells != nullptr && cells->used == 0) drop_cells(ledger, clock_.now());
  }
  clock_.tick();
  int64_t gone = 0;
  for (Ledger& ledger : ledgers_) {
    if (ledger.bars.empty()) continue;
    ledger.bars[clock_.now()] = 0;
    gone += raise_bar(ledger, static_cast<uint16_t>(clock_.now() - LIFETIME), SCORE_BINS);
  }
  return static_cast<size_t>(gone);
}

void Reclaimer::to_be_swept() {
  if (unswept_ == 0) swept_from_ = clock_.ticks();
  unswept_ = 2;
  sees_all_ = false;
}

void Reclaimer::sweep_began() {
  sweeping_ = sees_all_ = true;
  began_ = clock_.ticks();
}

void Reclaimer::sweep_ended() {
  if (!sweeping_) throw std::logic_error("Reclaimer.sweep_ended: no sweep has begun");
  sweeping_ = false;
  swept_from_ = std::max(swept_from_, began_);
  if (sees_all_ && unswept_ > 0) --unswept_;
}

size_t Reclaimer::memory() const {
  size_t bytes = num_cells_ * sizeof(Cells);
  for (const Ledger& ledger : ledgers_)
    bytes += ledger.bars.size() + ledger.cells.size() * sizeof(ledger.cells[0]);
  return bytes;
}

bool Reclaimer::consistent() const {
  int64_t bytes = 0;
  size_t num_cells = 0;
  bool good = true;
  for (const Ledger& ledger : ledgers_) {
    Count sum;
    for (uint32_t time = 0; time < ledger.cells.size(); ++time) {
      const Cells* const cells = ledger.cells[time].get();
      if (cells == nullptr) continue;
      ++num_cells;
      good &= cells->used != 0 || time == clock_.now();
      for (uint32_t bin = 0; bin < SCORE_BINS; ++bin) {
        const Count& count = cells->bin[bin];
        const bool used = (cells->used >> bin & 1) != 0;
        good &= used ? count.rows > 0 && count.bytes >= 0 : count.rows == 0 && count.bytes == 0;
        good &= !used || bin >= ledger.bars[time];
        sum.rows += count.rows;
        sum.bytes += count.bytes;
      }
    }
    const bool counted = !ledger.bars.empty();
    good &= counted ? sum.rows == ledger.rows && sum.bytes == ledger.bytes
                    : ledger.rows >= 0 && ledger.bytes >= 0;
    bytes += ledger.bytes;
  }
  return good && bytes == bytes_ && num_cells == num_cells_;
}

}  // namespace ff
