// The decapsulation program (bpf/decap.bpf.c) on an interface of a target host: attach, detach, look.
//
//   interface ── XDP or tc filter ──▶ program decap_xdp or decap_tc ──▶ its maps `addresses` and `counters`
//
// The interface itself holds the program, and the program its maps; lb-target finds all of them from there. So they last
// until detach or until the interface goes, need no file and no bpffs, and are found from any mount namespace: `ip netns
// exec` hides mounts made outside, and loses those made inside. All functions need root.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "bpf/decap.h"
#include "dp/abi/types.h"

namespace lb::target {

// Where on the receive path: in the driver, in front of the stack, or as a classifier.
enum class Mode : std::uint8_t { native, generic, tc };

[[nodiscard]] std::string_view to_string(Mode mode);

struct AttachResult {
  Mode mode = Mode::native;
  bool was_attached = false;  // the same program was there already; only its addresses were brought up to date
  std::size_t address_count = 0;
};

struct Status {
  Mode mode = Mode::native;
  std::vector<abi::IpAddress> addresses;  // outer destinations, sorted
  std::vector<std::uint16_t> gue_ports;   // UDP, host order, sorted
  std::array<std::uint64_t, DECAP_COUNTERS> counters{};
};

// Attaches to `interface`, or brings what is attached up to date; `mode`: only this one, none: the first that works.
// `addresses`: outer destinations, empty: those of the interface as they are now. Errors: no such interface, no address,
// another program holds the place, the kernel refuses; in words for people. `gue_ports`: host order, at most
// DECAP_MAX_GUE_PORTS.
tl::expected<AttachResult, std::string> attach(const std::string& interface, std::optional<Mode> mode,
                                               std::vector<abi::IpAddress> addresses,
                                               const std::vector<std::uint16_t>& gue_ports = {abi::kGuePort});

// False: nothing was attached. Counters are lost.
tl::expected<bool, std::string> detach(const std::string& interface);

// Nothing: not attached.
tl::expected<std::optional<Status>, std::string> status(const std::string& interface);

}  // namespace lb::target
