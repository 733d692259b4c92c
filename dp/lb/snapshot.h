// A verified, read-only view of a snapshot's bytes (dp/abi/snapshot.h). The bytes are hostile until open() has accepted
// them: it checks magic, version, fingerprint, sizes, checksums, that every table lies inside the root, that every index,
// slot, enumerator and offset is in range, that probe chains end and shares add up. After that, accessors do not check.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <unordered_map>
#include <vector>

#include "dp/abi/control.h"
#include "dp/abi/rates.h"
#include "dp/abi/security.h"
#include "dp/abi/snapshot.h"
#include "dp/lb/flow_hash.h"

namespace lb {

struct SnapshotError {
  abi::Refusal refusal = abi::Refusal::none;
  std::string text;  // which table, index and value
};

// Bytes of one segment and whatever keeps them mapped. The bytes start at a multiple of 64 and never change.
struct SegmentBytes {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
  bool verified = false;  // open() sets it: header and checksum of a segment shared by generations are checked once
  // Largest slot value of the tables seen so far, by (offset, slot count): kept by open(), so that a generation that shares
  // this segment need not read its slots again.
  std::unordered_map<std::uint64_t, std::uint16_t> largest_slot = {};
  bool security_verified = false;  // open() sets it: so are the tables of security groups
};

// The tables of security groups (dp/abi/security.h); empty where no listener has one.
struct SecurityView {
  std::span<const abi::SecurityGroup> groups;
  std::span<const abi::PrefixNode> nodes;
  std::span<const std::uint32_t> leaves;
  std::span<const abi::SecurityRule> rules;
  std::span<const char> names;

  [[nodiscard]] std::string_view name(abi::Name name) const { return {names.data() + name.offset, name.length}; }
};

// How servers are read from QUIC connection IDs (dp/abi/quic.h); empty where no group has a `quic` block.
struct QuicView {
  std::span<const abi::QuicMap> maps;
  std::span<const abi::QuicConfig> configs;
  std::span<const abi::QuicServer> servers;
  std::vector<std::array<std::array<std::uint8_t, 16>, 11>> round_keys;  // by config; unused where there is no key
};

class Snapshot {
 public:
  // Returns the bytes of the segment with this id, or nullptr (→ missing_segment). The pointee outlives open().
  using SegmentResolver = std::function<SegmentBytes*(std::uint64_t segment_id)>;

  // Verifies everything; the returned view keeps root and segments alive. Thread: any; touches every page once.
  static tl::expected<std::shared_ptr<const Snapshot>, SnapshotError> open(SegmentBytes root,
                                                                           const SegmentResolver& segments);

  // The segment ids a root names, after checking only the root itself. Errors as open().
  static tl::expected<std::vector<std::uint64_t>, SnapshotError> segment_ids(std::span<const std::byte> root);

  [[nodiscard]] const abi::Root& root() const { return *root_; }
  [[nodiscard]] abi::Generation generation() const { return root_->generation; }
  [[nodiscard]] std::span<const abi::VipCell> vip_table() const { return vip_table_; }
  [[nodiscard]] std::span<const abi::Vip> vips() const { return vips_; }
  [[nodiscard]] std::span<const std::uint32_t> range_listeners() const { return range_listeners_; }
  [[nodiscard]] std::span<const abi::Listener> listeners() const { return listeners_; }
  [[nodiscard]] std::span<const abi::TargetGroup> groups() const { return groups_; }
  [[nodiscard]] std::span<const std::uint32_t> group_targets() const { return group_targets_; }
  [[nodiscard]] std::span<const abi::Target> targets() const { return targets_; }
  [[nodiscard]] std::span<const abi::Port> ports() const { return ports_; }
  // Sources of fullnat flows, a group's from first_snat on; empty where no group is fullnat.
  [[nodiscard]] std::span<const abi::IpAddress> snat_addresses() const { return snat_addresses_; }
  // Sources of nat targets' replies (Root::return_table); empty where no group is nat.
  [[nodiscard]] std::span<const abi::VipCell> return_table() const { return return_table_; }
  [[nodiscard]] std::span<const std::uint32_t> return_listeners() const { return return_listeners_; }
  // Listeners for all IP traffic (dp/lb/gateway.h), indices into listeners(); empty where no group is geneve.
  [[nodiscard]] std::span<const std::uint32_t> gateway_listeners() const { return gateway_listeners_; }
  [[nodiscard]] std::span<const abi::VipCell> route_table() const { return route_table_; }
  [[nodiscard]] std::span<const abi::RouteNextHop> route_next_hops() const { return route_next_hops_; }
  [[nodiscard]] std::span<const abi::Gateway> gateways() const { return gateways_; }
  // First slot of a group's Maglev table; nullptr when slot_count is 0.
  [[nodiscard]] const std::uint16_t* slots(std::uint32_t group) const { return slots_[group]; }
  [[nodiscard]] const SecurityView& security() const { return security_; }
  [[nodiscard]] const QuicView& quic() const { return quic_; }
  [[nodiscard]] std::span<const abi::RateLimits> rate_limits() const { return rate_limits_; }
  // Whether some live target is to lose its tracked flows (TrackedFlows other than keep): the sweep then looks at all.
  [[nodiscard]] bool forgets_flows() const { return forgets_flows_; }
  // Keys of the hash that picks group and slot, from the fleet seed.
  [[nodiscard]] const HashKeys& slot_keys() const { return slot_keys_; }
  [[nodiscard]] std::string_view name(abi::Name name) const { return {names_ + name.offset, name.length}; }

 private:
  Snapshot() = default;
  friend class SnapshotVerifier;

  const abi::Root* root_ = nullptr;
  const char* names_ = nullptr;
  std::span<const abi::VipCell> vip_table_;
  std::span<const abi::Vip> vips_;
  std::span<const std::uint32_t> range_listeners_;
  std::span<const abi::Listener> listeners_;
  std::span<const abi::TargetGroup> groups_;
  std::span<const std::uint32_t> group_targets_;
  std::span<const abi::Target> targets_;
  std::span<const abi::Port> ports_;
  std::span<const abi::IpAddress> snat_addresses_;
  std::span<const abi::VipCell> return_table_;
  std::span<const std::uint32_t> return_listeners_;
  std::vector<std::uint32_t> gateway_listeners_;
  std::span<const abi::VipCell> route_table_;
  std::span<const abi::RouteNextHop> route_next_hops_;
  std::span<const abi::Gateway> gateways_;
  std::vector<const std::uint16_t*> slots_;
  SecurityView security_;
  QuicView quic_;
  std::span<const abi::RateLimits> rate_limits_;
  HashKeys slot_keys_;
  bool forgets_flows_ = false;
  std::vector<std::shared_ptr<const void>> owners_;
};

}  // namespace lb
