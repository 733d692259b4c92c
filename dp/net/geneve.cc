#include "dp/net/geneve.h"

#include "dp/base/endian.h"
#include "dp/net/checksum.h"
#include "dp/net/headers.h"

namespace lb::net {
namespace {

constexpr std::uint32_t kOptionHeaderBytes = 4;
constexpr std::uint8_t kControl = 0x80;   // O
constexpr std::uint8_t kCritical = 0x80;  // of an option's type
constexpr std::uint8_t kVpceId = 1;
constexpr std::uint8_t kAttachmentId = 2;
constexpr std::uint8_t kFlowCookie = 3;

std::uint8_t* write_option(std::uint8_t* at, std::uint16_t option_class, std::uint8_t type, std::uint32_t words) {
  store_be16(at, option_class);
  at[2] = type;
  at[3] = static_cast<std::uint8_t>(words);
  return at + kOptionHeaderBytes;
}

void store_be64(std::uint8_t* at, std::uint64_t value) {
  store_be32(at, static_cast<std::uint32_t>(value >> 32));
  store_be32(at + 4, static_cast<std::uint32_t>(value));
}

std::uint64_t load_be64(const std::uint8_t* at) {
  return std::uint64_t{load_be32(at)} << 32 | load_be32(at + 4);
}

constexpr std::uint8_t kEct1 = 1;
constexpr std::uint8_t kEct0 = 2;
constexpr std::uint8_t kCongestion = 3;

}  // namespace

void write_geneve(std::uint8_t* header, std::uint16_t option_class, const GeneveOptions& options, bool inner_is_v6) {
  header[0] = kGeneveOptionsBytes / 4;  // version 0
  header[1] = 0;
  store_be16(header + 2, inner_is_v6 ? kEtherTypeIpv6 : kEtherTypeIpv4);
  store_be32(header + 4, 0);
  std::uint8_t* at = write_option(header + kGeneveBytes, option_class, kVpceId, 2);
  store_be64(at, options.vpce_id);
  at = write_option(at + 8, option_class, kAttachmentId, 2);
  store_be64(at, options.attachment_id);
  at = write_option(at + 8, option_class, kFlowCookie, 1);
  store_be32(at, options.cookie);
}

GeneveHeader read_geneve(const std::uint8_t* header, std::uint32_t bytes) {
  if (bytes < kGeneveBytes) return {};
  const std::uint32_t header_bytes = kGeneveBytes + (header[0] & 0x3fU) * 4;
  const std::uint16_t inner = load_be16(header + 2);
  const bool is_v6 = inner == kEtherTypeIpv6;
  if (header[0] >> 6 != 0 || (header[1] & kControl) != 0 || header_bytes > bytes || load_be32(header + 4) >> 8 != 0 ||
      (!is_v6 && inner != kEtherTypeIpv4)) {
    return {};
  }
  return {header_bytes, is_v6};
}

bool read_geneve_options(const std::uint8_t* header, std::uint32_t header_bytes, std::uint16_t option_class,
                         GeneveOptions& out) {
  std::uint32_t seen = 0;  // bit: an option's type
  for (std::uint32_t at = kGeneveBytes; at < header_bytes;) {
    const std::uint8_t* option = header + at;
    const std::uint32_t words = option[3] & 0x1fU;  // options are of whole words, so that their header is there
    const std::uint8_t type = option[2];
    at += kOptionHeaderBytes + words * 4;
    if (at > header_bytes) return false;
    const bool known = load_be16(option) == option_class && type >= kVpceId && type <= kFlowCookie;
    if (!known) {
      if ((type & kCritical) != 0) return false;
      continue;
    }
    if (words != (type == kFlowCookie ? 1U : 2U) || (seen >> type & 1) != 0) return false;
    seen |= 1U << type;
    const std::uint8_t* value = option + kOptionHeaderBytes;
    if (type == kVpceId) out.vpce_id = load_be64(value);
    if (type == kAttachmentId) out.attachment_id = load_be64(value);
    if (type == kFlowCookie) out.cookie = load_be32(value);
  }
  return seen == (1U << kVpceId | 1U << kAttachmentId | 1U << kFlowCookie);
}

bool take_outer_ecn(std::uint8_t* ip, bool is_v6, std::uint8_t outer_traffic_class) {
  const std::uint8_t outer = outer_traffic_class & 3;
  const auto inner = static_cast<std::uint8_t>((is_v6 ? ip[1] >> 4 : ip[1]) & 3);
  if (inner == 0) return outer != kCongestion;
  const bool raises = outer == kCongestion || (outer == kEct1 && inner == kEct0);
  if (!raises || inner == kCongestion) return true;
  if (is_v6) {
    ip[1] = static_cast<std::uint8_t>((ip[1] & 0xcf) | outer << 4);
    return true;
  }
  const auto before = load<std::uint16_t>(ip);
  ip[1] = static_cast<std::uint8_t>((ip[1] & 0xfc) | outer);
  const auto checksum = load<std::uint16_t>(ip + kIpv4ChecksumAt);
  store(ip + kIpv4ChecksumAt, checksum_update(checksum, before, load<std::uint16_t>(ip)));
  return true;
}

}  // namespace lb::net
