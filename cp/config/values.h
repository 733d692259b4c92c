// The small languages inside configuration values: ports, status codes, prefixes. Text → value or nothing, and back.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cp/model/model.h"

namespace lb::cp {

// Decimal digits only, low ≤ value ≤ high.
std::optional<std::uint32_t> parse_number(std::string_view text, std::uint32_t low, std::uint32_t high);

struct PortRange {
  std::uint16_t first = 0;
  std::uint16_t last = 0;  // ≥ first
  friend auto operator<=>(const PortRange&, const PortRange&) = default;
};
inline constexpr PortRange kAnyPort{0, 65535};

// N (1-65535), N-M (N ≤ M) or any.
std::optional<PortRange> parse_port_range(std::string_view text);
std::string format_port_range(PortRange range);

// List of codes and ranges: 200-299,301. Codes 200-599, at least one, at most 32 entries.
std::optional<std::vector<StatusRange>> parse_matcher(std::string_view text);

// No bit is set behind the prefix length.
bool host_bits_are_zero(const AddressPrefix& prefix);

// Can be the address of one host: not unspecified, loopback, link-local (IPv6), multicast, broadcast or reserved.
bool is_host_address(const abi::IpAddress& address);

// List of addresses and prefixes, host bits 0: 10.0.0.9,10.1.0.0/28. All their addresses, sorted, IPv4 first, each once, at
// least one and at most `most`.
std::optional<std::vector<abi::IpAddress>> parse_addresses(std::string_view text, std::size_t most);
// As few prefixes as hold just these, sorted and each once.
std::string format_addresses(const std::vector<abi::IpAddress>& addresses);

bool is_prime(std::uint32_t number);

// First a letter or digit, then letters, digits, - _ and dots.
bool is_name(std::string_view text);

}  // namespace lb::cp
