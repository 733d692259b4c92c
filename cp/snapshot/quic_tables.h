// The snapshot's tables that read targets from QUIC connection IDs (dp/abi/quic.h).
#pragma once

#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cp/snapshot/compile.h"
#include "dp/abi/quic.h"
#include "dp/abi/snapshot.h"

namespace lb::cp {

class QuicTables {
 public:
  // `group`: its index in the snapshot. Targets that drain are in the tables as well: their connections go on. A server ID
  // that two have is that of the one in rotation.
  void add_group(std::uint32_t group, const GroupInput& input);
  // A UDP listener with that group: its connection IDs are read as the group's configs say. Of two configs with one id the
  // first counts.
  void add_to(abi::Listener& listener, std::uint32_t group);

  [[nodiscard]] const std::vector<abi::QuicMap>& maps() const { return maps_; }
  [[nodiscard]] const std::vector<abi::QuicConfig>& configs() const { return configs_; }
  [[nodiscard]] const std::vector<abi::QuicServer>& servers() const { return servers_; }

 private:
  std::vector<abi::QuicMap> maps_;  // one for each listener that has_quic
  std::vector<abi::QuicConfig> configs_;
  std::vector<abi::QuicServer> servers_;
  std::unordered_map<std::uint32_t, std::pair<std::uint32_t, std::uint32_t>> of_group_;  // first config, how many
};

}  // namespace lb::cp
