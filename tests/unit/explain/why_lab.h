// What tests of `why` work with: frames, one worker, and a small world.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cp/explain/why.h"
#include "cp/model/model.h"
#include "dp/lb/pipeline.h"
#include "dp/net/checksum.h"
#include "dp/net/parse.h"
#include "tests/unit/lb/world.h"

namespace lb::cp::explain {

constexpr std::uint64_t kSecondNs = 1'000'000'000;
constexpr NodeSecret kSecret{1, 2, 3, 4, 5};
constexpr abi::Name kWeb{0, 1};    // "n" in the world's names
constexpr abi::Name kBlue{1, 1};   // "a"
constexpr abi::Name kGreen{2, 1};  // "m"

inline abi::IpAddress address(const char* text) {
  return parse_address(text).value();
}

struct Frame {
  std::array<std::uint8_t, 512> bytes{};
  static constexpr std::uint16_t kHeadroom = 128;
  std::uint32_t length = 0;
  std::uint8_t* data() { return bytes.data() + kHeadroom; }
};

inline Frame make_frame(const net::FlowKey& key, std::uint8_t tcp_flags) {
  Frame frame;
  std::uint8_t* p = frame.data();
  const bool v6 = key.is_v6 != 0;
  const bool udp = key.protocol == static_cast<std::uint8_t>(abi::Protocol::udp);
  const std::uint32_t l4_bytes = udp ? 8 : 20;
  const std::uint32_t ip_bytes = (v6 ? 40 : 20) + l4_bytes;
  p[0] = 2;
  p[6] = 2;
  p[12] = v6 ? 0x86 : 0x08;
  p[13] = v6 ? 0xdd : 0x00;
  std::uint8_t* ip = p + 14;
  if (v6) {
    ip[0] = 0x60;
    ip[5] = static_cast<std::uint8_t>(l4_bytes);
    ip[6] = key.protocol;
    ip[7] = 64;
    std::copy(key.source.bytes.begin(), key.source.bytes.end(), ip + 8);
    std::copy(key.destination.bytes.begin(), key.destination.bytes.end(), ip + 24);
  } else {
    ip[0] = 0x45;
    ip[3] = static_cast<std::uint8_t>(ip_bytes);
    ip[8] = 64;
    ip[9] = key.protocol;
    std::copy(key.source.bytes.begin() + 12, key.source.bytes.end(), ip + 12);
    std::copy(key.destination.bytes.begin() + 12, key.destination.bytes.end(), ip + 16);
    const std::uint16_t checksum = net::checksum_finish(net::checksum_sum(ip, 20));
    std::memcpy(ip + 10, &checksum, 2);
  }
  std::uint8_t* l4 = ip + (v6 ? 40 : 20);
  l4[0] = static_cast<std::uint8_t>(key.source_port >> 8);
  l4[1] = static_cast<std::uint8_t>(key.source_port);
  l4[2] = static_cast<std::uint8_t>(key.destination_port >> 8);
  l4[3] = static_cast<std::uint8_t>(key.destination_port);
  if (udp) {
    l4[5] = 8;
  } else {
    l4[12] = 0x50;
    l4[13] = tcp_flags;
  }
  frame.length = 14 + ip_bytes;
  return frame;
}

// One worker: table, counters, pipeline.
class Worker {
 public:
  explicit Worker(std::vector<abi::FlowLine> lines = std::vector<abi::FlowLine>(256)) : lines_(std::move(lines)) {}
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Sends one packet through; the burst has its fate, `frame` what went out.
  Burst send(const Snapshot& snapshot, Frame& frame, std::uint64_t now_ns) {
    Burst burst;
    burst.count = 1;
    burst.data[0] = frame.data();
    burst.length[0] = frame.length;
    burst.headroom[0] = Frame::kHeadroom;
    burst.tailroom[0] = static_cast<std::uint16_t>(frame.bytes.size() - Frame::kHeadroom - frame.length);
    pipeline_.process(snapshot, burst, now_ns);
    return burst;
  }

  [[nodiscard]] const std::vector<abi::FlowLine>& lines() const { return lines_; }

 private:
  class Sink : public ExtraPackets {
    bool send(std::uint8_t, const std::uint8_t*, std::uint32_t) override { return true; }
  };
  std::vector<abi::FlowLine> lines_;
  std::vector<std::uint32_t> target_flows_ = std::vector<std::uint32_t>(64);
  FlowTable table_{lines_, target_flows_, kSecret};
  abi::WorkerStats stats_;
  std::array<abi::ListenerStats, 64> listener_stats_{};
  Sink sink_;
  Pipeline pipeline_{{.flows = &table_, .stats = &stats_, .listener_stats = listener_stats_.data(), .extra = &sink_}};
};

inline net::FlowKey flow(abi::Protocol protocol, const abi::IpAddress& source, std::uint16_t source_port,
                         const abi::IpAddress& destination, std::uint16_t destination_port) {
  net::FlowKey key;
  key.source = source;
  key.destination = destination;
  key.source_port = source_port;
  key.destination_port = destination_port;
  key.protocol = static_cast<std::uint8_t>(protocol);
  key.is_v6 = source.is_v4() ? 0 : 1;
  return key;
}

// VIP 192.0.2.10, listener on TCP 80, group blue with three targets in 7 slots.
class WhyTest : public testing::Test {
 protected:
  WhyTest() {
    world_.vips = {{.address = address("192.0.2.10"), .name = kWeb}};
    blue_ = world_.add_group(abi::ForwardingMode::ipip, 7);
    world_.groups[blue_].name = kBlue;
    for (std::uint8_t i = 1; i <= 3; ++i) world_.add_target(blue_, abi::IpAddress::v4(10, 77, 2, i));
    world_.add_listener(0, abi::Protocol::tcp, 80, 80, {{blue_, 1}});
    world_.listeners[0].name = kWeb;
  }

  Answer ask(std::vector<const Worker*> workers = {}) {
    snapshot_ = test::make_snapshot(world_);
    Context context;
    context.snapshot = snapshot_;
    context.secret = kSecret;
    for (const Worker* worker : workers) context.worker_tables.emplace_back(worker->lines());
    return why(context, key_, kNow);
  }

  // Makes the worker hold the flow, last seen `ago` seconds before kNow. Returns its target's id.
  std::uint32_t establish(Worker& worker, std::uint64_t ago) {
    const auto snapshot = test::make_snapshot(world_);
    Frame syn = make_frame(key_, net::kTcpSyn);
    worker.send(*snapshot, syn, kNow - ago * kSecondNs);
    Frame ack = make_frame(key_, net::kTcpAck);
    return worker.send(*snapshot, ack, kNow - ago * kSecondNs).target[0];
  }

  static bool mentions(const Answer& answer, const std::string& text) {
    return answer.explanation.find(text) != std::string::npos;
  }

  static std::string text_of(const Answer& answer) {
    std::string text = answer.explanation;
    for (const std::string& step : answer.steps) text += "\n" + step;
    return text;
  }

  static constexpr std::uint64_t kNow = 5000 * kSecondNs;
  test::World world_;
  std::uint32_t blue_ = 0;
  net::FlowKey key_ = flow(abi::Protocol::tcp, address("198.51.100.7"), 40000, address("192.0.2.10"), 80);
  std::shared_ptr<const Snapshot> snapshot_;
};

}  // namespace lb::cp::explain
