// What lb-cp would have told the workers at a moment of the capture: the configuration in force, health, drains and time go
// through the rules of lb-cp (cp/snapshot/roster.h) and its compiler, and come out as a verified snapshot.
//
//   config, events, time ──▶ Roster ──settle──▶ Compiler ──▶ lb::Snapshot::open ──▶ workers
//
// What the capture cannot tell is made up, always the same:
//
//   next hop of a target     its entry in static_neighbours, else MAC 02:04 + IPv4 address, 02:06 + last 4 bytes of IPv6
//   lb's own MAC             02:00:00:00:00:01
//   tunnel_source            where the configuration has none: 198.18.0.1, 2001:2::1
//   routes                   of a gateway listener's packets: one default route of each family, MAC 02:04:0:0:0:0, 02:06:…
//   port that packets come by   the first that has a gateway listener, if there is one
//   MTU                      1500 bytes towards every target, or --mtu
//
// Time is in ns from the first packet of the capture. Thread: one.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tl/expected.hpp>
#include <utility>

#include "cp/model/model.h"
#include "cp/snapshot/compile.h"
#include "cp/snapshot/roster.h"
#include "dp/lb/snapshot.h"

namespace lb::replay {

inline constexpr abi::MacAddress kOwnMac = {0x02, 0, 0, 0, 0, 0x01};
inline constexpr abi::IpAddress kTunnelSourceV4 = abi::IpAddress::v4(198, 18, 0, 1);
inline constexpr abi::IpAddress kTunnelSourceV6 = {{0x20, 0x01, 0, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01}};

// The MAC address made up for the way to `address`.
[[nodiscard]] abi::MacAddress next_hop_mac(const abi::IpAddress& address);

using TargetAddress = std::pair<abi::IpAddress, std::uint16_t>;

class World {
 public:
  // `unhealthy`: targets whose checks fail from the start, or from when they are configured.
  World(std::uint32_t mtu_bytes, std::set<TargetAddress> unhealthy, cp::Roster::FlowsOf flows_of);

  // What happens at `at_ns`, which never goes back. None shows in snapshot() before settle(). Errors are the rules' own.
  tl::expected<void, std::string> apply(const cp::Config& config, std::uint64_t at_ns);
  tl::expected<void, std::string> drain(const TargetAddress& target, bool drain, std::uint64_t at_ns);
  void set_healthy(const TargetAddress& target, bool healthy, std::uint64_t at_ns);

  // Decides by what has happened and what time it is; compiles and opens a new snapshot if anything differs.
  tl::expected<void, std::string> settle(std::uint64_t at_ns);

  // When settle() is due next though nothing happens: a drain ends, a reset falls due. nullopt: never.
  [[nodiscard]] std::optional<std::uint64_t> deadline_ns() const { return deadline_ns_; }

  // In force since the last settle(); nullptr before the first.
  [[nodiscard]] const std::shared_ptr<const Snapshot>& snapshot() const { return snapshot_; }

 private:
  void set_paths(const cp::Config& config);
  void judge(const cp::TargetKey& key, bool healthy, std::uint64_t at_ns);
  tl::expected<void, std::string> publish();

  std::uint32_t mtu_bytes_;
  std::set<TargetAddress> unhealthy_;
  cp::Roster::FlowsOf flows_of_;
  cp::Roster roster_;
  cp::Compiler compiler_;
  std::uint64_t generation_ = 0;
  std::optional<std::uint64_t> deadline_ns_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::map<std::uint64_t, SegmentBytes> segments_;  // of the snapshot in force, by id: verified once
};

}  // namespace lb::replay
