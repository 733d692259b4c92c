#include "cp/health/prober.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>

namespace lb::cp {
namespace {

using namespace std::chrono_literals;

// A server on 127.0.0.1 that answers every connection with the same bytes ("" reads and says nothing).
class Server {
 public:
  explicit Server(std::string answer, int backlog = 64) : answer_(std::move(answer)) {
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(fd_, backlog), 0);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~Server() { stop(); }
  void stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

  [[nodiscard]] std::uint16_t port() const { return port_; }
  [[nodiscard]] int closed_by_client() const { return closed_by_client_; }
  [[nodiscard]] int resets() const { return resets_; }
  [[nodiscard]] std::string request() {
    const std::lock_guard lock(mutex_);
    return request_;
  }

 private:
  void serve() {
    while (!stopping_) {
      pollfd item{fd_, POLLIN, 0};
      if (poll(&item, 1, 20) <= 0) continue;
      const int client = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) continue;
      const timeval limit{5, 0};
      setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
      char buffer[4096];
      bool answered = answer_.empty();
      for (;;) {
        const ssize_t n = read(client, buffer, sizeof buffer);
        if (n == 0) ++closed_by_client_;
        if (n < 0 && errno == ECONNRESET) ++resets_;
        if (n <= 0) break;
        {
          const std::lock_guard lock(mutex_);
          request_.assign(buffer, static_cast<std::size_t>(n));
        }
        if (!answered) {
          EXPECT_EQ(write(client, answer_.data(), answer_.size()), static_cast<ssize_t>(answer_.size()));
        }
        answered = true;
      }
      close(client);
    }
  }

  std::string answer_;
  int fd_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<bool> stopping_ = false;
  std::atomic<int> closed_by_client_ = 0;
  std::atomic<int> resets_ = 0;
  std::mutex mutex_;
  std::string request_;
  std::thread thread_;
};

// Collects results; next() waits for one.
class Results {
 public:
  void add(const ProbeSpec& spec, const ProbeResult& result) {
    const std::lock_guard lock(mutex_);
    all_.emplace_back(spec, result);
    changed_.notify_all();
  }
  ProbeResult next() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, 20s, [this] { return !all_.empty(); })) {
      ADD_FAILURE() << "no probe result came";
      return {};
    }
    ProbeResult result = all_.front().second;
    all_.pop_front();
    return result;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<ProbeSpec, ProbeResult>> all_;
};

ProbeSpec spec_for(ProbeProtocol protocol, std::uint16_t port) {
  ProbeSpec spec{.protocol = protocol, .address = abi::IpAddress::v4(127, 0, 0, 1), .port = port};
  spec.interval = 100ms;
  spec.timeout = 100ms;
  if (protocol == ProbeProtocol::http) {
    spec.path = "/health?x=1";
    spec.matcher = "200-299,404";
  }
  return spec;
}

ProbeResult probe_once(const ProbeSpec& spec) {
  Results results;
  Prober prober([&](const ProbeSpec& s, const ProbeResult& r) { results.add(s, r); });
  prober.set_probes({spec});
  return results.next();
}

constexpr auto kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

TEST(Prober, TcpProbeSucceedsOnConnectAndClosesWithFin) {
  Server server("");
  {
    Results results;
    Prober prober([&](const ProbeSpec& s, const ProbeResult& r) { results.add(s, r); });
    prober.set_probes({spec_for(ProbeProtocol::tcp, server.port())});
    for (int i = 0; i < 3; ++i) EXPECT_EQ(results.next().verdict, ProbeVerdict::ok);
  }
  server.stop();
  EXPECT_GE(server.closed_by_client(), 2);
  EXPECT_EQ(server.resets(), 0);
}

TEST(Prober, RefusedConnectionFailsInTheKernelsWords) {
  std::uint16_t port = 0;
  {
    Server gone("");
    port = gone.port();
  }
  for (const auto protocol : {ProbeProtocol::tcp, ProbeProtocol::http}) {
    const ProbeResult result = probe_once(spec_for(protocol, port));
    EXPECT_EQ(result.verdict, ProbeVerdict::failed);
    EXPECT_EQ(result.text, "connect: Connection refused");
  }
}

TEST(Prober, HttpProbeSendsPathAndHostAndMatchesTheStatus) {
  Server server(kOk);
  ProbeSpec spec = spec_for(ProbeProtocol::http, server.port());
  spec.host = "web.example";
  const ProbeResult result = probe_once(spec);
  EXPECT_EQ(result.verdict, ProbeVerdict::ok);
  EXPECT_EQ(result.text, "HTTP 200");
  const std::string request = server.request();
  EXPECT_TRUE(request.starts_with("GET /health?x=1 HTTP/1.1\r\n")) << request;
  EXPECT_NE(request.find("\r\nHost: web.example\r\n"), std::string::npos) << request;
}

TEST(Prober, HostIsTheTargetsAddressByDefault) {
  Server server(kOk);
  probe_once(spec_for(ProbeProtocol::http, server.port()));
  EXPECT_NE(server.request().find("\r\nHost: 127.0.0.1:" + std::to_string(server.port()) + "\r\n"), std::string::npos);
}

TEST(Prober, StatusOutsideTheMatcherIsAMismatch) {
  Server server("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
  const ProbeResult result = probe_once(spec_for(ProbeProtocol::http, server.port()));
  EXPECT_EQ(result.verdict, ProbeVerdict::response_code_mismatch);
  EXPECT_EQ(result.text, "HTTP 503 not in 200-299,404");
}

TEST(Prober, RedirectIsAnAnswerAndNotFollowed) {
  Server server("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
  const ProbeResult result = probe_once(spec_for(ProbeProtocol::http, server.port()));
  EXPECT_EQ(result.verdict, ProbeVerdict::response_code_mismatch);
  EXPECT_EQ(result.text, "HTTP 302 not in 200-299,404");
}

TEST(Prober, SilentHttpServerIsATimeout) {
  Server server("");
  const ProbeResult result = probe_once(spec_for(ProbeProtocol::http, server.port()));
  EXPECT_EQ(result.verdict, ProbeVerdict::timeout);
  EXPECT_EQ(result.text, "no answer within 100 ms");
}

TEST(Prober, AnswerThatIsNotHttpFails) {
  Server server("SSH-2.0-OpenSSH_9.2\r\n");
  EXPECT_EQ(probe_once(spec_for(ProbeProtocol::http, server.port())).verdict, ProbeVerdict::failed);
}

TEST(Prober, ProxyOfTheEnvironmentIsNotUsed) {
  setenv("http_proxy", "http://127.0.0.1:1", 1);
  Server server(kOk);
  const ProbeResult result = probe_once(spec_for(ProbeProtocol::http, server.port()));
  unsetenv("http_proxy");
  EXPECT_EQ(result.verdict, ProbeVerdict::ok) << result.text;
}

TEST(Prober, ReplacedSetIsProbedAndTheOldOneNoMore) {
  Server first(kOk);
  Server second(kOk);
  std::mutex mutex;
  std::map<std::uint16_t, int> seen;
  std::condition_variable changed;
  Prober prober([&](const ProbeSpec& s, const ProbeResult&) {
    const std::lock_guard lock(mutex);
    ++seen[s.port];
    changed.notify_all();
  });
  prober.set_probes({spec_for(ProbeProtocol::http, first.port())});
  std::unique_lock lock(mutex);
  ASSERT_TRUE(changed.wait_for(lock, 20s, [&] { return seen[first.port()] >= 2; }));
  lock.unlock();
  prober.set_probes({spec_for(ProbeProtocol::http, second.port())});
  lock.lock();
  ASSERT_TRUE(changed.wait_for(lock, 20s, [&] { return seen[second.port()] >= 1; }));
  const int before = seen[first.port()];
  ASSERT_TRUE(changed.wait_for(lock, 20s, [&] { return seen[second.port()] >= 4; }));
  EXPECT_EQ(seen[first.port()], before);
}

TEST(Prober, HastenedProbeComesAtOnceAndTheNextAnIntervalLater) {
  Server server("");
  Results results;
  Prober prober([&](const ProbeSpec& s, const ProbeResult& r) { results.add(s, r); });
  ProbeSpec spec = spec_for(ProbeProtocol::tcp, server.port());
  spec.interval = 300s;
  spec.timeout = 5s;
  ProbeSpec unknown = spec;
  unknown.port = 1;
  prober.set_probes({spec});
  for (int i = 0; i < 3; ++i) {
    prober.hasten({unknown, spec});
    EXPECT_EQ(results.next().verdict, ProbeVerdict::ok);
  }
  prober.set_probes({});
  prober.hasten({spec});
}

TEST(Prober, WhatThisHostCannotAskIsNoVerdictOnTheTarget) {
  Server server("");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  for (const auto protocol : {ProbeProtocol::tcp, ProbeProtocol::http, ProbeProtocol::udp}) {
    Results results;
    Prober prober([&](const ProbeSpec& s, const ProbeResult& r) { results.add(s, r); });
    rlimit none = before;
    none.rlim_cur = 3;  // below what is open: not one more
    setrlimit(RLIMIT_NOFILE, &none);
    prober.set_probes({spec_for(protocol, server.port())});
    const ProbeResult result = results.next();
    setrlimit(RLIMIT_NOFILE, &before);
    EXPECT_EQ(result.verdict, ProbeVerdict::not_asked);
    EXPECT_NE(result.text.find("Too many open files"), std::string::npos) << result.text;
  }
}

TEST(Prober, TenThousandTargetsAreAllProbed) {
  std::uint16_t port = 0;
  {
    Server gone("");
    port = gone.port();
  }
  std::mutex mutex;
  std::set<abi::IpAddress> seen;
  std::condition_variable changed;
  Prober prober([&](const ProbeSpec& s, const ProbeResult&) {
    const std::lock_guard lock(mutex);
    seen.insert(s.address);
    if (seen.size() == 10'000) changed.notify_all();
  });
  std::vector<ProbeSpec> specs;
  for (int i = 0; i < 10'000; ++i) {
    ProbeSpec spec = spec_for(ProbeProtocol::tcp, port);
    spec.address = abi::IpAddress::v4(127, 1, static_cast<std::uint8_t>(i / 250), static_cast<std::uint8_t>(i % 250 + 1));
    spec.interval = 10s;
    spec.timeout = 5s;
    specs.push_back(spec);
  }
  prober.set_probes(specs);
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_for(lock, 60s, [&] { return seen.size() == 10'000; })) << seen.size();
}

TEST(Matcher, ListsAndRangesMatch) {
  const std::string text = format_matcher({{200, 200}, {300, 399}});
  EXPECT_EQ(text, "200,300-399");
  for (const long status : {200L, 300L, 350L, 399L}) EXPECT_TRUE(status_matches(text, status)) << status;
  for (const long status : {199L, 201L, 299L, 400L}) EXPECT_FALSE(status_matches(text, status)) << status;
}

// Answers every datagram on 127.0.0.1 with the same bytes; without any, it is silent.
class DatagramServer {
 public:
  explicit DatagramServer(std::string answer) : answer_(std::move(answer)) {
    fd_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~DatagramServer() {
    stopping_ = true;
    thread_.join();
    close(fd_);
  }
  [[nodiscard]] std::uint16_t port() const { return port_; }
  [[nodiscard]] std::string question() {
    const std::lock_guard lock(mutex_);
    return question_;
  }

 private:
  void serve() {
    while (!stopping_) {
      pollfd item{fd_, POLLIN, 0};
      if (poll(&item, 1, 20) <= 0) continue;
      char buffer[2048];
      sockaddr_in from{};
      socklen_t size = sizeof from;
      const ssize_t n = recvfrom(fd_, buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &size);
      if (n < 0) continue;
      {
        const std::lock_guard lock(mutex_);
        question_.assign(buffer, static_cast<std::size_t>(n));
      }
      if (!answer_.empty()) sendto(fd_, answer_.data(), answer_.size(), 0, reinterpret_cast<sockaddr*>(&from), size);
    }
  }

  std::string answer_;
  int fd_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<bool> stopping_ = false;
  std::mutex mutex_;
  std::string question_;
  std::thread thread_;
};

ProbeResult result_of(const ProbeSpec& spec) {
  Results results;
  Prober prober([&](const ProbeSpec& s, const ProbeResult& result) { results.add(s, result); });
  prober.set_probes({spec});
  return results.next();
}

TEST(DatagramProbe, UdpAnswerMustBeginAsExpected) {
  DatagramServer server("pong 1");
  ProbeSpec spec = spec_for(ProbeProtocol::udp, server.port());
  spec.send = std::string("ping\0", 5);
  spec.expect = "pong";
  const ProbeResult good = result_of(spec);
  EXPECT_EQ(good.verdict, ProbeVerdict::ok) << good.text;
  EXPECT_EQ(server.question(), spec.send);
  spec.expect = "PONG";
  EXPECT_EQ(result_of(spec).verdict, ProbeVerdict::response_code_mismatch);
}

TEST(DatagramProbe, SilentUdpServerTimesOut) {
  DatagramServer server("");
  ProbeSpec spec = spec_for(ProbeProtocol::udp, server.port());
  spec.timeout = 50ms;
  const ProbeResult result = result_of(spec);
  EXPECT_EQ(result.verdict, ProbeVerdict::timeout);
  EXPECT_EQ(result.text, "no answer within 50 ms");
}

TEST(DatagramProbe, ClosedUdpPortFailsAtOnce) {
  std::uint16_t port = 0;
  {
    const DatagramServer server("");
    port = server.port();
  }
  const ProbeResult result = result_of(spec_for(ProbeProtocol::udp, port));
  EXPECT_EQ(result.verdict, ProbeVerdict::failed);
  EXPECT_EQ(result.text, "receive: Connection refused");
}

TEST(DatagramProbe, EchoIsAnsweredByThisHost) {
  ProbeSpec spec = spec_for(ProbeProtocol::icmp, 0);
  const ProbeResult v4 = result_of(spec);
  EXPECT_EQ(v4.verdict, ProbeVerdict::ok) << v4.text;
}

TEST(Prober, ServerWithoutTlsFailsAnHttpsProbe) {
  Server server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  ProbeSpec spec = spec_for(ProbeProtocol::https, server.port());
  spec.path = "/";
  spec.matcher = "200-399";
  EXPECT_EQ(result_of(spec).verdict, ProbeVerdict::failed);
}

}  // namespace
}  // namespace lb::cp
