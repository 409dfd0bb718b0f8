// The two halves of a step on the requester's side: reply rows -> outputs, and gradients of outputs
// -> gradients of reply rows. A steady state allocates nothing, and every sum has a fixed order
// whatever the number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "route.h"
#include "step_kernels.h"

namespace ff {

struct Outputs {
  Dtype dtype = Dtype::fp32;
  Matrix pooled;                  // (batch, output_dim)
  std::vector<Matrix> sequences;  // per feature with pooling "none": (its ids, dim)
};

// The first byte of every segment (S,), for who serves it: 0 where another replica replies.
// Segments of the rank's own lie in the requester's buffer, the others in the one that MPI moves.
void reply_addresses(const Plan& plan, const Route& route, const uint8_t* sent, const uint8_t* got,
                     uint64_t* addresses);
void gradient_addresses(const Plan& plan, const Route& route, const uint8_t* sent,
                        const uint8_t* got, uint64_t* addresses);

// out[bag] = scale * sum of weight * reply row, fp32 accumulators, entries in order. got:
// reply_got.
void pool(const Plan& plan, const Route& route, const uint8_t* got, const Outputs& out);

// Gradient of each reply row: sum of coefficient * grad[bag] in lookup order, written once in wire
// format, then copied for the tile's other holders. sent: gradient_sent.
void spread(const Plan& plan, const Route& route, const Outputs& grad, uint8_t* sent);

}  // namespace ff
