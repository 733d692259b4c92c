#include "cp/health/datagram_probe.h"

#include <netinet/icmp6.h>
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

tl::expected<std::unique_ptr<DatagramProbe>, ProbeError> DatagramProbe::open(int fd, const ProbeSpec& spec,
                                                                             std::uint64_t token) {
  std::unique_ptr<DatagramProbe> probe(new DatagramProbe());
  probe->fd_ = fd;
  probe->v4_ = spec.through ? spec.through->vip.is_v4() : spec.address.is_v4();
  int type = 0;
  socklen_t size = sizeof type;
  getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
  probe->raw_ = type == SOCK_RAW;
  probe->token_.resize(sizeof token);
  std::memcpy(probe->token_.data(), &token, sizeof token);
  const std::string question = spec.protocol == ProbeProtocol::udp ? spec.send : echo_request(probe->v4_, probe->token_);
  if (send(fd, question.data(), question.size(), MSG_NOSIGNAL) < 0) return tl::unexpected(system_error("send"));
  return probe;
}

bool DatagramProbe::answers_echo(const std::string& packet) const {
  std::size_t at = 0;
  if (raw_ && v4_) {  // IPv4 raw sockets hand out the IP header as well
    if (packet.empty()) return false;
    at = (static_cast<std::uint8_t>(packet[0]) & 0xfU) * 4U;
  }
  if (packet.size() < at + kEchoHeaderBytes + token_.size()) return false;
  const auto type = static_cast<std::uint8_t>(packet[at]);
  return type == (v4_ ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY) &&
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
      if (answers_echo(answer)) return ProbeResult{ProbeVerdict::ok, "echo reply", {}};
      continue;  // another probe's, or not an answer
    }
    const std::string size = std::to_string(answer.size()) + " bytes";
    if (answer.starts_with(spec.expect)) return ProbeResult{ProbeVerdict::ok, "answered with " + size, {}};
    return ProbeResult{ProbeVerdict::response_code_mismatch, "answered with " + size + " that do not begin as expected", {}};
  }
}

}  // namespace lb::cp
