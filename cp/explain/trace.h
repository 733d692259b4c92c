// Reads what workers write down of single packets, and says in words which way each one took.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dp/abi/trace.h"

namespace lb {
class Snapshot;
}
namespace lb::net {
struct ParsedPacket;
}

namespace lb::cp::explain {

struct TracedPacket {
  std::uint32_t worker = 0;
  std::uint64_t number = 0;  // of the worker's records
  abi::TraceRecord record;
};

// From now on, of one session. Thread: one.
class TraceFeed {
 public:
  // `owner` keeps the rings.
  TraceFeed(std::shared_ptr<const void> owner, std::span<const abi::TraceRing> rings, std::uint64_t session);

  struct Batch {
    std::vector<TracedPacket> packets;  // by time
    std::uint64_t lost = 0;             // overwritten before they were read
    std::uint64_t limited = 0;          // above the limit, since the feed began
  };
  Batch read();
  [[nodiscard]] std::uint64_t session() const { return session_; }

 private:
  struct Place {
    std::uint64_t next = 0;  // record
    std::uint64_t limited = 0;
  };
  std::shared_ptr<const void> owner_;
  std::span<const abi::TraceRing> rings_;
  std::uint64_t session_;
  std::vector<Place> places_;  // by worker
};

// A record in the words of lb-replay's verdicts. `snapshot`: the one in force; of a record of another generation there are
// no names. What is not known is empty.
struct TraceWords {
  std::string protocol, source, destination;  // ADDRESS:PORT
  std::string verdict, reason, listener, target_group, target, flow, in_port, out_port;
  std::string path;  // "listener web-80 → new entry → slot 17 of blue → 10.77.2.2:80 → ipip → sent"
};
std::string protocol_text(std::uint8_t protocol);  // TCP, UDP, ICMP or the number
// What the packet was as it came, by the bytes that were kept of it. False: no IP packet, or too few of them.
bool parse_kept(const abi::TraceRecord& record, net::ParsedPacket& packet);
TraceWords words_of(const lb::Snapshot* snapshot, const abi::TraceRecord& record);

}  // namespace lb::cp::explain
