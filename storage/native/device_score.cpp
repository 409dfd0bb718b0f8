#include "device_score.h"

#include "scores_args.h"

namespace ff {

void credit_scores(const Stream& stream, const Decay& decay, const uint16_t* scores,
                   const uint32_t* intervals, const float* credits, uint16_t* credited, size_t n) {
  stream.launch("score_credited", (n + SCORES_THREADS - 1) / SCORES_THREADS, SCORES_THREADS,
                CreditedArgs{decay, scores, intervals, credits, credited, n});
}

}  // namespace ff
