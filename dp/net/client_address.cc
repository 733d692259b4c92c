#include "dp/net/client_address.h"

#include <cstring>

#include "dp/net/checksum_change.h"
#include "dp/net/headers.h"

namespace lb::net {
namespace {

constexpr std::uint8_t kSignature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
constexpr std::uint8_t kVersion2Proxy = 0x21;
constexpr std::uint8_t kTcpOverIpv4 = 0x11;
constexpr std::uint8_t kTcpOverIpv6 = 0x21;
constexpr std::uint8_t kAddressOption = 254;
constexpr std::uint8_t kEndOfOptions = 0;
constexpr std::uint8_t kNoOperation = 1;
constexpr std::uint8_t kSack = 5;
constexpr std::uint32_t kMaxOptionBytes = 40;

std::uint32_t header_bytes(const std::uint8_t* tcp) {
  return (tcp[kTcpDataOffsetAt] >> 4) * 4U;
}

std::uint32_t l4_bytes(const ParsedPacket& packet) {
  return packet.l2_length + std::uint32_t{packet.ip_length} - packet.l4_offset;
}

// The packet has become longer or shorter by `bytes`: its IP header and `tcp`, what a TCP checksum covers of that.
void change_length(std::uint8_t* frame, ParsedPacket& packet, std::int32_t bytes, ChecksumChange& tcp) {
  std::uint8_t* ip = frame + packet.l2_length;
  const bool is_v6 = packet.key.is_v6 != 0;
  std::uint8_t before[2];
  std::uint8_t after[2];
  store_be16(before, static_cast<std::uint16_t>(l4_bytes(packet)));
  store_be16(after, static_cast<std::uint16_t>(static_cast<std::int32_t>(l4_bytes(packet)) + bytes));
  tcp.add(before, after, 2);
  packet.ip_length = static_cast<std::uint16_t>(packet.ip_length + bytes);
  std::uint8_t length[2];
  store_be16(length, static_cast<std::uint16_t>(is_v6 ? packet.ip_length - kIpv6Bytes : packet.ip_length));
  const ChecksumChange change = replace_bytes(ip + (is_v6 ? kIpv6PayloadLengthAt : kIpv4TotalLengthAt), length, 2);
  if (!is_v6) change.apply(ip + kIpv4ChecksumAt);
}

// Moves what stands before `at` (an offset of the frame) `bytes` towards the start. Returns where the frame begins now.
std::uint8_t* open_gap(std::uint8_t* frame, const ParsedPacket& packet, std::uint32_t at, std::uint32_t bytes) {
  std::memmove(frame + packet.l2_length - bytes, frame + packet.l2_length, at - packet.l2_length);
  return frame - bytes;
}

// Data offset and flags are one word of the checksum.
ChecksumChange set_offset_and_flags(std::uint8_t* tcp, std::uint32_t bytes, std::uint8_t flags) {
  const std::uint8_t word[2] = {static_cast<std::uint8_t>(bytes / 4 << 4 | (tcp[kTcpDataOffsetAt] & 0x0f)), flags};
  return replace_bytes(tcp + kTcpDataOffsetAt, word, 2);
}

std::uint32_t write_proxy_header(std::uint8_t* out, const ClientAddresses& addresses, bool is_v6) {
  std::memcpy(out, kSignature, sizeof kSignature);
  out[12] = kVersion2Proxy;
  out[13] = is_v6 ? kTcpOverIpv6 : kTcpOverIpv4;
  const std::uint32_t address_bytes = is_v6 ? 16 : 4;
  store_be16(out + 14, static_cast<std::uint16_t>(2 * address_bytes + 4));
  std::uint8_t* at = out + 16;
  std::memcpy(at, addresses.client.bytes.data() + 16 - address_bytes, address_bytes);
  std::memcpy(at + address_bytes, addresses.vip.bytes.data() + 16 - address_bytes, address_bytes);
  store_be16(at + 2 * address_bytes, addresses.client_port);
  store_be16(at + 2 * address_bytes + 2, addresses.vip_port);
  return 16 + 2 * address_bytes + 4;
}

// The edges of an option's SACK blocks. Whether one of them now begins at `first`.
bool shift_blocks(std::uint8_t* option, std::uint32_t option_bytes, std::uint32_t bytes, std::uint32_t first) {
  bool at_first = false;
  for (std::uint32_t edge = 2; edge + 4 <= option_bytes; edge += 4) {
    store_be32(option + edge, load_be32(option + edge) - bytes);
    at_first = at_first || (edge % 8 == 2 && load_be32(option + edge) == first);
  }
  return at_first;
}

void shift_sack(std::uint8_t* options, std::uint32_t length, std::uint32_t bytes, std::uint32_t first, bool arrived) {
  for (std::uint32_t at = 0; at < length && options[at] != kEndOfOptions;) {
    if (options[at] == kNoOperation) {
      ++at;
      continue;
    }
    if (at + 1 >= length || options[at + 1] < 2 || at + options[at + 1] > length) return;
    const std::uint32_t option_bytes = options[at + 1];
    const bool at_first = options[at] == kSack && shift_blocks(options + at, option_bytes, bytes, first);
    if (at_first && !arrived) std::memset(options + at, kNoOperation, option_bytes);
    at += option_bytes;
  }
}

}  // namespace

std::uint32_t payload_bytes(const std::uint8_t* frame, const ParsedPacket& packet) {
  return l4_bytes(packet) - header_bytes(frame + packet.l4_offset);
}

std::uint32_t sequence_of(const std::uint8_t* frame, const ParsedPacket& packet) {
  return load_be32(frame + packet.l4_offset + kTcpSequenceAt);
}

std::uint32_t acknowledgment_of(const std::uint8_t* frame, const ParsedPacket& packet) {
  return load_be32(frame + packet.l4_offset + kTcpAckAt);
}

std::uint8_t* insert_proxy_header(std::uint8_t* frame, ParsedPacket& packet, const ClientAddresses& addresses) {
  const bool is_v6 = !addresses.client.is_v4();
  const std::uint32_t bytes = proxy_header_bytes(is_v6);
  const std::uint32_t at = packet.l4_offset + header_bytes(frame + packet.l4_offset);
  std::uint8_t* start = open_gap(frame, packet, at, bytes);
  write_proxy_header(start + at, addresses, is_v6);
  std::uint8_t* tcp = start + packet.l4_offset;
  ChecksumChange change;
  change.add_new(start + at, bytes);
  change.add(set_offset_and_flags(tcp, header_bytes(tcp), tcp[kTcpFlagsAt] | kTcpPsh));
  change_length(start, packet, static_cast<std::int32_t>(bytes), change);
  change.apply(tcp + kTcpChecksumAt);
  packet.tcp_flags |= kTcpPsh;
  return start;
}

std::uint8_t* insert_address_option(std::uint8_t* frame, ParsedPacket& packet, const ClientAddresses& addresses) {
  const bool is_v6 = !addresses.client.is_v4();
  const std::uint32_t bytes = address_option_bytes(is_v6);
  const std::uint32_t header = header_bytes(frame + packet.l4_offset);
  if (header + bytes > kTcpBytes + kMaxOptionBytes) return nullptr;
  const std::uint32_t at = packet.l4_offset + kTcpBytes;
  std::uint8_t* start = open_gap(frame, packet, at, bytes);
  std::uint8_t* option = start + at;
  option[0] = kAddressOption;
  option[1] = static_cast<std::uint8_t>(bytes);
  store_be16(option + 2, addresses.client_port);
  std::memcpy(option + 4, addresses.client.bytes.data() + 20 - bytes, bytes - 4);
  std::uint8_t* tcp = start + packet.l4_offset;
  ChecksumChange change;
  change.add_new(option, bytes);
  change.add(set_offset_and_flags(tcp, header + bytes, tcp[kTcpFlagsAt]));
  change_length(start, packet, static_cast<std::int32_t>(bytes), change);
  change.apply(tcp + kTcpChecksumAt);
  return start;
}

void trim_payload(std::uint8_t* frame, ParsedPacket& packet, std::uint32_t keep) {
  std::uint8_t* tcp = frame + packet.l4_offset;
  const std::uint32_t bytes = payload_bytes(frame, packet);
  if (bytes <= keep) return;
  const std::uint8_t* payload = tcp + header_bytes(tcp);
  ChecksumChange change;
  change.add_sums(checksum_sum(payload, bytes), checksum_sum(payload, keep));
  change.add(set_offset_and_flags(tcp, header_bytes(tcp), tcp[kTcpFlagsAt] & static_cast<std::uint8_t>(~kTcpFin)));
  change_length(frame, packet, -static_cast<std::int32_t>(bytes - keep), change);
  change.apply(tcp + kTcpChecksumAt);
  packet.tcp_flags &= static_cast<std::uint8_t>(~kTcpFin);
}

void add_to_sequence(std::uint8_t* frame, const ParsedPacket& packet, std::uint32_t bytes) {
  std::uint8_t* tcp = frame + packet.l4_offset;
  std::uint8_t number[4];
  store_be32(number, load_be32(tcp + kTcpSequenceAt) + bytes);
  replace_bytes(tcp + kTcpSequenceAt, number, 4).apply(tcp + kTcpChecksumAt);
}

void take_from_acknowledgment(std::uint8_t* frame, const ParsedPacket& packet, std::uint32_t bytes, std::uint32_t first,
                              bool arrived) {
  std::uint8_t* tcp = frame + packet.l4_offset;
  if ((packet.tcp_flags & kTcpAck) == 0) return;
  const std::uint32_t acknowledgment = load_be32(tcp + kTcpAckAt);
  const bool within = !arrived && acknowledgment - first < bytes;
  std::uint8_t number[4];
  store_be32(number, within ? first : acknowledgment - bytes);
  ChecksumChange change = replace_bytes(tcp + kTcpAckAt, number, 4);
  const std::uint32_t length = header_bytes(tcp) - kTcpBytes;
  std::uint8_t before[kMaxOptionBytes];
  std::memcpy(before, tcp + kTcpBytes, length);
  shift_sack(tcp + kTcpBytes, length, bytes, first, arrived);
  change.add(before, tcp + kTcpBytes, length);
  change.apply(tcp + kTcpChecksumAt);
}

}  // namespace lb::net
