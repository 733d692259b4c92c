#include "cp/config/values.h"

#include <algorithm>
#include <charconv>

namespace lb::cp {
namespace {

bool is_letter_or_digit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

}  // namespace

std::optional<std::uint32_t> parse_number(std::string_view text, std::uint32_t low, std::uint32_t high) {
  std::uint32_t number = 0;
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{} || at != end || number < low || number > high) return std::nullopt;
  return number;
}

std::optional<PortRange> parse_port_range(std::string_view text) {
  if (text == "any") return kAnyPort;
  const std::size_t dash = text.find('-');
  const auto first = parse_number(text.substr(0, dash), 1, 65535);
  const auto last = dash == std::string_view::npos ? first : parse_number(text.substr(dash + 1), 1, 65535);
  if (!first || !last || *first > *last) return std::nullopt;
  return PortRange{static_cast<std::uint16_t>(*first), static_cast<std::uint16_t>(*last)};
}

std::string format_port_range(PortRange range) {
  if (range == kAnyPort) return "any";
  if (range.first == range.last) return std::to_string(range.first);
  return std::to_string(range.first) + "-" + std::to_string(range.last);
}

std::optional<std::vector<StatusRange>> parse_matcher(std::string_view text) {
  constexpr std::size_t kMostEntries = 32;
  std::vector<StatusRange> ranges;
  for (bool more = true; more;) {
    const std::size_t comma = text.find(',');
    const std::string_view entry = text.substr(0, comma);
    more = comma != std::string_view::npos;
    if (more) text.remove_prefix(comma + 1);

    const std::size_t dash = entry.find('-');
    const auto first = parse_number(entry.substr(0, dash), 200, 599);
    const auto last = dash == std::string_view::npos ? first : parse_number(entry.substr(dash + 1), 200, 599);
    if (!first || !last || *first > *last || ranges.size() == kMostEntries) return std::nullopt;
    ranges.push_back({static_cast<std::uint16_t>(*first), static_cast<std::uint16_t>(*last)});
  }
  return ranges;
}

bool host_bits_are_zero(const AddressPrefix& prefix) {
  for (std::size_t bit = prefix.length; bit < 128; ++bit) {
    if ((prefix.address.bytes[bit / 8] >> (7 - bit % 8) & 1) != 0) return false;
  }
  return true;
}

bool is_host_address(const abi::IpAddress& address) {
  const auto& b = address.bytes;
  if (address.is_v4()) return b[12] != 0 && b[12] != 127 && b[12] < 224;
  abi::IpAddress loopback;
  loopback.bytes[15] = 1;
  const bool link_local = b[0] == 0xfe && (b[1] & 0xc0) == 0x80;
  return !address.is_zero() && address != loopback && b[0] != 0xff && !link_local;
}

namespace {

abi::IpAddress plus(abi::IpAddress address, std::size_t more) {
  for (std::size_t i = 16; i > 0 && more > 0; --i) {
    more += address.bytes[i - 1];
    address.bytes[i - 1] = static_cast<std::uint8_t>(more);
    more >>= 8;
  }
  return address;
}

bool v4_first(const abi::IpAddress& a, const abi::IpAddress& b) {
  return a.is_v4() != b.is_v4() ? a.is_v4() : a < b;
}

}  // namespace

std::optional<std::vector<abi::IpAddress>> parse_addresses(std::string_view text, std::size_t most) {
  std::vector<abi::IpAddress> addresses;
  for (bool more = true; more;) {
    const std::size_t comma = text.find(',');
    std::string_view entry = text.substr(0, comma);
    more = comma != std::string_view::npos;
    if (more) text.remove_prefix(comma + 1);
    while (!entry.empty() && entry.front() == ' ') entry.remove_prefix(1);
    const auto prefix = parse_prefix(entry);
    if (!prefix || !host_bits_are_zero(*prefix) || !is_host_address(prefix->address)) return std::nullopt;
    const std::size_t bits = 128U - prefix->length;
    if (bits > 16 || addresses.size() + (std::size_t{1} << bits) > most) return std::nullopt;
    for (std::size_t n = 0; n < std::size_t{1} << bits; ++n) addresses.push_back(plus(prefix->address, n));
  }
  std::sort(addresses.begin(), addresses.end(), v4_first);
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  return addresses;
}

std::string format_addresses(const std::vector<abi::IpAddress>& addresses) {
  std::string text;
  for (std::size_t at = 0; at < addresses.size();) {
    std::size_t bits = 16;
    const auto holds = [&] {
      const std::size_t size = std::size_t{1} << bits;
      return at + size <= addresses.size() &&
             abi::masked(addresses[at], static_cast<std::uint32_t>(128 - bits)) == addresses[at] &&
             addresses[at + size - 1] == plus(addresses[at], size - 1);
    };
    while (bits > 0 && !holds()) --bits;
    text += (text.empty() ? "" : ",") + format_prefix({addresses[at], static_cast<std::uint8_t>(128 - bits)});
    at += std::size_t{1} << bits;
  }
  return text;
}

bool is_prime(std::uint32_t number) {
  if (number < 4) return number > 1;
  if (number % 2 == 0) return false;
  for (std::uint32_t divisor = 3; std::uint64_t{divisor} * divisor <= number; divisor += 2) {
    if (number % divisor == 0) return false;
  }
  return true;
}

bool is_name(std::string_view text) {
  return !text.empty() && is_letter_or_digit(text[0]) && std::all_of(text.begin(), text.end(), [](char c) {
    return is_letter_or_digit(c) || c == '-' || c == '_' || c == '.';
  });
}

}  // namespace lb::cp
