// lb-dp as lb-cp sees it: listens on the control socket, keeps segments, opens snapshots with the data plane's own checks,
// and answers when the test says so.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <string>

#include "cp/snapshot/control_socket.h"
#include "dp/abi/fingerprint.h"
#include "dp/abi/rates.h"
#include "dp/abi/trace.h"
#include "dp/lb/snapshot.h"

namespace lb::cp {

inline OwnedFd memory_of(const void* bytes, std::size_t size) {
  OwnedFd fd(memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(write(fd.get(), bytes, size), static_cast<ssize_t>(size));
  return fd;
}

inline abi::StatsRegionHeader stats_header(std::uint32_t workers) {
  abi::StatsRegionHeader header{};
  header.magic = abi::kStatsMagic;
  header.version = abi::kRegionVersion;
  header.worker_count = workers;
  header.layout_fingerprint = abi::region_fingerprint();
  header.listener_capacity = 16;
  header.target_capacity = 32;
  header.workers_offset = sizeof header;
  header.listeners_offset = header.workers_offset + workers * sizeof(abi::WorkerStats);
  header.target_flows_offset = header.listeners_offset + workers * 16 * sizeof(abi::ListenerStats);
  header.target_troubles_offset = header.target_flows_offset + workers * 32 * sizeof(std::uint32_t);
  header.rates_offset = header.target_troubles_offset + workers * 32 * sizeof(std::uint32_t);
  header.rates_offset += (sizeof(abi::RateMeter) - header.rates_offset % sizeof(abi::RateMeter)) % sizeof(abi::RateMeter);
  header.size_bytes = header.rates_offset + workers * abi::rate_table_bytes(16);
  return header;
}

inline abi::FlowRegionHeader flow_header(std::uint32_t workers) {
  abi::FlowRegionHeader header{};
  header.magic = abi::kFlowRegionMagic;
  header.version = abi::kRegionVersion;
  header.worker_count = workers;
  header.layout_fingerprint = abi::region_fingerprint();
  header.lines_per_worker = 8;
  header.lines_offset = sizeof header;
  header.translations_per_worker = 2;
  header.translations_offset = header.lines_offset + workers * 8 * sizeof(abi::FlowLine);
  header.size_bytes = header.translations_offset + workers * 2 * sizeof(abi::Translation);
  return header;
}

template <typename Header>
OwnedFd region_of(const Header& header) {
  std::vector<std::byte> bytes(header.size_bytes);
  std::memcpy(bytes.data(), &header, sizeof header);
  return memory_of(bytes.data(), bytes.size());
}

inline OwnedFd trace_region(std::uint32_t workers) {
  std::vector<std::byte> bytes(sizeof(abi::TraceRegionHeader) + workers * sizeof(abi::TraceRing));
  const abi::TraceRegionHeader header{.worker_count = workers};
  std::memcpy(bytes.data(), &header, sizeof header);
  return memory_of(bytes.data(), bytes.size());
}

class FakeDataPlane {
 public:
  explicit FakeDataPlane(std::string path) : path_(std::move(path)) {
    unlink(path_.c_str());
    listener_ = OwnedFd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(listener_.get(), 4), 0);
    hello.header.size_bytes = sizeof hello;
    hello.snapshot_fingerprint = abi::snapshot_fingerprint();
    hello.region_fingerprint = abi::region_fingerprint();
    hello.instance = 1;
    hello.worker_count = 2;
    hello.port_count = 1;
    std::strcpy(hello.ports[0].name, "lb0");
  }
  ~FakeDataPlane() { unlink(path_.c_str()); }

  // Takes a connection and what has come in.
  void poll() {
    if (client_.get() < 0) {
      client_ = OwnedFd(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (client_.get() < 0) return;
      ++connections;
      const OwnedFd stats = region_of(stats_header(2));
      const OwnedFd flows = region_of(flow_header(2));
      const OwnedFd trace = trace_region(2);
      EXPECT_EQ(send_message(client_.get(), std::as_bytes(std::span(&hello, 1)),
                             std::array{stats.get(), flows.get(), trace.get()}),
                0);
    }
    while (reading) {
      auto message = receive_message(client_.get());
      if (!message) return;
      if (message->bytes.empty()) return hang_up();
      take(*message);
    }
  }

  void hang_up() { client_ = OwnedFd(); }

  void verdict(abi::Refusal refusal, const char* text = "") {
    abi::Verdict answer;
    answer.header = {.kind = abi::MessageKind::verdict, .size_bytes = sizeof answer};
    answer.generation = published.back();
    answer.refusal = refusal;
    std::strncpy(answer.text, text, sizeof answer.text - 1);
    send(answer);
  }
  void active() {
    abi::Active answer;
    answer.header = {.kind = abi::MessageKind::active, .size_bytes = sizeof answer};
    answer.generation = published.back();
    hello.generation = published.back();
    send(answer);
  }
  template <typename Message>
  void send(const Message& message) {
    EXPECT_EQ(send_message(client_.get(), std::as_bytes(std::span(&message, 1)), {}), 0);
  }

  // Verifies the root that came last with the segments held, as lb-dp does.
  std::string open() {
    auto snapshot = Snapshot::open(root, [this](std::uint64_t id) -> SegmentBytes* {
      const auto found = held.find(id);
      return found == held.end() ? nullptr : &found->second;
    });
    return snapshot ? "accepted" : std::string(abi::to_string(snapshot.error().refusal)) + ": " + snapshot.error().text;
  }

  abi::Hello hello;
  bool reading = true;
  int connections = 0;
  std::vector<std::uint64_t> sent_ids;  // of all Segments since cleared
  std::size_t most_fds = 0;
  std::vector<abi::Generation> published;  // of all connections
  std::map<std::uint64_t, SegmentBytes> held;
  SegmentBytes root;

 private:
  static SegmentBytes map(const OwnedFd& fd) {
    EXPECT_EQ(fcntl(fd.get(), F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    const auto size = static_cast<std::size_t>(lseek(fd.get(), 0, SEEK_END));
    void* mapped = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
    EXPECT_NE(mapped, MAP_FAILED);
    return {std::span(static_cast<const std::byte*>(mapped), size),
            std::shared_ptr<const void>(mapped, [size](const void* at) { munmap(const_cast<void*>(at), size); })};
  }

  void take(const ReceivedMessage& message) {
    abi::Segments segments;
    abi::Publish publish;
    most_fds = std::max(most_fds, message.fds.size());
    if (message.as(segments, abi::MessageKind::segments)) {
      ASSERT_EQ(message.fds.size(), segments.count);
      for (std::uint32_t i = 0; i < segments.count; ++i) {
        held[segments.ids[i]] = map(message.fds[i]);
        sent_ids.push_back(segments.ids[i]);
      }
    } else {
      ASSERT_TRUE(message.as(publish, abi::MessageKind::publish));
      ASSERT_EQ(message.fds.size(), 1U);
      root = map(message.fds[0]);
      published.push_back(publish.generation);
    }
  }

  std::string path_;
  OwnedFd listener_;
  OwnedFd client_;
};

}  // namespace lb::cp
