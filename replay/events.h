// The events file: what happens to the world between packets.
//
//   - {at: 10, apply: v2.yaml}                 # load another configuration; FILE is relative to the events file
//   - {at: 12.5, drain: "10.77.2.2:80"}        # in every target group that has this target
//   - {at: 30, undrain: "10.77.2.2:80"}
//   - {at: 40, unhealthy: "[2001:db8::2]:80"}
//   - {at: 50, healthy: "[2001:db8::2]:80"}
//
// `at` is in seconds from the first packet of the capture, and an event comes before a packet of the same moment. Events
// of one moment come in the order of the file; otherwise the order of the file does not matter.
#pragma once

#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "cp/model/live.h"

namespace lb::replay {

enum class EventKind : std::uint8_t { apply, drain, undrain, healthy, unhealthy };

struct Event {
  std::uint64_t at_ns = 0;  // from the first packet
  EventKind kind = EventKind::apply;
  std::string file;        // apply: as a path from here
  abi::IpAddress address;  // the others
  std::uint16_t port = 0;
  std::uint32_t line = 0;  // in the events file, from 1
};

// Sorted by time. Error: every violation, with file, line and field ("[2].drain").
tl::expected<std::vector<Event>, std::vector<cp::Violation>> load_events(const std::string& file);

// As load_events, of text already read.
tl::expected<std::vector<Event>, std::vector<cp::Violation>> parse_events(const std::string& text, const std::string& file);

}  // namespace lb::replay
