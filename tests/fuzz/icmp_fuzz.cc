// Any bytes as an ICMP message to a VIP or SNAT address: reading the quote, telling the error anew to the other side, and
// the answer to an echo request stay inside their buffers, and what comes out is ICMP again that quotes what it should.
//
// Input: one byte of choices, then the frame.
#include "dp/net/family.h"
#include "dp/net/icmp.h"
#include "dp/net/parse.h"
#include "dp/net/translate.h"
#include "tests/fuzz/bytes.h"

namespace {

using namespace lb;
using namespace lb::net;
using fuzz::Block;
using fuzz::require;

constexpr abi::IpAddress kOne4 = abi::IpAddress::v4(10, 77, 2, 200);
constexpr abi::IpAddress kTwo4 = abi::IpAddress::v4(192, 0, 2, 10);
constexpr abi::IpAddress kOne6{{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
constexpr abi::IpAddress kTwo6{{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}};

void try_quote(std::span<const std::uint8_t> frame, const ParsedPacket& packet, const FlowKey& quoted,
               std::uint8_t choices) {
  const Block block(frame, 0);
  const bool is_v6 = packet.key.is_v6 != 0;
  const abi::IpAddress& address = is_v6 ? kOne6 : kOne4;
  const bool from_source = (choices & 1) != 0;
  translate_quote(block.data, packet,
                  {.quoted_side = from_source ? Side::source : Side::destination,
                   .outer_side = (choices & 2) != 0 ? Side::source : Side::destination,
                   .quoted_address = address,
                   .quoted_port = 4711,
                   .outer_address = is_v6 ? kTwo6 : kTwo4});
  const auto again = quoted_flow(block.data, packet);
  require(again.has_value() && again->protocol == quoted.protocol, "the quote is still there");
  require((from_source ? again->source : again->destination) == address, "with the address it was given");
  require((from_source ? again->source_port : again->destination_port) == 4711, "and the port");
}

void try_relay(std::span<const std::uint8_t> frame, const ParsedPacket& packet, std::uint8_t choices) {
  const bool to_v6 = (choices & 4) != 0;
  const abi::IpAddress& one = to_v6 ? kOne6 : kOne4;
  const abi::IpAddress& two = to_v6 ? kTwo6 : kTwo4;
  const Block from(frame, 0);
  const std::unique_ptr<std::uint8_t[]> room(new std::uint8_t[kEthernetBytes + kMaxRelayedErrorBytes]);
  const IpPacket out =
      relay_error(from.data, packet,
                  {.source = one, .destination = two, .quoted = {two, one, 40000, 80}, .sequence_shift = choices * 3U},
                  room.get() + kEthernetBytes);
  if (out.length == 0) return;
  require(out.length <= kMaxRelayedErrorBytes && out.is_v6 == to_v6, "an error of the other side's family, not too long");
  std::memset(room.get(), 0, kEthernetBytes);
  std::memmove(room.get() + kEthernetBytes, out.ip, out.length);
  store_be16(room.get() + kEtherTypeAt, to_v6 ? kEtherTypeIpv6 : kEtherTypeIpv4);
  ParsedPacket told;
  require(parse(room.get(), kEthernetBytes + out.length, true, told).result == ParseResult::other_ip, "it is whole IP");
  require(told.key.source == one && told.key.destination == two, "between the addresses given");
  const IcmpMessage message = read_icmp(room.get(), told);
  require(message.kind == IcmpKind::error, "an intact error");
  require(message.flow.source == one && message.flow.destination_port == 40000, "about the packet given");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0 || size > 4096) return 0;
  const std::uint8_t choices = data[0];
  const std::span<const std::uint8_t> frame(data + 1, size - 1);
  const Block block(frame, 0);
  ParsedPacket packet;
  if (parse(block.data, static_cast<std::uint32_t>(frame.size()), false, packet).result != ParseResult::other_ip) return 0;
  if (packet.protocol != (packet.key.is_v6 != 0 ? 58 : 1)) return 0;
  const IcmpMessage message = read_icmp(block.data, packet);
  const auto quoted = quoted_flow(block.data, packet);
  if (quoted) try_quote(frame, packet, *quoted, choices);
  if (quoted && message.kind == IcmpKind::error) try_relay(frame, packet, choices);
  if (message.kind != IcmpKind::echo_request) return 0;
  const Block reply(frame, 0);
  const std::uint32_t length = build_echo_reply(reply.data, packet, reply.data);
  if (length == 0) return 0;
  ParsedPacket answer;
  require(length <= frame.size() && parse(reply.data, length, false, answer).result == ParseResult::other_ip,
          "an answer is whole IP");
  require(answer.key.source == packet.key.destination && answer.key.destination == packet.key.source, "and goes back");
  require(read_icmp(reply.data, answer).kind == IcmpKind::other, "intact, and no request");
  return 0;
}
