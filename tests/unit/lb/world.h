// A snapshot, made by hand, for tests and benchmarks of the packet path: small enough to be changed field by field, and
// independent of cp/snapshot. Slots are dealt round-robin (slot i → target i mod n), so that a test knows them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "dp/abi/fingerprint.h"
#include "dp/abi/snapshot.h"
#include "dp/base/segment_checksum.h"
#include "dp/lb/snapshot.h"

namespace lb::test {

// Bytes that start on a cache line, as mapped memory does.
class AlignedBytes {
 public:
  explicit AlignedBytes(std::size_t size)
      : data_(static_cast<std::byte*>(::operator new (size, std::align_val_t{64})),
              [](std::byte* p) { ::operator delete (p, std::align_val_t{64}); }),
        size_(size) {
    std::memset(data_.get(), 0, size);
  }
  [[nodiscard]] std::byte* data() const { return data_.get(); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_.get(), size_}; }
  [[nodiscard]] SegmentBytes segment() const { return SegmentBytes{bytes(), data_}; }
  template <typename T>
  [[nodiscard]] T& at(std::size_t offset) const {
    return *reinterpret_cast<T*>(data_.get() + offset);
  }

 private:
  std::shared_ptr<std::byte> data_;
  std::size_t size_;
};

inline void seal(const AlignedBytes& segment) {
  auto& header = segment.at<abi::SegmentHeader>(0);
  header.layout_fingerprint = abi::snapshot_fingerprint();
  header.size_bytes = segment.size();
  header.checksum = segment_checksum(segment.bytes());
}

struct World {
  std::uint64_t fleet_seed = 1;
  abi::Generation generation{1, 1};
  std::vector<abi::Vip> vips;
  std::vector<abi::Listener> listeners;
  std::vector<abi::RateLimits> rate_limits;
  std::vector<abi::TargetGroup> groups;
  std::vector<abi::Target> targets;
  std::vector<abi::Port> ports;
  std::vector<abi::QuicMap> quic_maps;
  std::vector<abi::QuicConfig> quic_configs;
  std::vector<abi::QuicServer> quic_servers;
  abi::TunnelSource tunnel_v4{.prefix = abi::IpAddress::v4(100, 64, 0, 0), .prefix_length = 120, .present = 1};
  abi::TunnelSource tunnel_v6{.prefix = {{0xfc, 0, 0, 0, 0, 0, 0, 1}}, .prefix_length = 64, .present = 1};

  World() {
    for (const char* name : {"eth0", "eth1"}) {
      abi::Port port;
      std::strncpy(port.name, name, sizeof port.name - 1);
      ports.push_back(port);
    }
  }

  std::uint32_t add_vip(const abi::IpAddress& address) {
    vips.push_back({.address = address});
    return static_cast<std::uint32_t>(vips.size() - 1);
  }

  std::uint32_t add_group(abi::ForwardingMode mode, std::uint32_t slot_count = 101,
                          abi::Stickiness stickiness = abi::Stickiness::five_tuple) {
    abi::TargetGroup group;
    group.mode = mode;
    group.slot_count = slot_count;
    group.stickiness = stickiness;
    groups.push_back(group);
    return static_cast<std::uint32_t>(groups.size() - 1);
  }

  // Live, resolved, in rotation. Change the returned target's fields through targets[id].
  std::uint32_t add_target(std::uint32_t group, const abi::IpAddress& address) {
    abi::Target target;
    const auto id = static_cast<std::uint32_t>(targets.size());
    target.address = address;
    target.identity = 0x1000 + id;
    target.group = group;
    target.port = 80;
    target.weight = 1;
    target.flags = abi::kTargetLive | abi::kTargetResolved;
    target.state = abi::TargetState::healthy;
    target.mode = groups[group].mode;
    target.tunnel_word = target.mode == abi::ForwardingMode::gue ? abi::kGuePort : 0;
    target.out_port = 1;
    target.mtu_bytes = 1600;
    target.next_hop_mac = {2, 0, 0, 0, static_cast<std::uint8_t>(id >> 8), static_cast<std::uint8_t>(id)};
    target.source_mac = {2, 0, 0, 0, 0xff, 1};
    targets.push_back(target);
    return id;
  }

  std::uint32_t add_listener(std::uint32_t vip, abi::Protocol protocol, std::uint16_t first_port, std::uint16_t last_port,
                             const std::vector<std::pair<std::uint32_t, std::uint32_t>>& weighted_groups) {
    abi::Listener listener;
    listener.vip = vip;
    listener.protocol = static_cast<std::uint8_t>(protocol);
    listener.first_port = first_port;
    listener.last_port = last_port;
    listener.counter_index = static_cast<std::uint32_t>(listeners.size());
    for (const auto& [group, weight] : weighted_groups) {
      listener.total_weight += weight;
      listener.groups[listener.group_count++] = {group, listener.total_weight};
    }
    listeners.push_back(listener);
    return static_cast<std::uint32_t>(listeners.size() - 1);
  }

  // For a listener that has been added.
  void limit(std::uint32_t listener, const abi::RateLimits& limits) {
    listeners[listener].guards |= abi::kGuardRates;
    listeners[listener].rate_limits = static_cast<std::uint32_t>(rate_limits.size());
    rate_limits.push_back(limits);
  }

  // Takes part in its group's slots: live, and not marked as taking no new flows.
  [[nodiscard]] static bool in_rotation(const abi::Target& target) {
    return (target.flags & abi::kTargetLive) != 0 && (target.flags & abi::kTargetNoNewFlows) == 0;
  }
};

// The bytes of a World: a root and one segment with all slots.
struct WorldBytes {
  AlignedBytes root;
  AlignedBytes slots;

  [[nodiscard]] tl::expected<std::shared_ptr<const Snapshot>, SnapshotError> open() const {
    SegmentBytes segment = slots.segment();
    return Snapshot::open(root.segment(), [&](std::uint64_t id) { return id == 7 ? &segment : nullptr; });
  }
};

namespace detail {

inline std::size_t aligned(std::size_t size) {
  return (size + 63) / 64 * 64;
}

class RootWriter {
 public:
  RootWriter() : bytes_(aligned(sizeof(abi::Root))) {}

  template <typename T>
  abi::Table add(const std::vector<T>& table) {
    const abi::Table where{bytes_.size(), static_cast<std::uint32_t>(table.size())};
    bytes_.resize(aligned(bytes_.size() + table.size() * sizeof(T)));
    if (!table.empty()) std::memcpy(bytes_.data() + where.offset, table.data(), table.size() * sizeof(T));
    return where;
  }

  [[nodiscard]] AlignedBytes finish(const abi::Root& root) const {
    AlignedBytes out(bytes_.size());
    std::memcpy(out.data(), bytes_.data(), bytes_.size());
    std::memcpy(out.data(), &root, sizeof root);
    seal(out);
    return out;
  }

 private:
  std::vector<std::byte> bytes_;
};

inline void put_cell(std::vector<abi::VipCell>& table, const abi::VipCell& cell) {
  std::size_t i = abi::vip_table_hash(cell.address, cell.protocol, cell.port);
  while (table[i & (table.size() - 1)].kind != abi::VipCellKind::empty) ++i;
  table[i & (table.size() - 1)] = cell;
}

inline std::vector<abi::VipCell> make_vip_table(const World& world, std::vector<std::uint32_t>& range_listeners) {
  std::size_t cells = 4;
  while (cells < 2 * (world.vips.size() + world.listeners.size())) cells *= 2;
  std::vector<abi::VipCell> table(cells);
  for (std::uint32_t v = 0; v < world.vips.size(); ++v) {
    put_cell(table, {.address = world.vips[v].address, .kind = abi::VipCellKind::vip, .index = v});
    for (const auto protocol : {abi::Protocol::tcp, abi::Protocol::udp}) {
      const auto first = static_cast<std::uint32_t>(range_listeners.size());
      for (std::uint32_t l = 0; l < world.listeners.size(); ++l) {
        const abi::Listener& listener = world.listeners[l];
        if (listener.vip == v && listener.protocol == static_cast<std::uint8_t>(protocol) &&
            listener.first_port != listener.last_port) {
          range_listeners.push_back(l);
        }
      }
      const auto count = static_cast<std::uint32_t>(range_listeners.size()) - first;
      std::sort(range_listeners.begin() + first, range_listeners.end(), [&](std::uint32_t a, std::uint32_t b) {
        return world.listeners[a].last_port - world.listeners[a].first_port <
               world.listeners[b].last_port - world.listeners[b].first_port;
      });
      if (count != 0) {
        put_cell(table, {.address = world.vips[v].address,
                         .protocol = static_cast<std::uint8_t>(protocol),
                         .kind = abi::VipCellKind::ranges,
                         .index = first,
                         .count = count});
      }
    }
  }
  for (std::uint32_t l = 0; l < world.listeners.size(); ++l) {
    const abi::Listener& listener = world.listeners[l];
    if (listener.first_port != listener.last_port) continue;
    put_cell(table, {.address = world.vips[listener.vip].address,
                     .port = listener.first_port,
                     .protocol = listener.protocol,
                     .kind = abi::VipCellKind::exact,
                     .index = l,
                     .first_group = abi::first_group_of(listener),
                     .counter_index = static_cast<std::uint16_t>(listener.counter_index)});
  }
  return table;
}

}  // namespace detail

inline WorldBytes make_bytes(const World& world) {
  std::vector<abi::TargetGroup> groups = world.groups;
  std::vector<std::uint32_t> group_targets;
  std::vector<std::uint16_t> slots;
  for (std::uint32_t g = 0; g < groups.size(); ++g) {
    abi::TargetGroup& group = groups[g];
    group.first_target = static_cast<std::uint32_t>(group_targets.size());
    for (std::uint32_t id = 0; id < world.targets.size(); ++id) {
      if (world.targets[id].group == g && World::in_rotation(world.targets[id])) group_targets.push_back(id);
    }
    group.target_count = static_cast<std::uint32_t>(group_targets.size()) - group.first_target;
    if (group.target_count == 0) group.slot_count = 0;
    group.segment = group.slot_count == 0 ? abi::kNoIndex : 0;
    group.slots_offset = sizeof(abi::SegmentHeader) + slots.size() * 2;
    for (std::uint32_t s = 0; s < group.slot_count; ++s) slots.push_back(static_cast<std::uint16_t>(s % group.target_count));
    slots.resize((slots.size() + 31) / 32 * 32);
  }
  AlignedBytes segment(sizeof(abi::SegmentHeader) + slots.size() * 2);
  segment.at<abi::SegmentHeader>(0) = {.kind = abi::SegmentKind::groups, .segment_id = 7};
  if (!slots.empty()) std::memcpy(segment.data() + sizeof(abi::SegmentHeader), slots.data(), slots.size() * 2);
  seal(segment);

  std::vector<std::uint32_t> range_listeners;
  const std::vector<abi::VipCell> vip_table = detail::make_vip_table(world, range_listeners);
  const auto& header = segment.at<abi::SegmentHeader>(0);
  detail::RootWriter writer;
  abi::Root root;
  root.generation = world.generation;
  root.fleet_seed = world.fleet_seed;
  root.segments = writer.add(std::vector<abi::SegmentEntry>{{header.segment_id, header.size_bytes, header.checksum}});
  root.vip_table = writer.add(vip_table);
  root.vips = writer.add(world.vips);
  root.range_listeners = writer.add(range_listeners);
  root.listeners = writer.add(world.listeners);
  root.rate_limits = writer.add(world.rate_limits);
  if (std::ranges::any_of(world.rate_limits, abi::limits_packets)) root.hygiene |= abi::kHygieneRates;
  root.groups = writer.add(groups);
  root.group_targets = writer.add(group_targets);
  root.targets = writer.add(world.targets);
  root.ports = writer.add(world.ports);
  root.quic_maps = writer.add(world.quic_maps);
  root.quic_configs = writer.add(world.quic_configs);
  root.quic_servers = writer.add(world.quic_servers);
  root.names = writer.add(std::vector<char>{'n', 'a', 'm', 'e', 's'});
  root.tunnel_source_v4 = world.tunnel_v4;
  root.tunnel_source_v6 = world.tunnel_v6;
  return {writer.finish(root), segment};
}

// Throws what the verifier said if it refuses.
inline std::shared_ptr<const Snapshot> make_snapshot(const World& world) {
  auto snapshot = make_bytes(world).open();
  if (!snapshot) throw std::runtime_error(snapshot.error().text);
  return *snapshot;
}

}  // namespace lb::test
