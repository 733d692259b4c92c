// What would become of the packets of a capture if they came now? Runs the workers' whole packet path on them, on a flow
// table of its own into which each flow's live entry is copied when it is first met. Nothing of the workers is touched.
//
//   frame ─▶ the flow's live entry, if there is one ─▶ own table ─▶ Pipeline::process() ─▶ verdict
//                                                          └──────▶ why(): listener, slot, candidates, reasons
//
// Packets see what earlier ones of the same capture left behind, as in lb-replay: a SYN makes an entry that the ACK finds.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "cp/explain/why.h"

namespace lb::cp::explain {

struct PacketAnswer {
  Answer answer;
  net::FlowKey key;              // of the packet, addresses and ports where it has them
  std::uint32_t out_length = 0;  // bytes of the frame sent on or back; 0: none
};

class PacketExplainer {
 public:
  // now_ns: CLOCK_MONOTONIC, when the first packet comes. Packets that flow tables have no entry of: at most `flows` are
  // remembered.
  PacketExplainer(Context context, std::uint64_t now_ns, std::uint64_t flows = 1U << 18U);
  ~PacketExplainer();
  PacketExplainer(const PacketExplainer&) = delete;
  PacketExplainer& operator=(const PacketExplainer&) = delete;

  // The next packet, `at_ns` by the capture's clock; one that goes back counts as no time passing.
  PacketAnswer ask(std::span<const std::uint8_t> frame, std::uint64_t at_ns);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lb::cp::explain
