// `lb-dp upgrade`: a new lb-dp makes ready all it can while the old one forwards, then asks it to end and goes on with its
// flows, steering and stored snapshot.
//
//   new: EAL, buffers │ looks at what it would take over │ kHandOverSignal ─▶ old: workers end, ports close, lock is free
//                     │                                  │ ◀── lock ── new: ports, flow region, snapshot, workers
//                                                        └──────── no worker runs ────────┘
//
// Until the signal nothing of the old one is touched: what is found unfit by then leaves it as it is. The service manager is
// told by the old one (MAINPID), and finds the new one under the same environment.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <chrono>
#include <string>
#include <tl/expected.hpp>

#include "dp/io/config.h"

namespace lb::worker {

inline constexpr int kHandOverSignal = SIGUSR2;  // lb-dp ends, and its sender goes on
inline constexpr std::chrono::seconds kHandOverPatience{10};
inline constexpr std::chrono::seconds kHandOverSilence{30};  // that the service manager is to bear between the two

// The lb-dp that listens on the control socket. Error: there is none.
tl::expected<pid_t, std::string> running_lb_dp(const std::string& control_socket);

// Whether a new lb-dp of this build would go on with the flows and the snapshot that the old one keeps. Error: why not.
tl::expected<void, std::string> can_take_over(const io::DpConfig& config);

// How the old one speaks to its service manager ($NOTIFY_SOCKET, $WATCHDOG_USEC) becomes our way.
void take_environment_of(pid_t old);

// Frames that the kernel has dropped so far for want of a socket, on all AF_XDP ports.
std::uint64_t dropped_without_socket(const io::DpConfig& config);

// Asks it to end. Error: it could not be signalled.
tl::expected<void, std::string> ask_to_hand_over(pid_t old);

}  // namespace lb::worker
