#include "dp/lb/snapshot.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdarg>
#include <cstdio>

#include "dp/abi/fingerprint.h"
#include "dp/base/segment_checksum.h"
#include "dp/lb/snapshot_checks.h"
#include "dp/lb/snapshot_guards.h"
#include "dp/lb/snapshot_quic.h"
#include "dp/lb/snapshot_security.h"

namespace lb {
namespace {

// Idle timeouts live in the flow table as 16-bit ticks of 250 ms, and an expired entry may stay for as long again.
constexpr std::uint32_t kMinIdleTimeoutS = 10;
constexpr std::uint32_t kMaxIdleTimeoutS = 7200;
constexpr std::uint16_t kMinMtuBytes = 68;  // RFC 791

// Magic, version, kind, fingerprint, size and alignment; the checksum apart, since it reads every byte.
Check check_header(std::span<const std::byte> bytes, abi::SegmentKind kind, const char* what) {
  const std::size_t smallest = kind == abi::SegmentKind::root ? sizeof(abi::Root) : sizeof(abi::SegmentHeader);
  if (bytes.size() < smallest || bytes.size() > abi::kMaxSegmentBytes) {
    return refuse(abi::Refusal::size, "%s has %llu bytes, needs %llu to %llu", what, print(bytes.size()), print(smallest),
                  print(abi::kMaxSegmentBytes));
  }
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % abi::kCacheLineBytes != 0) {
    return refuse(kBounds, "%s does not start on a cache line", what);
  }
  const auto& header = *reinterpret_cast<const abi::SegmentHeader*>(bytes.data());
  if (header.magic != abi::kSnapshotMagic) {
    return refuse(abi::Refusal::magic, "%s: magic %016llx, want %016llx", what, print(header.magic),
                  print(abi::kSnapshotMagic));
  }
  if (header.version != abi::kSnapshotVersion) {
    return refuse(abi::Refusal::version, "%s: version %u, this build reads %u", what, header.version, abi::kSnapshotVersion);
  }
  if (header.layout_fingerprint != abi::snapshot_fingerprint()) {
    return refuse(abi::Refusal::fingerprint, "%s: layout fingerprint %016llx, this build has %016llx", what,
                  print(header.layout_fingerprint), print(abi::snapshot_fingerprint()));
  }
  if (header.size_bytes != bytes.size()) {
    return refuse(abi::Refusal::size, "%s: header says %llu bytes, there are %llu", what, print(header.size_bytes),
                  print(bytes.size()));
  }
  if (header.kind != kind) {
    return refuse(kBounds, "%s: kind %u, want %u", what, static_cast<unsigned>(header.kind), static_cast<unsigned>(kind));
  }
  return {};
}

Check check_checksum(std::span<const std::byte> bytes, const char* what) {
  const std::uint64_t want = reinterpret_cast<const abi::SegmentHeader*>(bytes.data())->checksum;
  const std::uint64_t have = segment_checksum(bytes);
  if (have == want) return {};
  return refuse(abi::Refusal::checksum, "%s: checksum %016llx, bytes give %016llx", what, print(want), print(have));
}

std::uint16_t largest_of(std::span<const std::uint16_t> slots) {
  // Many maxima side by side, which compilers make vectors of: this reads every slot of every new table.
  std::array<std::uint16_t, 32> largest{};
  for (; slots.size() >= largest.size(); slots = slots.subspan(largest.size())) {
    const std::uint16_t* const at = slots.data();
    for (std::size_t i = 0; i < largest.size(); ++i) largest[i] = at[i] > largest[i] ? at[i] : largest[i];
  }
  std::uint16_t most = *std::max_element(largest.begin(), largest.end());
  for (const std::uint16_t slot : slots) most = std::max(most, slot);
  return most;
}

}  // namespace

// One check per table; each names table, index and value.
class SnapshotVerifier {
 public:
  explicit SnapshotVerifier(SegmentBytes root)
      : bytes_(root.bytes), out_(new Snapshot()), root_(reinterpret_cast<const abi::Root*>(bytes_.data())) {
    out_->owners_.push_back(std::move(root.owner));
  }

  tl::expected<std::shared_ptr<const Snapshot>, SnapshotError> run(const Snapshot::SegmentResolver& segments) {
    const Check checks = check_header(bytes_, abi::SegmentKind::root, "root")
                             .and_then([&] { return check_checksum(bytes_, "root"); })
                             .and_then([&] { return tables(); })
                             .and_then([&] { return vips(); })
                             .and_then([&] { return listeners(); })
                             .and_then([&] { return range_listeners(); })
                             .and_then([&] { return vip_table(); })
                             .and_then([&] { return return_table(); })
                             .and_then([&] { return ports_and_sources(); })
                             .and_then([&] { return gateways(); })
                             .and_then([&] { return routes(); })
                             .and_then([&] { return targets(); })
                             .and_then([&] { return groups(); })
                             .and_then([&] { return verify_quic(bytes_, *out_, out_->quic_); })
                             .and_then([&] { return segments_and_slots(segments); })
                             .and_then([&] { return security_groups(); });
    if (!checks) return tl::unexpected(checks.error());
    out_->slot_keys_ = make_hash_keys(root_->fleet_seed);
    return out_;
  }

 private:
  Check tables() {
    out_->root_ = root_;
    return take(out_->vip_table_, root_->vip_table, 1U << 31, "vip_table")
        .and_then([&] { return take(out_->vips_, root_->vips, abi::kMaxListeners, "vips"); })
        .and_then([&] { return take(out_->range_listeners_, root_->range_listeners, 1U << 24, "range_listeners"); })
        .and_then([&] { return take(out_->listeners_, root_->listeners, abi::kMaxListeners, "listeners"); })
        .and_then([&] { return take(out_->groups_, root_->groups, abi::kMaxGroups, "groups"); })
        .and_then([&] { return take(out_->group_targets_, root_->group_targets, 1U << 24, "group_targets"); })
        .and_then([&] { return take(out_->targets_, root_->targets, abi::kMaxTargets, "targets"); })
        .and_then([&] { return take(out_->ports_, root_->ports, abi::kMaxPorts, "ports"); })
        .and_then([&] { return take(out_->return_table_, root_->return_table, 1U << 31, "return_table"); })
        .and_then([&] { return take(out_->return_listeners_, root_->return_listeners, 1U << 24, "return_listeners"); })
        .and_then([&] { return take(out_->snat_addresses_, root_->snat_addresses, 1U << 24, "snat_addresses"); })
        .and_then([&] { return take(out_->route_table_, root_->route_table, 1U << 24, "route_table"); })
        .and_then([&] { return take(out_->route_next_hops_, root_->route_next_hops, 1U << 24, "route_next_hops"); })
        .and_then([&] { return take(out_->gateways_, root_->gateways, abi::kMaxGroups, "gateways"); })
        .and_then([&] { return take(out_->rate_limits_, root_->rate_limits, abi::kMaxRateLimits, "rate_limits"); })
        .and_then([&] { return take(names_, root_->names, 0xffffffff, "names"); })
        .and_then([&] { return take(segments_, root_->segments, abi::kMaxSegments, "segments"); })
        .and_then([&]() -> Check {
          out_->names_ = names_.data();
          return {};
        });
  }

  template <typename T>
  Check take(std::span<const T>& to, const abi::Table& table, std::uint64_t most, const char* what) {
    auto found = table_of<T>(bytes_, table, most, what);
    if (!found) return tl::unexpected(found.error());
    to = *found;
    return {};
  }

  [[nodiscard]] Check name(const abi::Name& name, const char* what, std::size_t index) const {
    if (name.offset <= names_.size() && name.length <= names_.size() - name.offset) return {};
    return refuse(kBounds, "%s[%zu]: name at %u with %u bytes leaves the %zu bytes of names", what, index, name.offset,
                  name.length, names_.size());
  }

  [[nodiscard]] Check vips() const {
    for (std::size_t i = 0; i < out_->vips_.size(); ++i) {
      const abi::Vip& vip = out_->vips_[i];
      if (auto ok = name(vip.name, "vips", i); !ok) return ok;
      if (vip.prefix_length < 1 || vip.prefix_length > 128) {
        return refuse(kBounds, "vips[%zu]: prefix length %u", i, vip.prefix_length);
      }
      if (abi::masked(vip.address, vip.prefix_length) != vip.address) {
        return refuse(kBounds, "vips[%zu]: bits behind the prefix length %u", i, vip.prefix_length);
      }
    }
    return {};
  }

  [[nodiscard]] Check listeners() const {
    for (std::size_t i = 0; i < out_->listeners_.size(); ++i) {
      const abi::Listener& listener = out_->listeners_[i];
      const bool of_port = listener.protocol == abi::kAllProtocols && listener.vip == abi::kNoIndex;
      if (!of_port && listener.vip >= out_->vips_.size()) return refuse(kBounds, "listeners[%zu]: vip %u", i, listener.vip);
      if (listener.first_port > listener.last_port) {
        return refuse(kBounds, "listeners[%zu]: ports %u-%u", i, listener.first_port, listener.last_port);
      }
      if (!is_l4(listener.protocol) && listener.protocol != abi::kAllProtocols)
        return refuse(kBounds, "listeners[%zu]: protocol %u", i, listener.protocol);
      if (listener.draining > 1) return refuse(kBounds, "listeners[%zu]: draining %u", i, listener.draining);
      if (listener.counter_index >= abi::kMaxListeners) {
        return refuse(kBounds, "listeners[%zu]: counter_index %u", i, listener.counter_index);
      }
      if (auto ok = name(listener.name, "listeners", i).and_then([&] { return shares(listener, i); }); !ok) return ok;
    }
    return {};
  }

  [[nodiscard]] Check shares(const abi::Listener& listener, std::size_t index) const {
    if (listener.group_count < 1 || listener.group_count > abi::kMaxGroupsPerListener) {
      return refuse(kBounds, "listeners[%zu]: %u groups", index, listener.group_count);
    }
    std::uint32_t sum = 0;
    for (std::size_t g = 0; g < listener.group_count; ++g) {
      const abi::ListenerGroup& share = listener.groups[g];
      if (share.group >= out_->groups_.size()) {
        return refuse(kBounds, "listeners[%zu].groups[%zu]: group %u of %zu", index, g, share.group, out_->groups_.size());
      }
      if (share.cumulative_weight < sum) {
        return refuse(kBounds, "listeners[%zu].groups[%zu]: cumulative weight %u after %u", index, g,
                      share.cumulative_weight, sum);
      }
      sum = share.cumulative_weight;
    }
    if (sum == listener.total_weight) return {};
    return refuse(kBounds, "listeners[%zu]: total_weight %u, shares add up to %u", index, listener.total_weight, sum);
  }

  [[nodiscard]] Check range_listeners() const {
    for (std::size_t i = 0; i < out_->range_listeners_.size(); ++i) {
      if (out_->range_listeners_[i] >= out_->listeners_.size()) {
        return refuse(kBounds, "range_listeners[%zu]: listener %u of %zu", i, out_->range_listeners_[i],
                      out_->listeners_.size());
      }
    }
    return {};
  }

  // Every cell on its own, then the table as a whole: at most half used, and no empty cell between a key's first cell and
  // the one it stands in, or a lookup would not find it.
  [[nodiscard]] Check vip_table() const {
    const auto table = out_->vip_table_;
    for (std::size_t i = 0; i < table.size(); ++i) {
      if (auto ok = vip_cell(table[i], i); !ok) return ok;
    }
    return probes(table, "vip_table");
  }

  // Replies of nat targets are looked for among listeners of one port.
  [[nodiscard]] Check return_table() const {
    const auto table = out_->return_table_;
    const auto all = out_->return_listeners_;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (all[i] >= out_->listeners_.size()) return refuse(kBounds, "return_listeners[%zu]: listener %u", i, all[i]);
      const abi::Listener& listener = out_->listeners_[all[i]];
      if (!is_l4(listener.protocol) || listener.first_port != listener.last_port ||
          out_->vips_[listener.vip].prefix_length != 128) {
        return refuse(kBounds, "return_listeners[%zu]: ports %u-%u, or a VIP that is a prefix", i, listener.first_port,
                      listener.last_port);
      }
    }
    for (std::size_t i = 0; i < table.size(); ++i) {
      const abi::VipCell& cell = table[i];
      if (cell.kind == abi::VipCellKind::empty) continue;
      if (cell.kind != abi::VipCellKind::ranges || cell.index > all.size() || cell.count > all.size() - cell.index) {
        return refuse(kBounds, "return_table[%zu]: kind %u, return_listeners %u with %u of %zu", i,
                      static_cast<unsigned>(cell.kind), cell.index, cell.count, all.size());
      }
      for (const std::uint32_t listener : all.subspan(cell.index, cell.count)) {
        if (out_->listeners_[listener].protocol == cell.protocol) continue;
        return refuse(kBounds, "return_table[%zu]: protocol differs from listener %u", i, listener);
      }
    }
    return table.empty() ? Check{} : probes(table, "return_table");
  }

  [[nodiscard]] static Check probes(std::span<const abi::VipCell> table, const char* what) {
    if (table.size() < 2 || !std::has_single_bit(table.size())) {
      return refuse(kBounds, "%s: %zu cells, not a power of two of at least 2", what, table.size());
    }
    std::size_t used = 0;
    std::size_t first_empty = table.size();
    for (std::size_t i = 0; i < table.size(); ++i) {
      if (table[i].kind != abi::VipCellKind::empty)
        ++used;
      else if (first_empty == table.size())
        first_empty = i;
    }
    if (used > table.size() / 2) return refuse(kBounds, "%s: %zu of %zu cells used", what, used, table.size());
    const std::size_t mask = table.size() - 1;
    for (std::size_t n = 1, run = 0; n < table.size(); ++n) {  // `run`: used cells before this one without a gap
      const std::size_t i = (first_empty + n) & mask;
      const abi::VipCell& cell = table[i];
      if (cell.kind == abi::VipCellKind::empty) {
        run = 0;
        continue;
      }
      const std::size_t distance = (i - abi::vip_table_hash(cell.address, cell.protocol, cell.port)) & mask;
      if (distance > run) return refuse(kBounds, "%s[%zu]: a lookup would not reach this cell", what, i);
      ++run;
    }
    return {};
  }

  [[nodiscard]] Check vip_cell(const abi::VipCell& cell, std::size_t i) const {
    switch (cell.kind) {
      case abi::VipCellKind::empty: return {};
      case abi::VipCellKind::exact:
      case abi::VipCellKind::prefix_exact:
        if (cell.index >= out_->listeners_.size()) return refuse(kBounds, "vip_table[%zu]: listener %u", i, cell.index);
        if (cell.port < out_->listeners_[cell.index].first_port || cell.port > out_->listeners_[cell.index].last_port) {
          return refuse(kBounds, "vip_table[%zu]: port %u is not of listener %u", i, cell.port, cell.index);
        }
        if (cell.first_group != abi::first_group_of(out_->listeners_[cell.index]) ||
            cell.counter_index != out_->listeners_[cell.index].counter_index) {
          return refuse(kBounds, "vip_table[%zu]: group or counters differ from listener %u", i, cell.index);
        }
        return of_listener(cell, cell.index, i);
      case abi::VipCellKind::ranges:
      case abi::VipCellKind::prefix_ranges: {
        const auto all = out_->range_listeners_;
        if (cell.port != 0) return refuse(kBounds, "vip_table[%zu]: port %u in a cell of ranges", i, cell.port);
        if (cell.index > all.size() || cell.count > all.size() - cell.index) {
          return refuse(kBounds, "vip_table[%zu]: range_listeners %u with %u of %zu", i, cell.index, cell.count, all.size());
        }
        for (const std::uint32_t listener : all.subspan(cell.index, cell.count)) {
          if (auto ok = of_listener(cell, listener, i); !ok) return ok;
        }
        return {};
      }
      case abi::VipCellKind::vip:
        if (cell.port != 0 || cell.protocol != 0)
          return refuse(kBounds, "vip_table[%zu]: a vip cell with port or protocol", i);
        return of_vip(cell, 128, i);
      case abi::VipCellKind::prefix: {
        const std::uint32_t length = cell.port;
        if (cell.protocol != 0 || length > 127 || (root_->vip_prefix_lengths[length / 64] >> length % 64 & 1) == 0) {
          return refuse(kBounds, "vip_table[%zu]: a prefix cell with protocol %u or length %u", i, cell.protocol, length);
        }
        return of_vip(cell, length, i);
      }
    }
    return refuse(kBounds, "vip_table[%zu]: kind %u", i, static_cast<unsigned>(cell.kind));
  }

  [[nodiscard]] Check of_vip(const abi::VipCell& cell, std::uint32_t length, std::size_t i) const {
    if (cell.index < out_->vips_.size() && out_->vips_[cell.index].address == cell.address &&
        out_->vips_[cell.index].prefix_length == length) {
      return {};
    }
    return refuse(kBounds, "vip_table[%zu]: not the address of vip %u", i, cell.index);
  }

  [[nodiscard]] Check of_listener(const abi::VipCell& cell, std::uint32_t index, std::size_t i) const {
    const abi::Listener& listener = out_->listeners_[index];
    if (!is_l4(listener.protocol)) return refuse(kBounds, "vip_table[%zu]: listener %u has no ports", i, index);
    const abi::Vip& vip = out_->vips_[listener.vip];
    const bool of_prefix = cell.kind == abi::VipCellKind::prefix_exact || cell.kind == abi::VipCellKind::prefix_ranges;
    const bool same = of_prefix ? cell.address == abi::prefix_vip_key(listener.vip) : cell.address == vip.address;
    if (cell.protocol == listener.protocol && same && of_prefix == (vip.prefix_length < 128)) return {};
    return refuse(kBounds, "vip_table[%zu]: address or protocol differ from listener %u", i, index);
  }

  [[nodiscard]] Check ports_and_sources() const {
    for (std::size_t i = 0; i < out_->ports_.size(); ++i) {
      const std::string_view text(out_->ports_[i].name, sizeof out_->ports_[i].name);
      if (text.find('\0') == std::string_view::npos) return refuse(kBounds, "ports[%zu]: name does not end", i);
    }
    if (root_->hygiene > abi::kHygieneAll) return refuse(kBounds, "hygiene: %x", root_->hygiene);
    if (auto ok = tunnel_source(root_->tunnel_source_v4, true, "tunnel_source_v4"); !ok) return ok;
    return tunnel_source(root_->tunnel_source_v6, false, "tunnel_source_v6");
  }

  [[nodiscard]] static Check tunnel_source(const abi::TunnelSource& source, bool v4, const char* what) {
    if (source.present > 1) return refuse(kBounds, "%s: present %u", what, source.present);
    if (source.present == 0) return {};
    if (source.prefix_length > 128 || (v4 && source.prefix_length < 96)) {
      return refuse(kBounds, "%s: prefix length %u", what, source.prefix_length);
    }
    if (source.prefix.is_v4() != v4) return refuse(kBounds, "%s: address of the other family", what);
    return {};
  }

  // Who takes all IP traffic of a VIP or a port.
  [[nodiscard]] Check gateways() {
    const auto listeners = out_->listeners_;
    for (std::size_t i = 0; i < listeners.size(); ++i) {
      if (listeners[i].protocol == abi::kAllProtocols) out_->gateway_listeners_.push_back(static_cast<std::uint32_t>(i));
    }
    const auto is_gateway = [&](std::uint32_t index) {
      return index == abi::kNoIndex || (index < listeners.size() && listeners[index].protocol == abi::kAllProtocols);
    };
    for (std::size_t i = 0; i < out_->vips_.size(); ++i) {
      if (!is_gateway(out_->vips_[i].gateway)) return refuse(kBounds, "vips[%zu]: gateway %u", i, out_->vips_[i].gateway);
    }
    for (std::size_t i = 0; i < out_->ports_.size(); ++i) {
      if (!is_gateway(out_->ports_[i].gateway)) return refuse(kBounds, "ports[%zu]: gateway %u", i, out_->ports_[i].gateway);
    }
    return {};
  }

  [[nodiscard]] Check routes() const {
    const auto hops = out_->route_next_hops_;
    for (std::size_t i = 0; i < hops.size(); ++i) {
      if (hops[i].flags > (abi::kRouteLocal | abi::kRouteUnresolved))
        return refuse(kBounds, "route_next_hops[%zu]: flags %u", i, hops[i].flags);
      if (hops[i].flags != 0) continue;
      if (hops[i].out_port >= out_->ports_.size() || hops[i].vlan > 4094 || hops[i].mtu_bytes < kMinMtuBytes) {
        return refuse(kBounds, "route_next_hops[%zu]: out_port %u, vlan %u, mtu %u", i, hops[i].out_port, hops[i].vlan,
                      hops[i].mtu_bytes);
      }
    }
    const auto table = out_->route_table_;
    for (std::size_t i = 0; i < table.size(); ++i) {
      const abi::VipCell& cell = table[i];
      if (cell.kind == abi::VipCellKind::empty) continue;
      const std::uint32_t length = cell.port;
      if (cell.kind != abi::VipCellKind::prefix || cell.protocol != 0 || length > 128 || cell.index >= hops.size() ||
          (root_->route_prefix_lengths[length / 64] >> length % 64 & 1) == 0) {
        return refuse(kBounds, "route_table[%zu]: kind %u, length %u, next hop %u of %zu", i,
                      static_cast<unsigned>(cell.kind), length, cell.index, hops.size());
      }
    }
    return table.empty() ? Check{} : probes(table, "route_table");
  }

  [[nodiscard]] Check targets() {
    for (std::size_t i = 0; i < out_->targets_.size(); ++i) {
      const abi::Target& target = out_->targets_[i];
      if (target.flags > (abi::kTargetLive | abi::kTargetResolved | abi::kTargetNoNewFlows | abi::kTargetClampsMss)) {
        return refuse(kBounds, "targets[%zu]: flags %u", i, target.flags);
      }
      if (static_cast<std::uint8_t>(target.tracked) >= abi::kTrackedFlowsCount) {
        return refuse(kBounds, "targets[%zu]: tracked %u", i, static_cast<unsigned>(target.tracked));
      }
      if (static_cast<std::uint8_t>(target.state) >= abi::kTargetStateCount) {
        return refuse(kBounds, "targets[%zu]: state %u", i, static_cast<unsigned>(target.state));
      }
      if ((target.flags & abi::kTargetLive) == 0) continue;
      out_->forgets_flows_ = out_->forgets_flows_ || target.tracked != abi::TrackedFlows::keep;
      if (target.group >= out_->groups_.size()) return refuse(kBounds, "targets[%zu]: group %u", i, target.group);
      if (target.mode != out_->groups_[target.group].mode) {
        return refuse(kBounds, "targets[%zu]: mode %u is not its group's", i, static_cast<unsigned>(target.mode));
      }
      if (auto ok = tunnel(target, i); !ok) return ok;
      if ((target.flags & abi::kTargetResolved) == 0) continue;
      if (target.out_port >= out_->ports_.size()) return refuse(kBounds, "targets[%zu]: out_port %u", i, target.out_port);
      if (target.vlan > 4094) return refuse(kBounds, "targets[%zu]: vlan %u", i, target.vlan);
      if (target.mtu_bytes < kMinMtuBytes) return refuse(kBounds, "targets[%zu]: mtu %u", i, target.mtu_bytes);
    }
    return {};
  }

  [[nodiscard]] Check tunnel(const abi::Target& target, std::size_t i) const {
    const std::uint32_t flags = target.tunnel_flags;
    const bool gue = target.mode == abi::ForwardingMode::gue;
    const bool gre = target.mode == abi::ForwardingMode::gre;
    std::uint32_t known = target.mode == abi::ForwardingMode::l2dsr ? 0 : std::uint32_t{abi::kTunnelFragment};
    if (gue) known |= abi::kTunnelZeroChecksum;
    if (gre) known |= abi::kTunnelKeyed;
    if ((flags & ~known) != 0) {
      return refuse(kBounds, "targets[%zu]: tunnel_flags %u in mode %u", i, flags, static_cast<unsigned>(target.mode));
    }
    const bool geneve = target.mode == abi::ForwardingMode::geneve;
    const bool right = geneve ? target.tunnel_word < out_->gateways_.size()
                       : gue  ? target.tunnel_word >= 1 && target.tunnel_word <= 65535
                              : target.tunnel_word == 0 || (flags & abi::kTunnelKeyed) != 0;
    if (right) return {};
    return refuse(kBounds, "targets[%zu]: tunnel_word %u in mode %u", i, target.tunnel_word,
                  static_cast<unsigned>(target.mode));
  }

  [[nodiscard]] Check groups() const {
    for (std::size_t i = 0; i < out_->groups_.size(); ++i) {
      const abi::TargetGroup& group = out_->groups_[i];
      if (abi::to_string(group.mode) == "?") {
        return refuse(kBounds, "groups[%zu]: mode %u", i, static_cast<unsigned>(group.mode));
      }
      if (static_cast<std::uint8_t>(group.stickiness) >= abi::kStickinessCount) {
        return refuse(kBounds, "groups[%zu]: stickiness %u", i, static_cast<unsigned>(group.stickiness));
      }
      if (static_cast<std::uint8_t>(group.algorithm) >= abi::kAlgorithmCount) {
        return refuse(kBounds, "groups[%zu]: algorithm %u", i, static_cast<unsigned>(group.algorithm));
      }
      if (group.weight_unit == 0) return refuse(kBounds, "groups[%zu]: weight unit 0", i);
      if (auto ok = snat(group, i); !ok) return ok;
      if (group.fail_open > 1) return refuse(kBounds, "groups[%zu]: fail_open %u", i, group.fail_open);
      for (const std::uint32_t seconds : {group.tcp_idle_timeout_s, group.udp_idle_timeout_s}) {
        if (seconds < kMinIdleTimeoutS || seconds > kMaxIdleTimeoutS)
          return refuse(kBounds, "groups[%zu]: idle timeout %u s", i, seconds);
      }
      if (auto ok = name(group.name, "groups", i).and_then([&] { return group_targets(group, i); }); !ok) return ok;
    }
    return {};
  }

  [[nodiscard]] Check snat(const abi::TargetGroup& group, std::size_t index) const {
    const std::size_t all = out_->snat_addresses_.size();
    const bool inside =
        group.first_snat <= all && group.snat_count <= std::min<std::size_t>(all - group.first_snat, abi::kMaxSnatAddresses);
    if (inside && static_cast<std::uint8_t>(group.client_address) < abi::kClientAddressCount) return {};
    return refuse(kBounds, "groups[%zu]: SNAT %u+%u of %zu or its use", index, group.first_snat, group.snat_count, all);
  }

  [[nodiscard]] Check group_targets(const abi::TargetGroup& group, std::size_t index) const {
    const auto all = out_->group_targets_;
    if (group.target_count > abi::kMaxTargetsPerGroup || group.first_target > all.size() ||
        group.target_count > all.size() - group.first_target) {
      return refuse(kBounds, "groups[%zu]: group_targets %u with %u of %zu", index, group.first_target, group.target_count,
                    all.size());
    }
    for (const std::uint32_t id : all.subspan(group.first_target, group.target_count)) {
      if (id >= out_->targets_.size())
        return refuse(kBounds, "groups[%zu]: target %u of %zu", index, id, out_->targets_.size());
      if ((out_->targets_[id].flags & abi::kTargetLive) == 0 || out_->targets_[id].group != index) {
        return refuse(kBounds, "groups[%zu]: target %u is not a live target of this group", index, id);
      }
    }
    return {};
  }

  Check segments_and_slots(const Snapshot::SegmentResolver& resolve) {
    std::vector<SegmentBytes*> found(segments_.size());
    for (std::size_t i = 0; i < segments_.size(); ++i) {
      found[i] = resolve(segments_[i].segment_id);
      const bool security = i == root_->security_segment;
      if (auto ok = segment(segments_[i], found[i], security ? abi::SegmentKind::security : abi::SegmentKind::groups); !ok)
        return ok;
      if (security) security_ = found[i];
      out_->owners_.push_back(found[i]->owner);
    }
    out_->slots_.resize(out_->groups_.size(), nullptr);
    for (std::size_t i = 0; i < out_->groups_.size(); ++i) {
      if (auto ok = slots(out_->groups_[i], i, found); !ok) return ok;
    }
    return {};
  }

  [[nodiscard]] static Check segment(const abi::SegmentEntry& entry, SegmentBytes* segment, abi::SegmentKind kind) {
    char what[48];
    std::snprintf(what, sizeof what, "segment %llu", print(entry.segment_id));
    if (segment == nullptr) return refuse(abi::Refusal::missing_segment, "%s was not sent", what);
    if (!segment->verified) {
      auto ok = check_header(segment->bytes, kind, what).and_then([&] { return check_checksum(segment->bytes, what); });
      if (!ok) return ok;
      segment->verified = true;
    }
    const auto& header = *reinterpret_cast<const abi::SegmentHeader*>(segment->bytes.data());
    if (header.kind != kind) return refuse(kBounds, "%s: kind %u", what, static_cast<unsigned>(header.kind));
    if (header.segment_id != entry.segment_id) {
      return refuse(kBounds, "%s: its header says segment %llu", what, print(header.segment_id));
    }
    if (header.size_bytes != entry.size_bytes || header.checksum != entry.checksum) {
      return refuse(abi::Refusal::checksum, "%s: size or checksum differ from the root's", what);
    }
    return {};
  }

  Check slots(const abi::TargetGroup& group, std::size_t index, const std::vector<SegmentBytes*>& segments) {
    if (group.slot_count == 0) return {};
    if (group.target_count == 0) return refuse(kBounds, "groups[%zu]: slots without targets", index);
    if (group.segment >= segments.size()) return refuse(kBounds, "groups[%zu]: segment %u", index, group.segment);
    if (group.segment == root_->security_segment) return refuse(kBounds, "groups[%zu]: slots among security groups", index);
    SegmentBytes& segment = *segments[group.segment];
    if (group.slots_offset % abi::kCacheLineBytes != 0 || group.slots_offset > segment.bytes.size() ||
        std::uint64_t{group.slot_count} * sizeof(std::uint16_t) > segment.bytes.size() - group.slots_offset) {
      return refuse(kBounds, "groups[%zu]: %u slots at %llu leave segment %u of %llu bytes", index, group.slot_count,
                    print(group.slots_offset), group.segment, print(segment.bytes.size()));
    }
    const auto* first = reinterpret_cast<const std::uint16_t*>(segment.bytes.data() + group.slots_offset);
    // A segment has < 2^32 bytes, so that offset / 64 and the count fit one key.
    const std::uint64_t key = group.slots_offset / abi::kCacheLineBytes << 32 | group.slot_count;
    const auto [entry, inserted] = segment.largest_slot.try_emplace(key, std::uint16_t{0});
    if (inserted) entry->second = largest_of({first, group.slot_count});
    if (entry->second >= group.target_count) {
      return refuse(kBounds, "groups[%zu]: a slot names target %u of %u", index, entry->second, group.target_count);
    }
    out_->slots_[index] = first;
    return {};
  }

  Check security_groups() {
    if (root_->security_segment == abi::kNoIndex) return check_guards(out_->listeners_, 0, out_->rate_limits_);
    if (security_ == nullptr) return refuse(kBounds, "security_segment %u", root_->security_segment);
    auto view = verify_security(*security_);
    if (!view) return tl::unexpected(view.error());
    out_->security_ = *view;
    return check_guards(out_->listeners_, view->groups.size(), out_->rate_limits_);
  }

  std::span<const std::byte> bytes_;
  std::shared_ptr<Snapshot> out_;
  const abi::Root* root_;
  std::span<const char> names_;
  std::span<const abi::SegmentEntry> segments_;
  SegmentBytes* security_ = nullptr;
};

tl::expected<std::shared_ptr<const Snapshot>, SnapshotError> Snapshot::open(SegmentBytes root,
                                                                            const SegmentResolver& segments) {
  return SnapshotVerifier(std::move(root)).run(segments);
}

tl::expected<std::vector<std::uint64_t>, SnapshotError> Snapshot::segment_ids(std::span<const std::byte> root) {
  const Check checks =
      check_header(root, abi::SegmentKind::root, "root").and_then([&] { return check_checksum(root, "root"); });
  if (!checks) return tl::unexpected(checks.error());
  const auto entries = table_of<abi::SegmentEntry>(root, reinterpret_cast<const abi::Root*>(root.data())->segments,
                                                   abi::kMaxSegments, "segments");
  if (!entries) return tl::unexpected(entries.error());
  std::vector<std::uint64_t> ids;
  ids.reserve(entries->size());
  for (const abi::SegmentEntry& entry : *entries) ids.push_back(entry.segment_id);
  return ids;
}

}  // namespace lb
