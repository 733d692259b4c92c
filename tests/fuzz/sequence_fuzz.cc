// Packets of every kind, one after the other, to two workers, while targets come, go and drain and time passes. After each,
// every packet has ended once and what was sent is whole; the sanitizers see every buffer's end.
//
// Input: steps, each a byte that says which, and what it takes:
//   0-2 a client's packet (flow, flags, payload), perhaps with bytes of it changed     3 a fragment of one
//   4 the last frame sent comes back as the target's or appliance's answer             5 an ICMP error about it
//   6 any bytes                                        7 time passes, the sweep goes on, another snapshot comes into force
#include "dp/net/checksum.h"
#include "dp/net/headers.h"
#include "dp/net/parse.h"
#include "tests/fuzz/fleet.h"
#include "tests/unit/lb/packets.h"

namespace {

using namespace lb;
using fuzz::Fleet;
using fuzz::Frame;
using fuzz::Input;

constexpr int kMostSteps = 64;
constexpr std::uint8_t kUdp = 17;
constexpr std::uint8_t kTcp = 6;

net::FlowKey key_from(Input& input) {
  const std::uint8_t choices = input.byte();
  net::FlowKey key;
  key.is_v6 = choices & 1;
  key.protocol = (choices & 2) != 0 ? kUdp : kTcp;
  key.source = key.is_v6 != 0 ? abi::IpAddress{{0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}}
                              : abi::IpAddress::v4(198, 51, 100, 7);
  key.destination = key.is_v6 != 0          ? abi::IpAddress{{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10}}
                    : (choices & 0x80) != 0 ? abi::IpAddress::v4(203, 0, 113, 5)
                                            : abi::IpAddress::v4(192, 0, 2, 10);
  key.source_port = static_cast<std::uint16_t>(40000 + (choices >> 5 & 3));
  key.destination_port = static_cast<std::uint16_t>(80 + (choices >> 2 & 7));
  return key;
}

Frame client_packet(Input& input) {
  const net::FlowKey key = key_from(input);
  constexpr std::uint8_t kFlags[] = {net::kTcpSyn,
                                     net::kTcpAck,
                                     net::kTcpAck | net::kTcpPsh,
                                     net::kTcpFin | net::kTcpAck,
                                     net::kTcpRst,
                                     net::kTcpSyn | net::kTcpAck,
                                     0,
                                     0xff};
  const std::uint8_t shape = input.byte();
  Frame frame(2200);
  const std::uint32_t payload = (shape & 0x80) != 0 ? 1440U + (shape >> 3 & 15) * 2 : shape >> 3 & 15;
  frame.resize(test::write_frame(
      frame.data(), key, {.tcp_flags = kFlags[shape & 7], .payload_bytes = payload, .dont_fragment = (shape & 0x40) == 0}));
  for (std::uint8_t changes = input.byte() & 3; changes > 0; --changes) frame[input.byte() % frame.size()] = input.byte();
  return frame;
}

// Of the client's packet: byte offset and length in units of eight, IPv4.
Frame fragment(Input& input) {
  net::FlowKey key = key_from(input);
  key.is_v6 = 0;
  key.source = abi::IpAddress::v4(198, 51, 100, 7);
  key.destination = abi::IpAddress::v4(192, 0, 2, 10);
  Frame frame(600);
  frame.resize(test::write_frame(frame.data(), key, {.payload_bytes = 64, .dont_fragment = false}));
  const std::uint8_t where = input.byte();
  const std::uint32_t offset = where & 3;
  std::uint8_t* ip = frame.data() + net::kEthernetBytes;
  store_be16(ip + 4, input.byte() & 3);  // id
  store_be16(ip + net::kIpv4FragmentAt, static_cast<std::uint16_t>(offset | ((where & 4) != 0 ? 0x2000 : 0)));
  const std::size_t length = net::kIpv4Bytes + std::min<std::size_t>(8U * (1 + (where >> 3 & 7)),
                                                                     frame.size() - net::kEthernetBytes - net::kIpv4Bytes);
  store_be16(ip + net::kIpv4TotalLengthAt, static_cast<std::uint16_t>(length));
  store(ip + net::kIpv4ChecksumAt, std::uint16_t{0});
  store(ip + net::kIpv4ChecksumAt, net::checksum_finish(net::ipv4_header_sum(ip)));
  frame.resize(net::kEthernetBytes + length);
  return frame;
}

void swap_bytes(std::uint8_t* one, std::uint8_t* two, std::size_t count) {
  std::swap_ranges(one, one + count, two);
}

// Turned round at the outermost header: a target's answer, or what an appliance gives back.
Frame returned(const Frame& sent, Input& input) {
  Frame frame = sent;
  const std::uint8_t choices = input.byte();
  net::ParsedPacket packet;
  if (net::parse(frame.data(), static_cast<std::uint32_t>(frame.size()), false, packet).result == net::ParseResult::drop)
    return frame;
  if (packet.ip_length == 0) return frame;
  swap_bytes(frame.data(), frame.data() + 6, 6);
  std::uint8_t* ip = frame.data() + packet.l2_length;
  std::uint8_t* l4 = frame.data() + packet.l4_offset;
  const bool is_v6 = packet.key.is_v6 != 0;
  const std::uint32_t at = is_v6 ? net::kIpv6SourceAt : net::kIpv4SourceAt;
  swap_bytes(ip + at, ip + at + (is_v6 ? 16 : 4), is_v6 ? 16 : 4);
  const bool tunnel = packet.protocol == kUdp && packet.key.destination_port == 6081;
  if (!tunnel && (packet.protocol == kUdp || packet.protocol == kTcp)) swap_bytes(l4, l4 + 2, 2);
  if (packet.protocol == kTcp)
    l4[net::kTcpFlagsAt] = (choices & 1) != 0 ? net::kTcpSyn | net::kTcpAck : net::kTcpAck | (choices >> 1 & 7);
  for (std::uint8_t changes = choices >> 6; changes > 0; --changes) frame[input.byte() % frame.size()] ^= input.byte();
  return frame;
}

// About the last packet sent, from somewhere on its way, to who had sent it.
Frame error_about(const Frame& sent, Input& input) {
  net::ParsedPacket packet;
  const bool whole =
      net::parse(sent.data(), static_cast<std::uint32_t>(sent.size()), false, packet).result != net::ParseResult::drop;
  if (!whole || packet.ip_length == 0 || packet.key.is_v6 != 0) return sent;
  const std::uint32_t quoted = std::min<std::uint32_t>(packet.ip_length, net::kIpv4Bytes + 8 + (input.byte() & 31));
  Frame frame(net::kEthernetBytes + net::kIpv4Bytes + net::kIcmpBytes + quoted);
  std::memcpy(frame.data() + 6, sent.data(), 6);
  std::memcpy(frame.data(), sent.data() + 6, 6);
  store_be16(frame.data() + net::kEtherTypeAt, net::kEtherTypeIpv4);
  std::uint8_t* ip = frame.data() + net::kEthernetBytes;
  ip[0] = 0x45;
  store_be16(ip + net::kIpv4TotalLengthAt, static_cast<std::uint16_t>(net::kIpv4Bytes + net::kIcmpBytes + quoted));
  ip[net::kIpv4TtlAt] = 60;
  ip[net::kIpv4ProtocolAt] = 1;
  std::memcpy(ip + net::kIpv4SourceAt, packet.key.destination.bytes.data() + 12, 4);
  std::memcpy(ip + net::kIpv4DestinationAt, packet.key.source.bytes.data() + 12, 4);
  store(ip + net::kIpv4ChecksumAt, net::checksum_finish(net::ipv4_header_sum(ip)));
  std::uint8_t* icmp = ip + net::kIpv4Bytes;
  icmp[0] = (input.byte() & 1) != 0 ? 3 : 11;
  icmp[1] = input.byte() & 15;
  store_be16(icmp + 6, 1400);
  std::memcpy(icmp + net::kIcmpBytes, sent.data() + packet.l2_length, quoted);
  store(icmp + 2, net::checksum_finish(net::checksum_sum(icmp, net::kIcmpBytes + quoted)));
  return frame;
}

void let_time_pass(Fleet& fleet, Input& input) {
  const std::uint8_t choices = input.byte();
  constexpr std::uint64_t kMs = 1'000'000;
  constexpr std::uint64_t kSteps[] = {kMs, 600 * kMs, 31'000 * kMs, 400'000 * kMs};
  fleet.pass(kSteps[choices & 3]);
  if ((choices & 4) != 0) fleet.use(choices >> 4);
  fleet.age();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  Fleet fleet;
  for (int step = 0; step < kMostSteps && !input.empty(); ++step) {
    const std::uint8_t what = input.byte();
    const std::uint32_t worker = what >> 3 & 1;
    switch (what & 7) {
      case 3: fleet.packet(worker, fragment(input)); break;
      case 4: fleet.packet(worker, returned(fleet.last_sent(), input)); break;
      case 5: fleet.packet(worker, error_about(fleet.last_sent(), input)); break;
      case 6: fleet.packet(worker, input.take(input.byte())); break;
      case 7: let_time_pass(fleet, input); break;
      default: fleet.packet(worker, client_packet(input));
    }
    fleet.check();
  }
  return 0;
}
