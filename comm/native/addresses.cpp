#include "step.h"

namespace ff {
namespace {

// s = (held tile, requester). Own segments are found among the requester's links.
template <class AddressOf, class OwnAddressOf>
void for_segments(const Plan& plan, uint64_t* addresses, bool replies, OwnAddressOf&& own_address,
                  AddressOf&& address) {
  const size_t peers = static_cast<size_t>(plan.size), own = plan.out_first[plan.rank];
  for (size_t s = 0; s < plan.segments(); ++s) {
    const size_t tile = s / peers, i = plan.in_link(tile, s % peers);
    const Link& link = plan.in[i];
    const uint8_t* const at = link.peer == plan.rank ? own_address(own + tile) : address(i);
    addresses[s] = replies && !link.replies ? 0 : reinterpret_cast<uint64_t>(at);
  }
}

}  // namespace

void reply_addresses(const Plan& plan, const Route& route, const uint8_t* sent, const uint8_t* got,
                     uint64_t* addresses) {
  for_segments(
      plan, addresses, true, [&](size_t out) { return got + route.reply_got.offset[out]; },
      [&](size_t in) { return sent + route.reply_sent.offset[in]; });
}

void gradient_addresses(const Plan& plan, const Route& route, const uint8_t* sent,
                        const uint8_t* got, uint64_t* addresses) {
  for_segments(
      plan, addresses, false, [&](size_t out) { return sent + route.gradient_sent.offset[out]; },
      [&](size_t in) { return got + route.gradient_got.offset[in]; });
}

}  // namespace ff
