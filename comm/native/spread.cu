// Gradients of outputs to gradients of reply rows: each the sum of coefficient * grad[bag] over its
// entries, in their order, as spread.cpp does it, in wire format to every holder of the tile. A row
// of very many entries is cut: sums over its parts are rows of fp32, and a second launch adds those
// up. So no row keeps one warp busy for long, and the order is the same every time.
#include "columns.h"
#include "step_kernels.h"
#include "unit.h"

// Four blocks on a multiprocessor leave each thread 64 registers. Left to itself, the compiler may
// aim at five, and spill.
#ifdef __CUDACC__
#define FF_SPREAD_BOUNDS STEP_THREADS, 4
#else
#define FF_SPREAD_BOUNDS STEP_THREADS
#endif

namespace ff {
namespace {

constexpr uint32_t ROWS_AT_ONCE = 4;

// The gradients of a job's bags, seen from one column. Bags are asked for in rising order.
struct Gradients {
  const SumJob& job;
  const Matrices& grad;
  const GradientSource* source;
  uint32_t column;

  template <class G, int C>
  FF_DEVICE Columns<G, C> columns(uint32_t entry) {
    const uint32_t bag = job.bag != nullptr ? __ldg(job.bag + entry) : entry;
    while (bag >= source->end) ++source;
    const Matrix& matrix = grad.at(source->matrix);
    const uint8_t* const row = matrix.data + matrix.stride * (bag - source->first_bag);
    return Columns<G, C>::load_constant(reinterpret_cast<const G*>(row) +
                                        (source->column + column));
  }

  FF_DEVICE float coefficient(uint32_t entry) const {
    return job.coefficient != nullptr ? __ldg(job.coefficient + entry) : 1.0f;
  }
};

template <class G, int C>
FF_DEVICE void add_rows(Gradients gradients, uint32_t first, uint32_t last, float (&sum)[C]) {
  sum_columns<G, ROWS_AT_ONCE>(
      first, last, [&](uint32_t e) { return gradients.columns<G, C>(e); },
      [&](uint32_t e) { return gradients.coefficient(e); }, sum);
}

template <int C>
FF_DEVICE void store_sum(const SumArgs& args, const SumJob& job, uint32_t i, uint32_t column,
                         const float (&sum)[C]) {
  const uint64_t place = job.place != nullptr ? job.place[i] : job.first_place + i;
  if (job.to == nullptr) {
    uint8_t* const row = args.partial.data + args.partial.stride * place;
    write_anywhere(reinterpret_cast<float*>(row) + column, sum);
    return;
  }
  const uint64_t inside = (place * job.width + column) * bytes_of(args.wire);
  for (uint32_t h = 0; h < job.holders; ++h)
    write_anywhere(args.sent + job.to[h] + inside, args.wire, sum);
}

template <class G, int C>
FF_DEVICE void sum_rows(const SumArgs& args, const SumJob& job, const Unit& unit) {
  const uint32_t first_sum = unit.number * job.sums_of_unit;
  const uint32_t left = job.count - first_sum, vectors = job.width / C;
  const uint32_t sums = left < job.sums_of_unit ? left : job.sums_of_unit;
  for (uint32_t n = unit.lane; n < sums * vectors; n += WARP) {
    const uint32_t i = first_sum + n / vectors, column = n % vectors * C;
    const uint32_t first = __ldg(job.first + i), last = __ldg(job.last + i);
    if (last - first > job.longest) continue;
    float sum[C];
    add_rows<G>(Gradients{job, args.grad, job.sources, column}, first, last, sum);
    store_sum(args, job, i, column, sum);
  }
}

template <class G>
FF_DEVICE void sum_unit(const SumArgs& args) {
  Unit unit;
  if (!unit.find(args.first_unit, args.num_jobs, args.units)) return;
  const SumJob& job = args.jobs[unit.job];
  const uint32_t vector = args.grad.aligned ? job.vector : 1;
  if (sizeof(G) == 2 && vector == 8)
    sum_rows<G, 16 / static_cast<int>(sizeof(G))>(args, job, unit);
  else if (vector >= 4)
    sum_rows<G, 4>(args, job, unit);
  else
    sum_rows<G, 1>(args, job, unit);
}

}  // namespace

FF_KERNEL(spread_fp32, SumArgs, FF_SPREAD_BOUNDS) { sum_unit<float>(args); }
FF_KERNEL(spread_bf16, SumArgs, FF_SPREAD_BOUNDS) { sum_unit<Bf16>(args); }
FF_KERNEL(spread_fp16, SumArgs, FF_SPREAD_BOUNDS) { sum_unit<Fp16>(args); }

}  // namespace ff
