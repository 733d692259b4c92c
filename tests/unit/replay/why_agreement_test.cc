// `why` against lb-replay's own worker: what it says about a packet, asked before the packet comes, is what becomes of it.
// 50,000 packets; LB_WHY_PACKETS asks for another number (the million of the release is one run of it).
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "cp/config/load.h"
#include "cp/explain/packets.h"
#include "replay/capture.h"
#include "replay/worker.h"
#include "replay/world.h"
#include "tests/unit/net/frames.h"

namespace lb::replay {
namespace {

using cp::explain::Answer;
using cp::explain::Context;
using cp::explain::PacketAnswer;
using cp::explain::PacketExplainer;
using net::test::Bytes;
using net::test::FrameSpec;

constexpr std::uint64_t kMillisecondNs = 1'000'000;
constexpr std::uint64_t kOriginNs = 86'400'000'000'000;
constexpr NodeSecret kSecret{9, 8, 7};
constexpr std::uint64_t kFlows = 1U << 18U;

constexpr const char* kConfig = R"(
version: 1
seed: 3
vips:
  - {name: a, address: 192.0.2.10}
  - {name: b, address: "2001:db8::10"}
  - {name: n, address: 192.0.2.20}
  - {name: p, address: 198.18.7.0/24, icmp_echo: false}
security_groups:
  - {name: some, default: allow, rules: [{action: deny, source: 10.1.0.3}, {action: allow, source: 10.1.0.0/24}]}
listeners:
  - {name: a-80, vip: a, protocol: TCP, port: 80, security_group: some, target_groups: [{name: tunnel, weight: 3}, {name: plain, weight: 1}]}
  - {name: a-udp, vip: a, protocol: UDP, port: 1-2000, target_groups: [{name: datagrams}]}
  - {name: b-any, vip: b, protocol: TCP_UDP, port: any, target_groups: [{name: six}]}
  - {name: n-80, vip: n, protocol: TCP, port: 80, target_groups: [{name: translated}]}
  - {name: p-80, vip: p, protocol: TCP, port: 80, target_groups: [{name: plain}]}
target_groups:
  - {name: tunnel, protocol: TCP, port: 80, forwarding_mode: ipip, table_size: 251, targets: [{address: 10.9.0.1}, {address: 10.9.0.2}, {address: 10.9.0.3, weight: 3}]}
  - {name: plain, protocol: TCP, port: 80, forwarding_mode: l2dsr, table_size: 251, targets: [{address: 10.9.1.1}, {address: 10.9.1.2}]}
  - {name: datagrams, protocol: UDP, port: 53, forwarding_mode: gue, table_size: 251, attributes: {stickiness.enabled: true, stickiness.type: source_ip}, targets: [{address: 10.9.2.1}, {address: 10.9.2.2}]}
  - {name: six, protocol: TCP_UDP, port: 80, forwarding_mode: gre, table_size: 251, targets: [{address: "2001:db8:9::1"}, {address: 10.9.3.1}]}
  - {name: translated, protocol: TCP, port: 8080, forwarding_mode: nat, table_size: 251, attributes: {deregistration_delay.timeout_seconds: 20, deregistration_delay.then: reset}, targets: [{address: 10.9.4.1}, {address: 10.9.4.2}]}
)";

// Packets as a hostile day brings them: flows that go on, replies of nat targets, ICMP, fragments, and broken ones of each.
class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  std::uint32_t below(std::uint32_t limit) { return static_cast<std::uint32_t>(random_() % limit); }
  bool one_in(std::uint32_t n) { return below(n) == 0; }

  struct Packet {
    Bytes bytes;
    bool clean = false;  // a whole TCP or UDP packet with nothing wrong
  };

  Packet next() {
    if (!train_.empty()) {
      Packet packet{std::move(train_.back())};
      train_.pop_back();
      return packet;
    }
    Packet packet;
    const FrameSpec spec = flow();
    switch (below(24)) {
      case 0: packet.bytes = echo(spec); break;
      case 1: packet.bytes = error_about(spec); break;
      case 2: return fragments(spec);
      case 3: packet.bytes = mangled(make_frame(spec)); break;
      case 4: packet.bytes = noise(); break;
      default: packet = {make_frame(spec), spec.ttl > 1};
    }
    return packet;
  }
  [[nodiscard]] bool in_train() const { return !train_.empty(); }

 private:
  FrameSpec flow() {
    FrameSpec spec;
    spec.is_v6 = one_in(4);
    spec.protocol = one_in(3) ? 17 : 6;
    spec.source_port = static_cast<std::uint16_t>(20000 + below(60));
    static constexpr std::uint8_t kFlags[] = {0x02, 0x02, 0x10, 0x10, 0x10, 0x18, 0x11, 0x04, 0x14, 0x12};
    spec.tcp_flags = kFlags[below(10)];
    if (one_in(50)) spec.tcp_flags = static_cast<std::uint8_t>(below(256));
    spec.ttl = one_in(60) ? static_cast<std::uint8_t>(below(3)) : 64;
    spec.dont_fragment = !one_in(3);
    spec.payload = Bytes(one_in(20) ? below(1500) : below(20));
    static constexpr std::uint16_t kPorts[] = {80, 80, 80, 53, 1999, 443, 8080};
    spec.destination_port = kPorts[below(7)];
    if (spec.is_v6) {
      spec.source = *cp::parse_address("2001:db8:1::" + std::to_string(1 + below(5)));
      spec.destination = *cp::parse_address(one_in(10) ? "2001:db8::99" : "2001:db8::10");
      return spec;
    }
    spec.source = abi::IpAddress::v4(10, 1, 0, static_cast<std::uint8_t>(1 + below(5)));
    if (one_in(200)) spec.source = abi::IpAddress::v4(127, 0, 0, 1);
    const abi::IpAddress to[] = {abi::IpAddress::v4(192, 0, 2, 10), abi::IpAddress::v4(192, 0, 2, 20),
                                 abi::IpAddress::v4(198, 18, 7, static_cast<std::uint8_t>(below(4))),
                                 abi::IpAddress::v4(203, 0, 113, 1)};
    spec.destination = to[below(4)];
    if (one_in(6)) {  // a nat target's side
      spec.destination = spec.source;
      spec.destination_port = spec.source_port;
      spec.source = abi::IpAddress::v4(10, 9, 4, static_cast<std::uint8_t>(1 + below(2)));
      spec.source_port = 8080;
    }
    return spec;
  }

  static Bytes icmp(const FrameSpec& about, std::uint8_t type, std::uint8_t code, const abi::IpAddress& from,
                    const abi::IpAddress& to, const Bytes& rest) {
    FrameSpec spec;
    spec.is_v6 = about.is_v6;
    spec.source = from;
    spec.destination = to;
    spec.protocol = about.is_v6 ? 58 : 1;
    spec.payload = {type, code, 0, 0, 0, 0, 5, 0xdc};
    net::test::put(spec.payload, rest);
    Bytes all = about.is_v6 ? net::test::naive_pseudo_header(from, to, true, 58, spec.payload.size()) : Bytes();
    net::test::put(all, spec.payload);
    if (all.size() % 2 != 0) all.push_back(0);
    const auto sum = static_cast<std::uint16_t>(~net::test::naive_sum(all));
    spec.payload[2] = static_cast<std::uint8_t>(sum >> 8);
    spec.payload[3] = static_cast<std::uint8_t>(sum);
    return make_frame(spec);
  }

  static Bytes echo(const FrameSpec& spec) {
    return icmp(spec, spec.is_v6 ? 128 : 8, 0, spec.source, spec.destination, Bytes(16));
  }
  // "Too big", from a router on the client's side: quotes what the VIP is taken to have sent.
  static Bytes error_about(const FrameSpec& spec) {
    FrameSpec quoted = spec;
    std::swap(quoted.source, quoted.destination);
    std::swap(quoted.source_port, quoted.destination_port);
    const Bytes frame = make_frame(quoted);
    const Bytes quote(frame.begin() + 14, frame.begin() + std::min<std::ptrdiff_t>(std::ssize(frame), 14 + 60));
    return icmp(spec, spec.is_v6 ? 2 : 3, spec.is_v6 ? 0 : 4, spec.source, spec.destination, quote);
  }

  // A datagram in three parts, sometimes the first one not first, sometimes not at all.
  Packet fragments(FrameSpec spec) {
    spec.is_v6 = false;
    spec.source = abi::IpAddress::v4(10, 1, 0, 1);
    spec.destination = abi::IpAddress::v4(192, 0, 2, 10);
    spec.protocol = 17;
    spec.destination_port = 53;
    spec.id = ++fragment_id_;
    spec.dont_fragment = false;
    spec.ttl = 64;
    spec.payload = Bytes(1200);
    const Bytes whole = make_frame(spec);
    std::vector<Bytes> parts;
    for (std::uint32_t offset = 0; offset < 1208; offset += 408) {
      Bytes part(whole.begin(), whole.begin() + 34);
      const std::uint32_t bytes = std::min(408U, 1208 - offset);
      part.insert(part.end(), whole.begin() + 34 + offset, whole.begin() + 34 + offset + bytes);
      put_be16(part, 16, 20 + bytes);
      put_be16(part, 20, (offset + bytes < 1208 ? 0x2000U : 0U) | offset / 8);
      put_be16(part, 24, 0);
      put_be16(part, 24, static_cast<std::uint16_t>(~net::test::naive_sum(Bytes(part.begin() + 14, part.begin() + 34))));
      parts.push_back(std::move(part));
    }
    if (one_in(3)) std::swap(parts[0], parts[1]);
    if (one_in(8)) parts.erase(parts.begin());
    train_.assign(std::make_move_iterator(parts.rbegin()), std::make_move_iterator(parts.rend()));
    return next();
  }

  static void put_be16(Bytes& bytes, std::size_t at, std::uint32_t value) {
    bytes[at] = static_cast<std::uint8_t>(value >> 8);
    bytes[at + 1] = static_cast<std::uint8_t>(value);
  }

  Bytes mangled(Bytes frame) {
    for (std::uint32_t n = 1 + below(4); n > 0; --n)
      frame[below(static_cast<std::uint32_t>(frame.size()))] = static_cast<std::uint8_t>(below(256));
    if (one_in(3)) frame.resize(1 + below(static_cast<std::uint32_t>(frame.size())));
    return frame;
  }
  Bytes noise() {
    Bytes frame(14 + below(100));
    for (auto& byte : frame) byte = static_cast<std::uint8_t>(below(256));
    return frame;
  }

  std::mt19937_64 random_;
  std::vector<Bytes> train_;  // last first
  std::uint16_t fragment_id_ = 0;
};

std::string word(Verdict verdict) {
  return verdict == Verdict::tx ? "tx" : verdict == Verdict::punt ? "punt" : verdict == Verdict::held ? "held" : "drop";
}

std::string text_of(const std::string& verdict, const std::string& reason, const std::string& flow, std::uint32_t listener,
                    std::uint32_t target, std::uint32_t out_length) {
  return verdict + " " + reason + " flow " + flow + " listener " + std::to_string(static_cast<int>(listener)) + " target " +
         std::to_string(static_cast<int>(target)) + " bytes " + std::to_string(out_length);
}

std::string text_of(const Outcome& outcome) {
  static constexpr const char* kFlow[] = {"none", "hit", "new"};
  return text_of(word(outcome.verdict), std::string(abi::to_string(outcome.reason)),
                 kFlow[static_cast<std::size_t>(outcome.flow)], outcome.listener, outcome.target, outcome.out_length);
}

std::string text_of(const Answer& answer, std::uint32_t out_length) {
  return text_of(answer.verdict, answer.reason, answer.flow, answer.listener.value_or(abi::kNoIndex),
                 answer.target.value_or(abi::kNoIndex), out_length);
}

std::string hex(const Bytes& bytes) {
  static constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : bytes) (text += kDigits[byte >> 4]) += kDigits[byte & 15];
  return text;
}

TEST(WhyAgreement, EveryPacketGoesWhereWhySaid) {
  const char* asked = std::getenv("LB_WHY_PACKETS");
  const std::uint64_t packets = asked != nullptr ? std::strtoull(asked, nullptr, 10) : 50'000;
  auto loaded = cp::load(kConfig, "agreement.yaml");
  ASSERT_TRUE(loaded.config) << loaded.violations.at(0).field << ": " << loaded.violations.at(0).text;
  World world(1500, {}, [](std::uint32_t) { return std::optional<std::uint64_t>(1); });
  ASSERT_TRUE(world.apply(*loaded.config, 0));
  ASSERT_TRUE(world.settle(0));

  const std::string pcap = testing::TempDir() + "/why-agreement.pcap";
  auto writer = CaptureWriter::open(pcap, true);
  ASSERT_TRUE(writer);
  Output output(*writer);
  std::vector<std::span<const abi::FlowLine>> tables(1);
  std::vector<FragmentNotes> notes(1);
  std::vector<const std::uint32_t*> target_flows(1);
  Worker worker(
      {.flows = kFlows, .target_capacity = 64, .listener_capacity = 64, .secret = kSecret, .target_flows = target_flows},
      output, tables, notes);
  std::vector<FlowTable*> workers{worker.flows()};
  worker.meet(workers);

  Generator generator(20'260'101);
  std::unique_ptr<PacketExplainer> explainer;
  std::map<std::string, std::uint64_t> seen;
  std::uint64_t now_ns = 0;
  std::uint64_t left_in_batch = 0;
  for (std::uint64_t n = 0; n < packets; ++n) {
    if (left_in_batch == 0 && !generator.in_train()) {
      left_in_batch = 1 + generator.below(100);
      if (generator.one_in(20)) now_ns += generator.below(400) * 1000 * kMillisecondNs;
      if (generator.one_in(5)) {
        const TargetAddress target{abi::IpAddress::v4(10, 9, static_cast<std::uint8_t>(generator.below(2) * 4), 1),
                                   generator.one_in(2) ? std::uint16_t{80} : std::uint16_t{8080}};
        if (generator.one_in(2)) {
          world.set_healthy(target, generator.one_in(2), now_ns);
        } else {
          static_cast<void>(world.drain(target, generator.one_in(2), now_ns));  // of some there is none
        }
      }
      ASSERT_TRUE(world.settle(now_ns));
      worker.age(*world.snapshot(), kOriginNs + now_ns);
      Context context{.snapshot = world.snapshot(), .worker_tables = tables, .secret = kSecret};
      explainer = std::make_unique<PacketExplainer>(context, kOriginNs + now_ns, 4096);
    }
    left_in_batch -= left_in_batch != 0 ? 1 : 0;
    const Generator::Packet packet = generator.next();
    const PacketAnswer said = explainer->ask(packet.bytes, now_ns);
    std::optional<Answer> of_flow;
    if (packet.clean && said.key.protocol != 0) {
      const Context context{.snapshot = world.snapshot(), .worker_tables = tables, .secret = kSecret};
      const std::uint8_t flags = said.key.protocol == 6 ? packet.bytes[said.key.is_v6 != 0 ? 67 : 47] : 0;
      of_flow = why(context, said.key, kOriginNs + now_ns, {.tcp_flags = flags, .candidates = false});
    }
    output.start_packet(now_ns);
    const Outcome outcome = worker.process(*world.snapshot(), packet.bytes, kOriginNs + now_ns);
    ASSERT_EQ(text_of(said.answer, said.out_length), text_of(outcome)) << "packet " << n << ": " << hex(packet.bytes);
    ASSERT_FALSE(said.answer.explanation.empty()) << "packet " << n;
    // The same of the 5-tuple alone, as far as it can know: flags and size of a packet are not in it.
    static const std::set<std::string> kOfThePacket = {"bad_tcp_flags", "too_big", "answered_icmp", "ttl_expired"};
    if (of_flow && !kOfThePacket.contains(said.answer.reason)) {
      ASSERT_EQ(of_flow->verdict + " " + of_flow->reason, said.answer.verdict + " " + said.answer.reason)
          << n << " " << hex(packet.bytes);
      ASSERT_EQ(of_flow->target, said.answer.target) << n;
    }
    ++seen[said.answer.verdict + " " + said.answer.reason + " " + said.answer.flow];
    now_ns += 2 * kMillisecondNs;
    worker.age(*world.snapshot(), kOriginNs + now_ns);
    static_cast<void>(worker.take_held_ends());
  }
  // What the packets never met would not have been compared.
  for (const char* fate :
       {"tx  hit", "tx  new", "punt  none", "held  none", "drop no_listener none", "drop answered_echo none",
        "drop answered_rst hit", "drop security_group none", "drop truncated none"})
    EXPECT_GT(seen[fate], 0U) << fate;
  for (const auto& [fate, count] : seen) RecordProperty(fate, std::to_string(count));
  std::remove(pcap.c_str());
}

}  // namespace
}  // namespace lb::replay
