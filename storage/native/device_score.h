// Scores of rows in the memory of a GPU.
#pragma once

#include "device.h"
#include "score.h"

namespace ff {

// credited[i] = what score.h says of scores[i] after intervals[i] and with credits[i].
void credit_scores(const Stream& stream, const Decay& decay,
                   const uint16_t* scores,     // (n,)
                   const uint32_t* intervals,  // (n,)
                   const float* credits,       // (n,)
                   uint16_t* credited,         // (n,) out; may be `scores`
                   size_t n);

}  // namespace ff
