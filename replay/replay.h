// Runs a capture through the packet pipeline, one packet at a time, as lb-dp's workers would.
//
//   in.pcap ─▶ RSS ─▶ worker's Pipeline on the snapshot of that moment ─▶ out.pcap, one JSON line
//                        ▲
//   stamps ─▶ events, deadlines, ageing
//
// Repeatable: the same files and options give the same bytes, whatever the machine. A packet's verdict depends on the
// packets before it and on their stamps only; a burst holds one packet, so that each meets its own moment.
//
// Time is the stamp of the packet, from that of the first one. It never goes back: a lower stamp than one seen before counts
// as no time passing.
#pragma once

#include <array>
#include <cstdint>
#include <iosfwd>
#include <set>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "dp/abi/counters.h"
#include "dp/lb/flow_hash.h"
#include "replay/world.h"

namespace lb::replay {

// The node secret where none is given: any, but always the same.
inline constexpr NodeSecret kDefaultSecret = {0x6c, 0x62, 0x2d, 0x72, 0x65, 0x70, 0x6c, 0x61,
                                              0x79, 0x20, 0x73, 0x65, 0x63, 0x72, 0x65, 0x74};

struct Options {
  std::string config_file;
  std::string in_file;
  std::string out_file;
  std::string json_file;      // empty: no verdicts are written
  std::string events_file;    // empty: nothing happens but time
  std::uint32_t workers = 1;  // 1…kMaxWorkers
  NodeSecret secret = kDefaultSecret;
  std::uint32_t mtu_bytes = 1500;            // towards every target, 1280…65535
  std::uint64_t flows_per_worker = 1 << 20;  // the flow table's size, 1…2^28
  std::set<TargetAddress> unhealthy;
};

struct Result {
  std::array<std::uint64_t, abi::kCounterCount> counters{};  // summed over the workers
  std::vector<std::string> warnings;                         // of the configurations
};

// Error: everything that was wrong, one line each: "FILE:LINE: FIELD: TEXT". Nothing is written unless every input file but
// the capture's packets has been found good.
tl::expected<Result, std::vector<std::string>> run(const Options& options);

// "name value unit  help", one line for each counter of the list.
void print_summary(const Result& result, std::ostream& out);

}  // namespace lb::replay
