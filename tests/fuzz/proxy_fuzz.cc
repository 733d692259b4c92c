// Any TCP packet of a fullnat client or target: the PROXY header and the address option are put in, payload is cut,
// acknowledgments and SACK blocks are taken back, inside the buffers; headers agree with the bytes, and payload is not
// touched.
//
// Input: one byte of choices, two of how much payload is kept, four of a sequence number, then the frame.
#include "dp/net/client_address.h"
#include "dp/net/family.h"
#include "dp/net/mss.h"
#include "dp/net/rewrite.h"
#include "tests/fuzz/bytes.h"

namespace {

using namespace lb;
using namespace lb::net;
using fuzz::Block;
using fuzz::Input;
using fuzz::require;

constexpr abi::IpAddress kClient4 = abi::IpAddress::v4(198, 51, 100, 7);
constexpr abi::IpAddress kVip4 = abi::IpAddress::v4(192, 0, 2, 10);
constexpr abi::IpAddress kClient6{{0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}};
constexpr abi::IpAddress kVip6{{0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9}};
constexpr abi::MacAddress kMac{2, 0, 0, 0, 0, 1};
constexpr LinkAddress kLink{kMac, kMac, 0};

std::span<const std::uint8_t> payload_of(const std::uint8_t* frame, const ParsedPacket& packet) {
  const std::uint32_t bytes = payload_bytes(frame, packet);
  return {frame + packet.l2_length + packet.ip_length - bytes, bytes};
}

// `frame`: the headers were moved towards the front, all but the Ethernet header, which is written anew.
void agrees(std::uint8_t* frame, const ParsedPacket& packet) {
  std::memset(frame, 0, packet.l2_length);
  std::uint8_t* start = write_l2(frame + packet.l2_length, packet.key.is_v6 != 0 ? kEtherTypeIpv6 : kEtherTypeIpv4, kLink);
  ParsedPacket again;
  require(
      parse(start, static_cast<std::uint32_t>(frame + packet.l2_length - start) + packet.ip_length, false, again).result ==
          ParseResult::ok,
      "the packet is whole");
  require(again.key == packet.key && again.ip_length == packet.ip_length, "and what its description says");
}

void insert(std::span<const std::uint8_t> frame, ParsedPacket packet, bool header, std::uint32_t keep) {
  const bool is_v6 = packet.key.is_v6 != 0;
  const ClientAddresses addresses{is_v6 ? kClient6 : kClient4, is_v6 ? kVip6 : kVip4, 40000, 443};
  const std::uint32_t room = header ? proxy_header_bytes(is_v6) : address_option_bytes(is_v6);
  if (packet.ip_length + room > 0xffff) return;
  const Block block(frame, room);
  const std::uint32_t before = payload_bytes(block.data, packet);
  trim_payload(block.data, packet, keep);
  require(payload_bytes(block.data, packet) == std::min(before, keep), "as much payload is left as was asked for");
  const Block kept(payload_of(block.data, packet), 0);
  const std::uint32_t length = payload_bytes(block.data, packet);
  std::uint8_t* out =
      header ? insert_proxy_header(block.data, packet, addresses) : insert_address_option(block.data, packet, addresses);
  if (out == nullptr) return;
  require(out >= block.bytes.get(), "the room in front is enough");
  const auto payload = payload_of(out, packet);
  require(payload.size() == length + (header ? room : 0), "the header is payload, the option is not");
  require(length == 0 || std::memcmp(payload.data() + payload.size() - length, kept.data, length) == 0,
          "payload stands as it was");
  agrees(out, packet);
}

void take_back(std::span<const std::uint8_t> frame, const ParsedPacket& packet, std::uint32_t first, std::uint8_t choices) {
  const Block block(frame, 0);
  const std::uint32_t bytes = proxy_header_bytes((choices & 1) != 0);
  const bool arrived = (choices & 2) != 0;
  const Block before(payload_of(block.data, packet), 0);
  const std::uint32_t length = payload_bytes(block.data, packet);
  take_from_acknowledgment(block.data, packet, bytes, first, arrived);
  const auto after = payload_of(block.data, packet);
  require(after.size() == length && (length == 0 || std::memcmp(after.data(), before.data, length) == 0),
          "payload stands as it was");
  add_to_sequence(block.data, packet, bytes);
  ParsedPacket again;
  require(parse(block.data, static_cast<std::uint32_t>(frame.size()), false, again).result == ParseResult::ok &&
              again.key == packet.key,
          "the packet is the same flow's");
  if ((packet.tcp_flags & kTcpSyn) != 0) clamp_mss(block.data, packet, static_cast<std::uint16_t>(first));
}

void change_family(std::span<const std::uint8_t> frame, const ParsedPacket& packet, bool to_v6) {
  const std::uint32_t room = room_for(packet, to_v6);
  if (length_with(packet, to_v6) > 0xffff) return;
  const Block block(frame, room + kEthernetBytes);
  const Tuple to{to_v6 ? kClient6 : kClient4, to_v6 ? kVip6 : kVip4, 1024, 8080};
  const IpPacket out = rewrite_tuple(block.data, packet, to, 7);
  require(out.is_v6 == to_v6 && out.length == length_with(packet, to_v6), "as long as it was to be");
  std::uint8_t* start = write_l2(out.ip, to_v6 ? kEtherTypeIpv6 : kEtherTypeIpv4, kLink);
  ParsedPacket again;
  const bool fresh_header = packet.key.is_v6 != 0 && !to_v6;  // else a wrong checksum stays wrong
  require(parse(start, kEthernetBytes + out.length, fresh_header, again).result == ParseResult::ok,
          "whole, in the other family");
  require(again.key.source == to.source && again.key.destination_port == to.destination_port, "with the tuple it was given");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, std::min<std::size_t>(size, 4096));
  const std::uint8_t choices = input.byte();
  const std::uint32_t keep = input.half();
  const auto first = static_cast<std::uint32_t>(input.half()) << 16 | input.half();
  const auto frame = input.take(4096);
  const Block block(frame, 0);
  ParsedPacket packet;
  if (parse(block.data, static_cast<std::uint32_t>(frame.size()), false, packet).result != ParseResult::ok) return 0;
  if (packet.ttl > 1) change_family(frame, packet, (choices & 4) != 0);
  if (packet.protocol != static_cast<std::uint8_t>(abi::Protocol::tcp)) return 0;
  insert(frame, packet, (choices & 8) != 0, keep);
  take_back(frame, packet, first, choices);
  return 0;
}
