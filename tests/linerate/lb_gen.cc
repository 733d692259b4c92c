// lb-gen: a traffic generator for one DPDK port, made for `./run linerate`. It sends UDP or TCP packets of N flows to a VIP,
// stamps each with the TSC, and takes back what comes home: forwarded as it was, or inside an outer IPv4 header.
//
//   lb-gen EAL-OPTIONS -- --dst 198.18.0.1 --flows 65536 [--protocol ack] [--size 64] [--queues N] [--dst-mac M]
//
// Each line on standard input is one run, "RATE SECONDS": packets a second (0: all the port takes) and how long to send.
// For each it prints one JSON line: packets sent, received and lost, rates over the time of sending, and percentiles of the
// round trip in µs (the generator's own queueing included). One thread sends and receives in turns; with several queues
// each flow keeps to one, as RSS would have it. A port that does not take a packet holds the generator back; the packet is
// sent again, so that `lost` counts only what the device under test lost.
#include <arpa/inet.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <map>
#include <numeric>
#include <string>
#include <vector>

namespace {

constexpr std::uint16_t kBurstPackets = 32;
constexpr std::uint32_t kFcsBytes = 4;
constexpr std::uint32_t kEthernetBytes = 14;
constexpr std::uint32_t kIpBytes = 20;
constexpr std::uint32_t kUdpBytes = 8;
constexpr std::uint32_t kTcpBytes = 20;
constexpr std::uint32_t kMagic = 0x6c62676e;
constexpr std::uint32_t kFirstPort = 1024;

// ack: segments of established connections. syn: every packet another connection, as a flood has it.
enum class Protocol : std::uint8_t { udp, ack, syn };

// Behind the headers of each packet.
struct [[gnu::packed]] Stamp {
  std::uint32_t magic;
  std::uint64_t tsc;
};

struct Options {
  std::string destination = "198.18.0.1";
  std::string destination_mac = "02:00:00:00:00:02";
  Protocol protocol = Protocol::udp;
  std::uint32_t flows = 65536;
  std::uint32_t size_bytes = 0;  // with FCS; 0: 64, or as few as hold headers and stamp
  std::uint16_t destination_port = 80;
  std::uint16_t queues = 1;
  [[nodiscard]] std::uint32_t header_bytes() const {
    return kEthernetBytes + kIpBytes + (protocol == Protocol::udp ? kUdpBytes : kTcpBytes);
  }
  [[nodiscard]] std::uint32_t least_bytes() const {
    return std::max<std::uint32_t>(64, header_bytes() + sizeof(Stamp) + kFcsBytes);
  }
};

// Round trips in TSC cycles: 32 buckets to each power of two, so within 3 % of the value.
class Histogram {
 public:
  void add(std::uint64_t cycles) {
    ++counts_[index(cycles)];
    ++total_;
    largest_ = std::max(largest_, cycles);
  }
  [[nodiscard]] std::uint64_t total() const { return total_; }
  [[nodiscard]] std::uint64_t largest() const { return largest_; }
  // The smallest value that at least `share` of all do not exceed; 0 when empty.
  [[nodiscard]] std::uint64_t percentile(double share) const {
    const auto wanted = static_cast<std::uint64_t>(share * static_cast<double>(total_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen > wanted || (seen == total_ && total_ > 0)) return upper_edge(i);
    }
    return 0;
  }

 private:
  static constexpr unsigned kSubBits = 5;
  static std::size_t index(std::uint64_t value) {
    const unsigned bits = std::max(static_cast<unsigned>(std::bit_width(value)), kSubBits + 1);
    const unsigned shift = bits - kSubBits - 1;
    return (std::size_t{shift} << kSubBits) + static_cast<std::size_t>(value >> shift);
  }
  static std::uint64_t upper_edge(std::size_t i) {
    if (i < (std::size_t{2} << kSubBits)) return i;
    const std::size_t shift = (i >> kSubBits) - 1;
    return (std::uint64_t{i - (shift << kSubBits)} + 1) << shift;
  }
  std::array<std::uint64_t, std::size_t{60} << kSubBits> counts_{};
  std::uint64_t total_ = 0;
  std::uint64_t largest_ = 0;
};

std::uint16_t ip_checksum(const std::uint8_t* header) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < kIpBytes; i += 2) sum += static_cast<std::uint32_t>(header[i] << 8 | header[i + 1]);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~(sum + (sum >> 16)));
}

void put16(std::uint8_t* at, std::uint32_t value) {
  at[0] = static_cast<std::uint8_t>(value >> 8);
  at[1] = static_cast<std::uint8_t>(value);
}

class Generator {
 public:
  Generator(const Options& options, std::uint16_t port, rte_mempool* pool)
      : options_(options), header_bytes_(options.header_bytes()), port_(port), pool_(pool) {
    make_headers();
    lanes_.resize(options_.queues);
    // A step coprime to the number of flows of a queue visits all of them, neighbours far apart.
    flows_per_lane_ = options_.flows / options_.queues;
    step_ = std::max(1U, static_cast<std::uint32_t>(flows_per_lane_ * 0.618));
    while (std::gcd(step_, flows_per_lane_) != 1) ++step_;
  }

  // One run; prints its line.
  void run(double rate_pps, double seconds) {
    rate_pps_ = rate_pps;
    sent_ = received_ = foreign_ = 0;
    round_trips_ = Histogram();
    report(phase(seconds));
  }

 private:
  void make_headers() {
    headers_.resize(std::size_t{options_.flows} * header_bytes_);
    rte_ether_addr own{};
    rte_eth_macaddr_get(port_, &own);
    rte_ether_addr peer{};
    rte_ether_unformat_addr(options_.destination_mac.c_str(), &peer);
    std::uint32_t destination = 0;
    inet_pton(AF_INET, options_.destination.c_str(), &destination);
    for (std::uint32_t flow = 0; flow < options_.flows; ++flow) {
      std::uint8_t* at = headers_.data() + std::size_t{flow} * header_bytes_;
      std::memcpy(at, peer.addr_bytes, 6);
      std::memcpy(at + 6, own.addr_bytes, 6);
      put16(at + 12, 0x0800);
      std::uint8_t* ip = at + kEthernetBytes;
      ip[0] = 0x45;
      put16(ip + 2, options_.size_bytes - kFcsBytes - kEthernetBytes);
      put16(ip + 6, 0x4000);  // DF
      ip[8] = 64;
      const bool udp = options_.protocol == Protocol::udp;
      ip[9] = udp ? IPPROTO_UDP : IPPROTO_TCP;
      const std::uint32_t source = htonl((10U << 24) + 1 + (flow & 0xffff));
      std::memcpy(ip + 12, &source, 4);
      std::memcpy(ip + 16, &destination, 4);
      put16(ip + 10, ip_checksum(ip));
      put16(ip + kIpBytes, kFirstPort + (flow >> 16));
      put16(ip + kIpBytes + 2, options_.destination_port);
      if (udp) {
        put16(ip + kIpBytes + 4, options_.size_bytes - kFcsBytes - kEthernetBytes - kIpBytes);  // checksum 0: none (RFC 768)
      } else {
        ip[kIpBytes + 12] = kTcpBytes / 4 << 4;
        ip[kIpBytes + 13] = options_.protocol == Protocol::syn ? 0x02 : 0x10;
      }
    }
  }

  // What one queue has built and not yet got rid of.
  struct Lane {
    std::array<rte_mbuf*, kBurstPackets> burst{};
    std::uint16_t waiting = 0;  // of burst, at its end
    std::uint32_t flow = 0;
  };

  // Sends for `seconds`, then waits for the last packets. Returns the time of sending.
  double phase(double seconds) {
    const auto hz = static_cast<double>(rte_get_tsc_hz());
    const std::uint64_t start = rte_rdtsc();
    const auto end = start + static_cast<std::uint64_t>(seconds * hz);
    std::uint64_t now = start;
    std::uint16_t queue = 0;
    while (now < end) {
      const double due = rate_pps_ > 0 ? static_cast<double>(now - start) / hz * rate_pps_ : 1e18;
      if (static_cast<double>(sent_) + kBurstPackets <= due) send(queue);
      receive(queue);
      queue = static_cast<std::uint16_t>(queue + 1 == options_.queues ? 0 : queue + 1);
      now = rte_rdtsc();
    }
    const std::uint64_t drained = now + rte_get_tsc_hz() / 5;
    while (rte_rdtsc() < drained) {
      for (std::uint16_t q = 0; q < options_.queues; ++q) receive(q);
    }
    for (Lane& lane : lanes_) {
      rte_pktmbuf_free_bulk(&lane.burst[static_cast<std::size_t>(kBurstPackets - lane.waiting)], lane.waiting);
      lane.waiting = 0;
    }
    return static_cast<double>(now - start) / hz;
  }

  // The same client's next source port.
  static void next_connection(std::uint8_t* tcp) {
    const std::uint32_t port = static_cast<std::uint32_t>(tcp[0] << 8 | tcp[1]) + 1;
    put16(tcp, port > 0xffff ? kFirstPort : port);
  }

  bool build(Lane& lane, std::uint16_t queue) {
    if (rte_pktmbuf_alloc_bulk(pool_, lane.burst.data(), kBurstPackets) != 0) return false;
    lane.waiting = kBurstPackets;
    const std::uint32_t frame_bytes = options_.size_bytes - kFcsBytes;
    for (rte_mbuf* packet : lane.burst) {
      const std::size_t flow = std::size_t{lane.flow} * options_.queues + queue;
      std::uint8_t* const header = headers_.data() + flow * header_bytes_;
      if (options_.protocol == Protocol::syn) next_connection(header + kEthernetBytes + kIpBytes);
      std::memcpy(rte_pktmbuf_mtod(packet, std::uint8_t*), header, header_bytes_);
      packet->data_len = static_cast<std::uint16_t>(frame_bytes);
      packet->pkt_len = frame_bytes;
      lane.flow += step_;
      if (lane.flow >= flows_per_lane_) lane.flow -= flows_per_lane_;
    }
    return true;
  }

  void send(std::uint16_t queue) {
    Lane& lane = lanes_[queue];
    if (lane.waiting == 0 && !build(lane, queue)) return;
    const Stamp stamp{kMagic, rte_rdtsc()};
    const std::size_t first = static_cast<std::size_t>(kBurstPackets - lane.waiting);
    for (std::size_t i = first; i < kBurstPackets; ++i) {
      std::memcpy(rte_pktmbuf_mtod_offset(lane.burst[i], std::uint8_t*, header_bytes_), &stamp, sizeof stamp);
    }
    const std::uint16_t taken = rte_eth_tx_burst(port_, queue, &lane.burst[first], lane.waiting);
    lane.waiting = static_cast<std::uint16_t>(lane.waiting - taken);
    sent_ += taken;
  }

  void receive(std::uint16_t queue) {
    std::array<rte_mbuf*, kBurstPackets> packets{};
    const std::uint16_t count = rte_eth_rx_burst(port_, queue, packets.data(), kBurstPackets);
    if (count == 0) return;
    const std::uint64_t now = rte_rdtsc();
    for (std::uint16_t i = 0; i < count; ++i) {
      const auto* at = rte_pktmbuf_mtod(packets[i], const std::uint8_t*);
      const bool tunnelled = packets[i]->data_len > header_bytes_ && at[kEthernetBytes + 9] == IPPROTO_IPIP;
      const std::size_t payload = header_bytes_ + (tunnelled ? kIpBytes : 0);
      Stamp stamp{};
      if (packets[i]->data_len >= payload + sizeof stamp) std::memcpy(&stamp, at + payload, sizeof stamp);
      if (stamp.magic == kMagic) {
        ++received_;
        round_trips_.add(now - stamp.tsc);
      } else {
        ++foreign_;
      }
    }
    rte_pktmbuf_free_bulk(packets.data(), count);
  }

  void report(double seconds) {
    const double us = 1e6 / static_cast<double>(rte_get_tsc_hz());
    auto at = [&](double share) { return static_cast<double>(round_trips_.percentile(share)) * us; };
    const std::uint64_t lost = sent_ > received_ ? sent_ - received_ : 0;
    std::printf(
        "{\"seconds\":%.3f,\"flows\":%u,\"sent\":%lu,\"received\":%lu,\"lost\":%lu,\"foreign\":%lu,\"sent_mpps\":%.4f,"
        "\"received_mpps\":%.4f,\"p50_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f,\"max_us\":%.2f}\n",
        seconds, options_.flows, sent_, received_, lost, foreign_, static_cast<double>(sent_) / seconds / 1e6,
        static_cast<double>(received_) / seconds / 1e6, at(0.5), at(0.99), at(0.999),
        static_cast<double>(round_trips_.largest()) * us);
    std::fflush(stdout);
  }

  Options options_;
  const std::size_t header_bytes_;
  std::uint16_t port_;
  rte_mempool* pool_;
  std::vector<std::uint8_t> headers_;
  std::vector<Lane> lanes_;
  std::uint32_t flows_per_lane_ = 1;
  std::uint32_t step_ = 1;
  double rate_pps_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t received_ = 0;
  std::uint64_t foreign_ = 0;
  Histogram round_trips_;
};

int fail(const char* text) {
  std::fprintf(stderr, "lb-gen: %s: %s\n", text, rte_strerror(rte_errno));
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const int used = rte_eal_init(argc, argv);
  if (used < 0) return fail("EAL");
  Options options;
  CLI::App app{"Sends stamped packets to a VIP through one DPDK port and measures what comes back."};
  app.add_option("--dst", options.destination, "VIP, IPv4")->check(CLI::ValidIPV4);
  app.add_option("--dst-mac", options.destination_mac, "MAC of the device under test");
  app.add_option("--port", options.destination_port, "destination port");
  app.add_option("--flows", options.flows, "flows")->check(CLI::Range(1U, 50'000'000U));
  app.add_option("--size", options.size_bytes, "frame bytes with FCS")->check(CLI::Range(64U, 1518U));
  app.add_option("--protocol", options.protocol, "udp, ack: TCP of established connections, syn: each packet a new one")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, Protocol>{{"udp", Protocol::udp}, {"ack", Protocol::ack}, {"syn", Protocol::syn}}));
  app.add_option("--queues", options.queues, "queues, flows divided among them")->check(CLI::Range(1, 16));
  CLI11_PARSE(app, argc - used, argv + used);

  rte_mempool* pool = rte_pktmbuf_pool_create("lb-gen", 32767, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, rte_socket_id());
  if (pool == nullptr) return fail("packet buffers");
  if (options.flows < options.queues) options.flows = options.queues;
  options.size_bytes = std::max(options.size_bytes, options.least_bytes());
  const std::uint16_t port = 0;
  rte_eth_conf configuration{};
  if (rte_eth_dev_configure(port, options.queues, options.queues, &configuration) != 0) return fail("port 0");
  for (std::uint16_t queue = 0; queue < options.queues; ++queue) {
    if (rte_eth_rx_queue_setup(port, queue, 1024, 0, nullptr, pool) != 0 ||
        rte_eth_tx_queue_setup(port, queue, 1024, 0, nullptr) != 0) {
      return fail("queues of port 0");
    }
  }
  if (rte_eth_dev_start(port) != 0) return fail("start of port 0");
  rte_eth_link link{};
  for (int i = 0; i < 600 && link.link_status == 0; ++i) {  // memif, vhost: up when the peer is there
    rte_eth_link_get_nowait(port, &link);
    rte_delay_ms(50);
  }
  if (link.link_status == 0) return fail("link stays down");
  Generator generator(options, port, pool);
  double rate_pps = 0;
  double seconds = 0;
  while (std::cin >> rate_pps >> seconds) {
    if (rate_pps < 0 || seconds <= 0 || seconds > 3600) {
      std::fprintf(stderr, "lb-gen: a run is RATE SECONDS: rate 0 or more, seconds above 0, at most 3600\n");
      return 1;
    }
    generator.run(rate_pps, seconds);
  }
  rte_eth_dev_stop(port);
  rte_eth_dev_close(port);
  rte_eal_cleanup();
  return 0;
}
