#include "cp/health/datagram_probe.h"

#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace lb::cp {
namespace {

constexpr std::size_t kEchoHeaderBytes = 8;
constexpr std::size_t kMostAnswerBytes = 2048;

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

SocketAddress socket_address(const abi::IpAddress& address, std::uint16_t port) {
  SocketAddress to;
  if (address.is_v4()) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    std::memcpy(&v4.sin_addr, address.bytes.data() + 12, 4);
    std::memcpy(&to.storage, &v4, sizeof v4);
    to.size = sizeof v4;
  } else {
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::memcpy(&v6.sin6_addr, address.bytes.data(), 16);
    std::memcpy(&to.storage, &v6, sizeof v6);
    to.size = sizeof v6;
  }
  return to;
}

// RFC 1071, as it stands in memory.
std::uint16_t checksum_of(const std::string& bytes) {
  std::uint32_t sum = 0;
  for (std::size_t at = 0; at < bytes.size(); at += 2) {
    std::uint16_t word = 0;
    std::memcpy(&word, bytes.data() + at, std::min<std::size_t>(2, bytes.size() - at));
    sum += word;
  }
  sum = (sum >> 16) + (sum & 0xffff);
  return static_cast<std::uint16_t>(~(sum + (sum >> 16)));
}

// RFC 792, RFC 4443 §4.1. The kernel writes the checksum of ICMPv6, and the identifier of a ping socket.
std::string echo_request(bool v4, const std::string& token) {
  std::string packet(kEchoHeaderBytes, '\0');
  packet[0] = static_cast<char>(v4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST);
  std::memcpy(packet.data() + 4, token.data(), 4);  // identifier, sequence number
  packet += token;
  const std::uint16_t checksum = checksum_of(packet);
  if (v4) std::memcpy(packet.data() + 2, &checksum, sizeof checksum);
  return packet;
}

std::string said(const char* what) {
  return std::string(what) + ": " + std::strerror(errno);
}

}  // namespace

DatagramProbe::~DatagramProbe() {
  if (fd_ >= 0) close(fd_);
}

tl::expected<std::unique_ptr<DatagramProbe>, std::string> DatagramProbe::open(const ProbeSpec& spec, std::uint64_t token) {
  const bool v4 = spec.address.is_v4();
  const bool udp = spec.protocol == ProbeProtocol::udp;
  const int family = v4 ? AF_INET : AF_INET6;
  const int protocol = udp ? IPPROTO_UDP : v4 ? static_cast<int>(IPPROTO_ICMP) : static_cast<int>(IPPROTO_ICMPV6);
  constexpr int kFlags = SOCK_CLOEXEC | SOCK_NONBLOCK;
  std::unique_ptr<DatagramProbe> probe(new DatagramProbe());
  probe->token_.resize(sizeof token);
  std::memcpy(probe->token_.data(), &token, sizeof token);
  if (!udp) probe->fd_ = socket(family, SOCK_RAW | kFlags, protocol);
  probe->raw_ = probe->fd_ >= 0;
  if (probe->fd_ < 0) probe->fd_ = socket(family, SOCK_DGRAM | kFlags, protocol);
  if (probe->fd_ < 0) return tl::unexpected(said("socket"));
  const SocketAddress to = socket_address(spec.address, udp ? spec.port : 0);
  if (connect(probe->fd_, reinterpret_cast<const sockaddr*>(&to.storage), to.size) != 0)
    return tl::unexpected(said("connect"));
  const std::string question = udp ? spec.send : echo_request(v4, probe->token_);
  if (send(probe->fd_, question.data(), question.size(), MSG_NOSIGNAL) < 0) return tl::unexpected(said("send"));
  return probe;
}

bool DatagramProbe::answers_echo(const std::string& packet, bool v4) const {
  std::size_t at = 0;
  if (raw_ && v4) {  // IPv4 raw sockets hand out the IP header as well
    if (packet.empty()) return false;
    at = (static_cast<std::uint8_t>(packet[0]) & 0xfU) * 4U;
  }
  if (packet.size() < at + kEchoHeaderBytes + token_.size()) return false;
  const auto type = static_cast<std::uint8_t>(packet[at]);
  return type == (v4 ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY) &&
         packet.compare(at + kEchoHeaderBytes, token_.size(), token_) == 0;
}

std::optional<ProbeResult> DatagramProbe::read(const ProbeSpec& spec) {
  std::array<char, kMostAnswerBytes> buffer;
  for (;;) {
    const ssize_t n = recv(fd_, buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::nullopt;
    if (n < 0) return ProbeResult{ProbeVerdict::failed, said("receive"), {}};
    const std::string answer(buffer.data(), static_cast<std::size_t>(n));
    if (spec.protocol == ProbeProtocol::icmp) {
      if (answers_echo(answer, spec.address.is_v4())) return ProbeResult{ProbeVerdict::ok, "echo reply", {}};
      continue;  // another probe's, or not an answer
    }
    const std::string size = std::to_string(answer.size()) + " bytes";
    if (answer.starts_with(spec.expect)) return ProbeResult{ProbeVerdict::ok, "answered with " + size, {}};
    return ProbeResult{ProbeVerdict::response_code_mismatch, "answered with " + size + " that do not begin as expected", {}};
  }
}

}  // namespace lb::cp
