#include "dp/io/rx_tx.h"

#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_prefetch.h>

#include <algorithm>
#include <cstring>

namespace lb::io {
namespace {

constexpr std::uint32_t kTransmitRetries = 4;
constexpr std::uint32_t kTwinBurst = 16;
constexpr std::uint64_t kPuntBurstPerSecond = 10;  // a tenth of a second's punts may come at once

}  // namespace

RxTx::RxTx(const Ports& ports, std::uint32_t worker, std::span<std::uint64_t, abi::kCounterCount> counters,
           std::uint32_t punts_per_second)
    : counters_(counters), port_count_(static_cast<std::uint32_t>(ports.list().size())) {
  for (std::uint32_t i = 0; i < port_count_; ++i) {
    const Port& port = ports.list()[i];
    ports_[i].queue = port.queues[worker];
    ports_[i].port = &port;
    ports_[i].punt = port.twin ? &*port.twin : port.driver == Driver::af_xdp ? ports.punt_tap() : nullptr;
  }
  punt_cost_tsc_ = rte_get_tsc_hz() / punts_per_second;
  punt_depth_tsc_ = std::max(rte_get_tsc_hz() / kPuntBurstPerSecond, punt_cost_tsc_);
}

std::uint32_t RxTx::receive(std::uint32_t port, Burst& burst) {
  const PortQueue queue = ports_[port].queue;
  const std::uint16_t received = rte_eth_rx_burst(queue.device, queue.queue, mbufs_.data(), kBurst);
  burst.count = 0;
  bool checked = queue.checks_ip;
  for (std::uint32_t i = 0; i < received; ++i) {
    rte_mbuf* const mbuf = mbufs_[i];
    if (mbuf->nb_segs != 1) [[unlikely]] {
      counter(abi::Counter::rx_packets) += 1;
      counter(abi::Counter::rx_bytes) += mbuf->pkt_len;
      counter(abi::Counter::drop_segmented) += 1;
      rte_pktmbuf_free(mbuf);
      continue;
    }
    const std::uint32_t n = burst.count++;
    mbufs_[n] = mbuf;
    burst.data[n] = rte_pktmbuf_mtod(mbuf, std::uint8_t*);
    rte_prefetch0(burst.data[n]);
    burst.length[n] = mbuf->data_len;
    burst.headroom[n] = rte_pktmbuf_headroom(mbuf);
    burst.tailroom[n] = rte_pktmbuf_tailroom(mbuf);
    checked = checked && (mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD;
  }
  burst.ip_checksum_checked = checked;
  return received;
}

void RxTx::use(const PortMap& map, Burst& burst, std::uint32_t port) {
  map_ = map;
  burst.own_port = static_cast<std::uint8_t>(port);
  burst.port_of_own = map_.in_snapshot.data();
  std::fill_n(burst.in_port.begin(), burst.count, map.in_snapshot[port]);
}

void RxTx::finish(Burst& burst, std::uint32_t port, std::uint64_t now_tsc) {
  for (std::uint32_t i = 0; i < burst.count; ++i) {
    rte_mbuf* const mbuf = mbufs_[i];
    switch (burst.verdict[i]) {
      case Verdict::tx:
      case Verdict::answer: {
        mbuf->data_off = static_cast<std::uint16_t>(burst.data[i] - static_cast<std::uint8_t*>(mbuf->buf_addr));
        mbuf->data_len = static_cast<std::uint16_t>(burst.length[i]);
        mbuf->pkt_len = burst.length[i];
        mbuf->ol_flags &= RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL;
        PortState& out = burst.verdict[i] == Verdict::answer ? ports_[port] : ports_[map_.own[burst.out_port[i]]];
        out.tx[out.tx_count] = mbuf;
        out.tx_index[out.tx_count++] = static_cast<std::uint8_t>(i);
        break;
      }
      case Verdict::punt:
        punt(burst, i, ports_[port], now_tsc);
        rte_pktmbuf_free(mbuf);
        break;
      case Verdict::drop:
      case Verdict::held: rte_pktmbuf_free(mbuf); break;
    }
  }
  for (std::uint32_t p = 0; p < port_count_; ++p) {
    if (ports_[p].tx_count != 0) transmit(burst, ports_[p]);
  }
}

void RxTx::transmit(Burst& burst, PortState& port) {
  const auto count = static_cast<std::uint16_t>(port.tx_count);
  port.tx_count = 0;
  std::uint64_t bytes = 0;
  for (std::uint16_t i = 0; i < count; ++i) bytes += burst.length[port.tx_index[i]];
  std::uint16_t sent = 0;
  for (std::uint32_t attempt = 0; attempt <= kTransmitRetries && sent < count; ++attempt) {
    sent = static_cast<std::uint16_t>(sent + rte_eth_tx_burst(port.queue.device, port.queue.queue, &port.tx[sent],
                                                              static_cast<std::uint16_t>(count - sent)));
  }
  for (std::uint16_t i = sent; i < count; ++i) {
    bytes -= burst.length[port.tx_index[i]];
    account_tx_full(burst, port.tx_index[i]);
    rte_pktmbuf_free(port.tx[i]);
  }
  counter(abi::Counter::tx_packets) += sent;
  counter(abi::Counter::tx_bytes) += bytes;
}

// An input packet is counted once: what did not leave is no longer forwarded (or answered), but dropped.
void RxTx::account_tx_full(const Burst& burst, std::uint32_t index) {
  if (burst.verdict[index] == Verdict::tx) {
    counter(abi::Counter::forwarded_packets) -= 1;
  } else {
    const abi::DropReason reason = burst.reason[index];
    counter(abi::drop_counter(reason)) -= 1;
    counter(reason == abi::DropReason::answered_rst ? abi::Counter::originated_rst : abi::Counter::originated_icmp) -= 1;
  }
  counter(abi::Counter::drop_tx_full) += 1;
}

void RxTx::punt(Burst& burst, std::uint32_t index, PortState& port, std::uint64_t now_tsc) {
  if (port.port->kernel_sees_all) return;
  punt_spent_until_ = std::max(punt_spent_until_, now_tsc - std::min(now_tsc, punt_depth_tsc_));
  if (port.punt != nullptr && punt_spent_until_ + punt_cost_tsc_ <= now_tsc) {
    punt_spent_until_ += punt_cost_tsc_;
    std::uint8_t* const frame = burst.data[index];
    // The punt TAP has one MAC address for all ports; the kernel takes only what is addressed to it.
    if (burst.length[index] >= 6 && std::memcmp(frame, port.port->info.mac.data(), 6) == 0) {
      std::memcpy(frame, port.punt->mac().data(), 6);
    }
    if (port.punt->write({frame, burst.length[index]})) return;
  }
  counter(abi::Counter::punted_packets) -= 1;
  counter(abi::Counter::drop_punt_failed) += 1;
}

void RxTx::refuse(Burst& burst, std::uint32_t port, std::uint64_t now_tsc) {
  for (std::uint32_t i = 0; i < burst.count; ++i) {
    counter(abi::Counter::rx_packets) += 1;
    counter(abi::Counter::rx_bytes) += burst.length[i];
    if (ports_[port].port->twin) {
      counter(abi::Counter::punted_packets) += 1;
      punt(burst, i, ports_[port], now_tsc);
    } else {
      counter(abi::Counter::drop_no_snapshot) += 1;
    }
    rte_pktmbuf_free(mbufs_[i]);
  }
}

void RxTx::poll_twins() {
  for (std::uint32_t p = 0; p < port_count_; ++p) {
    const Port& port = *ports_[p].port;
    if (!port.twin) continue;
    for (std::uint32_t i = 0; i < kTwinBurst; ++i) {
      rte_mbuf* mbuf = rte_pktmbuf_alloc(port.pool);
      if (mbuf == nullptr) return;
      const std::size_t length = port.twin->read({rte_pktmbuf_mtod(mbuf, std::uint8_t*), rte_pktmbuf_tailroom(mbuf)});
      mbuf->data_len = static_cast<std::uint16_t>(length);
      mbuf->pkt_len = static_cast<std::uint32_t>(length);
      const bool sent = length != 0 && rte_eth_tx_burst(ports_[p].queue.device, ports_[p].queue.queue, &mbuf, 1) == 1;
      if (!sent) rte_pktmbuf_free(mbuf);
      if (length == 0) break;
    }
  }
}

bool RxTx::send(std::uint8_t out_port, const std::uint8_t* frame, std::uint32_t length) {
  PortState& port = ports_[map_.own[out_port]];
  rte_mbuf* mbuf = rte_pktmbuf_alloc(port.port->pool);
  if (mbuf == nullptr) return false;
  if (length > rte_pktmbuf_tailroom(mbuf)) {
    rte_pktmbuf_free(mbuf);
    return false;
  }
  std::memcpy(rte_pktmbuf_mtod(mbuf, void*), frame, length);
  mbuf->data_len = static_cast<std::uint16_t>(length);
  mbuf->pkt_len = length;
  if (rte_eth_tx_burst(port.queue.device, port.queue.queue, &mbuf, 1) != 1) {
    rte_pktmbuf_free(mbuf);
    return false;
  }
  counter(abi::Counter::tx_packets) += 1;
  counter(abi::Counter::tx_bytes) += length;
  return true;
}

}  // namespace lb::io
