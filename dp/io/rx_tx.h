// A worker's hands on its queues: mbufs in → Burst → mbufs out.
//
//   receive(port) ─▶ Burst ─▶ Pipeline::process ─▶ finish(): sorted by verdict
//                                                    tx, answer ─▶ one transmit burst per port, bounded retries, rest
//                                                    tx_full punt ───────▶ the port's twin TAP, or the punt TAP drop
//                                                    ───────▶ freed
//
// Owner: one worker, its thread alone. Counters are that worker's private block, so that a packet which the port or the
// kernel does not take can still be moved from forwarded_packets (punted_packets) to a drop before anyone sees the block.
#pragma once

#include <rte_mbuf.h>

#include <array>
#include <cstdint>
#include <span>

#include "dp/abi/counters.h"
#include "dp/abi/snapshot.h"
#include "dp/io/ports.h"
#include "dp/lb/pipeline.h"

namespace lb::io {

// Port indexes of one snapshot and lb-dp's own. Own ports that the snapshot does not name follow after those it names, so
// both directions are total.
struct PortMap {
  std::array<std::uint8_t, 2 * abi::kMaxPorts> own{};      // by snapshot index
  std::array<std::uint8_t, abi::kMaxPorts> in_snapshot{};  // by own index
};

class RxTx final : public ExtraPackets {
 public:
  // `counters`: the worker's private block; punts_per_second: over all ports.
  RxTx(const Ports& ports, std::uint32_t worker, std::span<std::uint64_t, abi::kCounterCount> counters,
       std::uint32_t punts_per_second);

  // Takes up to kBurst packets from a port. Returns how many came; `burst` holds those that can be processed (frames in
  // several buffers are dropped here as `segmented`). finish() or refuse() must follow.
  std::uint32_t receive(std::uint32_t port, Burst& burst);

  // in_port of every packet, and how out_port is read until the next call.
  void use(const PortMap& map, Burst& burst, std::uint32_t port);

  // Sends, punts and frees the packets of a processed burst that came from `port`.
  void finish(Burst& burst, std::uint32_t port, std::uint64_t now_tsc);

  // There is no snapshot: to the kernel where a TAP is the kernel's only access to the port, else dropped as no_snapshot.
  void refuse(Burst& burst, std::uint32_t port, std::uint64_t now_tsc);

  // Sends what the kernel has put into the twin TAPs. For one worker alone. Outside the packet accounting.
  void poll_twins();

  // Counts tx_packets and tx_bytes.
  bool send(std::uint8_t out_port, const std::uint8_t* frame, std::uint32_t length) override;

 private:
  struct PortState {
    PortQueue queue;
    const Port* port = nullptr;
    const Tap* punt = nullptr;  // nullptr: cannot punt, or the kernel has the frame already
    std::uint32_t tx_count = 0;
    std::array<rte_mbuf*, kBurst> tx{};
    std::array<std::uint8_t, kBurst> tx_index{};  // into the burst
  };

  void punt(Burst& burst, std::uint32_t index, PortState& port, std::uint64_t now_tsc);
  void transmit(Burst& burst, PortState& port);
  void account_tx_full(const Burst& burst, std::uint32_t index);
  std::uint64_t& counter(abi::Counter which) { return counters_[static_cast<std::size_t>(which)]; }

  std::span<std::uint64_t, abi::kCounterCount> counters_;
  std::array<rte_mbuf*, kBurst> mbufs_{};
  std::array<PortState, abi::kMaxPorts> ports_{};
  std::uint32_t port_count_ = 0;
  PortMap map_;
  // Token bucket of punts, in TSC cycles.
  std::uint64_t punt_cost_tsc_ = 0;
  std::uint64_t punt_depth_tsc_ = 0;
  std::uint64_t punt_spent_until_ = 0;
};

}  // namespace lb::io
