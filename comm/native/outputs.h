// The matrices of a caller, of any kind of array, checked against a batch.
#pragma once

#include <string>
#include <vector>

#include "numpy.h"
#include "route.h"
#include "step.h"

namespace ff {

template <class AnyArray>
Outputs outputs_of(const Router& router, const Route& route, const AnyArray& pooled,
                   const std::vector<AnyArray>& sequences) {
  const Plan& plan = router.plan();
  Outputs out;
  out.dtype = dtype_of(pooled, "pooled");
  out.pooled = matrix_of(pooled, out.dtype, static_cast<size_t>(route.batch), plan.output_dim,
                         "pooled (batch, output_dim)");
  if (sequences.size() != plan.num_sequences)
    throw nb::value_error(("expected " + std::to_string(plan.num_sequences) +
                           " sequences, one per feature with pooling 'none'; got " +
                           std::to_string(sequences.size()))
                              .c_str());
  out.sequences.resize(plan.num_sequences);
  for (const Feature& feature : plan.features) {
    if (feature.pooling != Pooling::none) continue;
    const Slice& slice = route.tables[feature.table].slices[feature.in_table];
    out.sequences[feature.column] =
        matrix_of(sequences[feature.column], out.dtype, slice.bags, plan.tables[feature.table].dim,
                  "sequence of feature '" + feature.name + "' (ids, dim)");
  }
  return out;
}

}  // namespace ff
