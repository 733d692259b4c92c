// A directory on a BPF file system, where pinned links outlive lb-dp.
#pragma once

#include <string>
#include <tl/expected.hpp>

namespace lb::io {

// Makes `directory` (with parents) and mounts a BPF file system there unless it is on one already. Returns the path to use.
//
// `ip netns exec` gives its command a mount namespace that ends with the command, and pins in a file system mounted there
// end with it too. So the mount is made in the mount namespace of process 1 or, where that may not be entered, of the parent
// process, and the path returned leads through /proc/<pid>/root unless the mount can be seen from here. Where neither is
// permitted, the mount is made here.
tl::expected<std::string, std::string> ensure_bpf_directory(const std::string& directory);

}  // namespace lb::io
