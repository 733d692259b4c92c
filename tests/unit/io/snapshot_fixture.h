// Small snapshots made by hand, and the sealed memfds that carry them.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cstring>
#include <string>
#include <vector>

#include "dp/abi/fingerprint.h"
#include "dp/abi/snapshot.h"
#include "dp/base/segment_checksum.h"
#include "dp/io/fd.h"

namespace lb::test {

using Bytes = std::vector<std::byte>;

struct SnapshotSpec {
  abi::Generation generation{1, 1};
  std::uint64_t segment_id = 0x100000001;
  std::uint32_t slot_count = 7;
  abi::IpAddress vip = abi::IpAddress::v4(192, 0, 2, 10);
  std::vector<abi::IpAddress> more_vips;  // without a listener
  std::uint16_t listener_port = 80;
  std::uint8_t protocol = 6;
  std::uint32_t counter_index = 0;
  abi::IpAddress target = abi::IpAddress::v4(10, 77, 2, 2);
  std::uint32_t target_id = 0;  // ids below are free
  std::uint64_t identity = 0x1234;
  abi::ForwardingMode mode = abi::ForwardingMode::ipip;
  abi::MacAddress next_hop_mac{2, 0, 0, 0, 0, 0x70};
  abi::MacAddress source_mac{2, 0, 0, 0, 1, 0};
  abi::IpAddress tunnel_source = abi::IpAddress::v4(10, 77, 1, 1);
  std::string port = "eth0";
};

inline void seal_header(Bytes& bytes, abi::SegmentKind kind, std::uint64_t id) {
  abi::SegmentHeader header;  // copied: a vector's bytes need not stand on a cache line
  header.kind = kind;
  header.layout_fingerprint = abi::snapshot_fingerprint();
  header.size_bytes = bytes.size();
  header.segment_id = id;
  std::memcpy(bytes.data(), &header, sizeof header);
  header.checksum = segment_checksum(bytes);
  std::memcpy(bytes.data(), &header, sizeof header);
}

// Every slot names the group's only target.
inline Bytes make_segment(const SnapshotSpec& spec) {
  Bytes bytes(sizeof(abi::SegmentHeader) + spec.slot_count * sizeof(std::uint16_t));
  seal_header(bytes, abi::SegmentKind::groups, spec.segment_id);
  return bytes;
}

namespace detail {
template <typename T>
abi::Table append(Bytes& bytes, const std::vector<T>& elements) {
  bytes.resize((bytes.size() + 63) / 64 * 64);
  const abi::Table table{.offset = bytes.size(), .count = static_cast<std::uint32_t>(elements.size())};
  bytes.resize(bytes.size() + elements.size() * sizeof(T));
  if (!elements.empty()) std::memcpy(bytes.data() + table.offset, elements.data(), elements.size() * sizeof(T));
  return table;
}

inline void insert(std::vector<abi::VipCell>& table, const abi::VipCell& cell) {
  const std::size_t mask = table.size() - 1;
  std::size_t i = abi::vip_table_hash(cell.address, cell.protocol, cell.port) & mask;
  while (table[i].kind != abi::VipCellKind::empty) i = (i + 1) & mask;
  table[i] = cell;
}
}  // namespace detail

inline Bytes make_root(const SnapshotSpec& spec, const Bytes& segment) {
  abi::SegmentHeader segment_header;
  std::memcpy(&segment_header, segment.data(), sizeof segment_header);
  const std::string names = "webweb-80blue";
  std::vector<abi::Vip> vips{{.address = spec.vip, .name = {0, 3}}};
  for (const abi::IpAddress& address : spec.more_vips) vips.push_back({.address = address, .name = {0, 3}});
  std::vector<abi::VipCell> cells(std::bit_ceil(2 * (vips.size() + 1)));
  for (std::uint32_t i = 0; i < vips.size(); ++i) {
    detail::insert(cells, {.address = vips[i].address, .kind = abi::VipCellKind::vip, .index = i});
  }
  detail::insert(cells, {.address = spec.vip,
                         .port = spec.listener_port,
                         .protocol = spec.protocol,
                         .kind = abi::VipCellKind::exact,
                         .counter_index = static_cast<std::uint16_t>(spec.counter_index)});
  abi::Listener listener;
  listener.first_port = listener.last_port = spec.listener_port;
  listener.protocol = spec.protocol;
  listener.group_count = 1;
  listener.total_weight = 1;
  listener.counter_index = spec.counter_index;
  listener.name = {3, 6};
  listener.groups[0] = {.group = 0, .cumulative_weight = 1};
  abi::TargetGroup group;
  group.segment = 0;
  group.slot_count = spec.slot_count;
  group.slots_offset = sizeof(abi::SegmentHeader);
  group.target_count = 1;
  group.name = {9, 4};
  group.mode = spec.mode;
  std::vector<abi::Target> targets(spec.target_id + 1);
  abi::Target& target = targets.back();
  target.address = spec.target;
  target.identity = spec.identity;
  target.group = 0;
  target.port = spec.listener_port;
  target.weight = 1;
  target.flags = abi::kTargetLive | abi::kTargetResolved;
  target.state = abi::TargetState::healthy;
  target.mode = spec.mode;
  target.mtu_bytes = 1600;
  target.next_hop_mac = spec.next_hop_mac;
  target.source_mac = spec.source_mac;
  abi::Port port;
  spec.port.copy(port.name, sizeof(port.name) - 1);

  Bytes bytes(sizeof(abi::Root));
  abi::Root root;
  root.generation = spec.generation;
  root.fleet_seed = 1;
  root.segments = detail::append<abi::SegmentEntry>(
      bytes,
      {{.segment_id = spec.segment_id, .size_bytes = segment_header.size_bytes, .checksum = segment_header.checksum}});
  root.vip_table = detail::append(bytes, cells);
  root.vips = detail::append(bytes, vips);
  root.range_listeners = detail::append<std::uint32_t>(bytes, {});
  root.listeners = detail::append<abi::Listener>(bytes, {listener});
  root.groups = detail::append<abi::TargetGroup>(bytes, {group});
  root.group_targets = detail::append<std::uint32_t>(bytes, {spec.target_id});
  root.targets = detail::append(bytes, targets);
  root.ports = detail::append<abi::Port>(bytes, {port});
  root.names = detail::append(bytes, std::vector<char>(names.begin(), names.end()));
  root.tunnel_source_v4.prefix = spec.tunnel_source;
  root.tunnel_source_v4.present = 1;
  std::memcpy(bytes.data(), &root, sizeof(root));
  seal_header(bytes, abi::SegmentKind::root, 0);
  return bytes;
}

inline constexpr int kAllSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

inline io::Fd make_memfd(const Bytes& bytes, int seals = kAllSeals) {
  io::Fd fd(::memfd_create("segment", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (::write(fd.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) std::abort();
  if (seals != 0 && ::fcntl(fd.get(), F_ADD_SEALS, seals) != 0) std::abort();
  return fd;
}

}  // namespace lb::test
