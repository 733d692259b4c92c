// Config and live state → snapshot bytes (dp/abi/snapshot.h). Deterministic: the same inputs in the same order give the same
// bytes; a group's slots and their hash depend on its targets and the fleet seed alone.
//
//   group ── table still right? ── yes ─▶ its segment unchanged? ── yes ─▶ shared with the previous generation
//                                │                               └─ no ─▶ copied
//                                └─ no ─▶ built (cp/snapshot/maglev.h)
//
// A Compiler remembers the group segments it made, so that a change of one target rebuilds one Maglev table and copies the
// other tables of its segment (about 2 MiB); every other segment is shared. Of groups whose version is the same it also
// remembers the rows of their targets. Segments that must be made are made by several
// threads, which end before compile() returns. A segment costs one file descriptor as long as a snapshot holds it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "cp/model/model.h"
#include "cp/snapshot/decide.h"
#include "dp/abi/snapshot.h"

namespace lb::cp {

// How one target takes part, decided by the health and drain rules.
struct TargetInput {
  TargetKey key;
  std::uint32_t id = 0;
  std::uint32_t weight = 0;  // in rotation with this weight; 0: takes no new flows
  abi::TargetState state = abi::TargetState::initial;
  abi::TrackedFlows tracked = abi::TrackedFlows::keep;
  NextHop next_hop;
  std::uint32_t ramp = kRampSteps;  // slow start: so many kRampSteps-ths of its weight count in the table
  std::string server_id{};          // quic: as Target has it
};

struct GroupInput {
  TargetGroup config;
  bool fail_open = false;
  std::vector<TargetInput> targets;  // any order
  // Equal ones, of one group's name, have equal config and targets: a Compiler looks at them once. 0: says nothing.
  std::uint64_t version = 0;
};

struct ListenerInput {
  Listener config;
  bool draining = false;
  std::uint32_t counter_index = 0;  // of its first protocol; a TCP_UDP listener becomes two, the second at counter_index + 1
};

struct SnapshotInput {
  abi::Generation generation;
  std::uint64_t fleet_seed = 0;
  std::vector<Vip> vips;
  std::vector<ListenerInput> listeners;
  std::vector<GroupInput> groups;
  std::vector<Route> routes;  // for packets back from appliances; sorted by prefix, each once
  std::optional<AddressPrefix> tunnel_source_v4;
  std::optional<AddressPrefix> tunnel_source_v6;
  PacketHygiene hygiene;
  std::vector<SecurityGroup> security_groups;
};

// Immutable bytes of one segment. Sealed memfd where `fd` ≥ 0; owned.
class SegmentMemory {
 public:
  SegmentMemory(const SegmentMemory&) = delete;
  SegmentMemory& operator=(const SegmentMemory&) = delete;
  ~SegmentMemory();
  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] std::uint64_t id() const { return id_; }

 private:
  friend tl::expected<std::shared_ptr<const SegmentMemory>, std::string> seal(std::span<const std::byte>, std::uint64_t);
  SegmentMemory() = default;
  std::span<const std::byte> bytes_;
  int fd_ = -1;
  std::uint64_t id_ = 0;
};

// Copies `bytes` into a memfd with the seals WRITE, SHRINK, GROW and SEAL, and maps it for reading.
tl::expected<std::shared_ptr<const SegmentMemory>, std::string> seal(std::span<const std::byte> bytes, std::uint64_t id);

struct CompiledSnapshot {
  abi::Generation generation;
  std::shared_ptr<const SegmentMemory> root;
  std::vector<std::shared_ptr<const SegmentMemory>> segments;
  std::uint32_t tables_built = 0;  // Maglev tables computed for this generation; the rest was reused
};

class Compiler {
 public:
  Compiler();
  ~Compiler();
  // Errors name the object and the limit that was exceeded, or what the operating system refused; the next call starts from
  // what was there before.
  tl::expected<CompiledSnapshot, std::string> compile(const SnapshotInput& input);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lb::cp
