#include "cp/model/model.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

namespace lb::cp {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

bool contains(const AddressPrefix& prefix, const abi::IpAddress& address) {
  return abi::masked(address, prefix.length) == prefix.address;
}

std::string_view to_string(StateReason reason) {
  switch (reason) {
    case StateReason::none: return "";
    case StateReason::registration_in_progress: return "RegistrationInProgress";
    case StateReason::initial_health_checking: return "InitialHealthChecking";
    case StateReason::failed_health_checks: return "FailedHealthChecks";
    case StateReason::timeout: return "Timeout";
    case StateReason::response_code_mismatch: return "ResponseCodeMismatch";
    case StateReason::deregistration_in_progress: return "DeregistrationInProgress";
    case StateReason::not_in_use: return "NotInUse";
    case StateReason::not_registered: return "NotRegistered";
    case StateReason::invalid_target: return "InvalidTarget";
    case StateReason::health_check_disabled: return "HealthCheckDisabled";
    case StateReason::internal_error: return "InternalError";
  }
  return "?";
}

std::string_view then_word(abi::TrackedFlows then) {
  return then == abi::TrackedFlows::reset ? "reset" : then == abi::TrackedFlows::rehash ? "rehash" : "leave";
}

std::optional<abi::TrackedFlows> parse_then(std::string_view word) {
  for (const auto then : {abi::TrackedFlows::keep, abi::TrackedFlows::reset, abi::TrackedFlows::rehash}) {
    if (word == then_word(then)) return then;
  }
  return std::nullopt;
}

std::string format_hex(std::span<const std::uint8_t> bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 0xf];
  }
  return text;
}

std::optional<std::vector<std::uint8_t>> parse_hex(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  std::vector<std::uint8_t> bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = hex_digit(text[i]);
    const int low = hex_digit(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes.push_back(static_cast<std::uint8_t>(high << 4 | low));
  }
  return bytes;
}

std::string format_matcher(const std::vector<StatusRange>& matcher) {
  std::string text;
  for (const StatusRange& range : matcher) {
    if (!text.empty()) text += ',';
    text += std::to_string(range.first);
    if (range.last != range.first) text += '-' + std::to_string(range.last);
  }
  return text;
}

std::optional<std::string> unescape(std::string_view text) {
  std::string bytes;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] < ' ' || text[at] > '~') return std::nullopt;
    if (text[at] != '\\') {
      bytes += text[at];
      continue;
    }
    if (++at == text.size()) return std::nullopt;
    constexpr std::string_view kLetters = "nrt\\";
    constexpr std::string_view kBytes = "\n\r\t\\";
    if (const std::size_t letter = kLetters.find(text[at]); letter != std::string_view::npos) {
      bytes += kBytes[letter];
      continue;
    }
    std::uint8_t byte = 0;
    const std::string_view digits = text.substr(at + 1, 2);
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (text[at] != 'x' || digits.size() != 2 || parsed.ptr != digits.data() + 2) return std::nullopt;
    bytes += static_cast<char>(byte);
    at += 2;
  }
  return bytes;
}

std::string_view to_string(ListenerProtocol protocol) {
  switch (protocol) {
    case ListenerProtocol::tcp: return "TCP";
    case ListenerProtocol::udp: return "UDP";
    case ListenerProtocol::tcp_udp: return "TCP_UDP";
    case ListenerProtocol::geneve: return "GENEVE";
  }
  return "?";
}

std::optional<abi::IpAddress> parse_address(std::string_view text) {
  std::array<char, INET6_ADDRSTRLEN> terminated{};
  if (text.empty() || text.size() >= terminated.size() || text.find('\0') != std::string_view::npos) return std::nullopt;
  std::copy(text.begin(), text.end(), terminated.begin());
  abi::IpAddress address;
  if (inet_pton(AF_INET6, terminated.data(), address.bytes.data()) == 1) return address;
  std::array<std::uint8_t, 4> v4{};
  if (inet_pton(AF_INET, terminated.data(), v4.data()) != 1) return std::nullopt;
  return abi::IpAddress::v4(v4[0], v4[1], v4[2], v4[3]);
}

std::string format_address(const abi::IpAddress& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const bool v4 = address.is_v4();
  inet_ntop(v4 ? AF_INET : AF_INET6, address.bytes.data() + (v4 ? 12 : 0), text.data(), text.size());
  return text.data();
}

std::optional<AddressPrefix> parse_prefix(std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto address = parse_address(text.substr(0, slash));
  if (!address) return std::nullopt;
  AddressPrefix prefix{*address, 128};
  if (slash == std::string_view::npos) return prefix;
  const std::uint32_t bits = address->is_v4() ? 32 : 128;
  const std::string_view digits = text.substr(slash + 1);
  std::uint32_t length = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
  if (error != std::errc{} || end != digits.data() + digits.size() || length > bits) return std::nullopt;
  prefix.length = static_cast<std::uint8_t>(128 - bits + length);
  return prefix;
}

std::string format_prefix(const AddressPrefix& prefix) {
  if (prefix.length == 128) return format_address(prefix.address);
  return format_address(prefix.address) + "/" + std::to_string(prefix.length - (prefix.address.is_v4() ? 96 : 0));
}

std::string format_address_port(const abi::IpAddress& address, std::uint16_t port) {
  const std::string text = format_address(address);
  return (address.is_v4() ? text : "[" + text + "]") + ":" + std::to_string(port);
}

std::optional<AddressPort> parse_address_port(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (bracketed != (host.find(':') != std::string_view::npos)) return std::nullopt;
  const auto address = parse_address(host);
  AddressPort parsed;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), parsed.port);
  if (!address || error != std::errc{} || end != port.data() + port.size()) return std::nullopt;
  parsed.address = *address;
  return parsed;
}

std::string format_mac(const abi::MacAddress& mac) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : mac) {
    if (!text.empty()) text += ':';
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::optional<abi::MacAddress> parse_mac(std::string_view text) {
  abi::MacAddress mac{};
  if (text.size() != 3 * mac.size() - 1) return std::nullopt;
  for (std::size_t i = 0; i < mac.size(); ++i) {
    const int high = hex_digit(text[3 * i]);
    const int low = hex_digit(text[3 * i + 1]);
    if (high < 0 || low < 0 || (i + 1 < mac.size() && text[3 * i + 2] != ':')) return std::nullopt;
    mac[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return mac;
}

}  // namespace lb::cp
