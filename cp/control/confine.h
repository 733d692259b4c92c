// What lb-cp takes away from itself as it starts: the system calls that only a break-in needs. Its user and its capabilities
// are the unit's to give (configs/lb-cp.service): it needs CAP_NET_ADMIN (routes, TUN device), CAP_NET_RAW (checks by ICMP)
// and CAP_BPF (checks through tunnels), and no root.
#pragma once

#include <string>
#include <tl/expected.hpp>

namespace lb::cp {

// From now on, in this thread and those it makes: no new program or process, no mount, no module, no tracing, no other
// namespace, no key, no io_uring; such a call gives EPERM. New threads, sockets, files and BPF programs for tunnel checks
// stay possible. False: a build with sanitizers, which need what this forbids.
tl::expected<bool, std::string> filter_system_calls();

}  // namespace lb::cp
