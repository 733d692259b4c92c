// Any bytes as a frame: parse, tunnels and replies stay inside their buffers, and agree with themselves.
//
// Input: one byte of choices, then the frame.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "dp/net/encap.h"
#include "dp/net/parse.h"
#include "dp/net/reply.h"
#include "dp/net/rewrite.h"

namespace {

using namespace lb;
using namespace lb::net;

constexpr abi::MacAddress kSource{2, 0, 0, 0, 0, 1};
constexpr abi::MacAddress kDestination{2, 0, 0, 0, 0, 2};
constexpr abi::IpAddress kOuterV4 = abi::IpAddress::v4(10, 0, 0, 1);
constexpr abi::IpAddress kOuterV6{{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};

void require(bool condition) {
  if (!condition) std::abort();
}

// A heap block that ends where the frame does, with `headroom` bytes in front of it.
struct Block {
  Block(const std::uint8_t* frame, std::size_t length, std::size_t headroom)
      : bytes(new std::uint8_t[headroom + length]), data(bytes.get() + headroom) {
    if (length != 0) std::memcpy(data, frame, length);
  }
  std::unique_ptr<std::uint8_t[]> bytes;
  std::uint8_t* data;
};

// What lb sends must parse again, to the same flow unless it is an answer.
ParsedPacket reparse(const std::uint8_t* frame, std::uint32_t length, ParseResult result) {
  ParsedPacket packet;
  require(parse(frame, length, false, packet).result == result);
  require(packet.l2_length + packet.ip_length == length);
  return packet;
}

void try_replies(const std::uint8_t* frame, std::size_t length, const ParsedPacket& packet) {
  Block to_client(frame, length, 0);
  if (const std::uint32_t n = build_reset_to_client(to_client.data, packet, to_client.data)) {
    require(n <= length);
    const ParsedPacket reset = reparse(to_client.data, n, ParseResult::ok);
    require(reset.key.source == packet.key.destination && reset.key.destination_port == packet.key.source_port);
  }
  Block to_target(frame, length, 0);
  if (const std::uint32_t n = build_reset_to_target(to_target.data, packet, to_target.data)) {
    require(n <= length && n <= kMaxResetBytes);
    require(reparse(to_target.data, n, ParseResult::ok).key == packet.key);
  }
  Block too_big(frame, length, 0);
  if (const std::uint32_t n = build_packet_too_big(too_big.data, packet, 1280, too_big.data)) {
    require(n <= length);
    reparse(too_big.data, n, ParseResult::other_ip);
  }
}

void try_forwarding(const std::uint8_t* frame, std::size_t length, const ParsedPacket& packet, std::uint8_t choices) {
  const std::uint16_t vlan = (choices & 1) != 0 ? 100 : 0;
  const bool outer_is_v6 = (choices & 2) != 0;
  const LinkAddress link{kDestination, kSource, vlan};
  const std::uint32_t l2 = l2_bytes(vlan);

  Block rewritten(frame, length, l2 > packet.l2_length ? l2 - packet.l2_length : 0);
  const std::uint8_t* out = rewrite_l2(rewritten.data, packet, link);
  require(reparse(out, l2 + packet.ip_length, ParseResult::ok).key == packet.key);

  if (packet.ttl < 2 || packet.ip_length + encap_bytes(outer_is_v6) > 0xffff) return;
  const std::uint32_t needed = encap_bytes(outer_is_v6) + l2;
  Block block(frame, length, needed > packet.l2_length ? needed - packet.l2_length : 0);
  const abi::IpAddress& end = outer_is_v6 ? kOuterV6 : kOuterV4;
  std::uint32_t tunnelled = 0;
  out = encapsulate(block.data, packet, {end, end, choices * 0x9e3779b97f4a7c15ULL}, outer_is_v6, link, tunnelled);
  const ParsedPacket outer = reparse(out, tunnelled, ParseResult::other_ip);
  require(outer.protocol == (packet.key.is_v6 != 0 ? 41 : 4) && outer.vlan == vlan &&
          outer.traffic_class == packet.traffic_class);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
  if (size == 0 || size > 65536) return 0;
  const std::uint8_t choices = input[0];
  const std::size_t length = size - 1;
  const bool check_ip_checksum = (choices & 4) != 0;
  const Block frame(input + 1, length, 0);
  ParsedPacket packet;
  ParsedPacket inlined;
  const ParseStatus status = parse(frame.data, static_cast<std::uint32_t>(length), check_ip_checksum, packet);
  const ParseStatus same = parse_inline(frame.data, static_cast<std::uint32_t>(length), check_ip_checksum, inlined);
  require(status.result == same.result && status.reason == same.reason);
  if (status.result != ParseResult::ok) return 0;
  require(packet.key == inlined.key && packet.l4_offset == inlined.l4_offset && packet.ip_length == inlined.ip_length);
  try_replies(frame.data, length, packet);
  try_forwarding(frame.data, length, packet, choices);
  return 0;
}
