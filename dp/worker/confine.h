// What lb-dp takes away from itself once it serves: root, and the system calls it needs no longer.
//
// Everything that needs privilege has been done by then: XDP programs are attached, sockets and TAPs open, memory is locked.
// What remains is done with what is open: entries of steering maps, memfds that lb-cp sends, files below state_dir.
#pragma once

#include <string>
#include <tl/expected.hpp>

namespace lb::worker {

// All threads, those of EAL too, become `user`; with that every capability is gone. `state_dir` and the files in it are
// given to that user before, and so is `socket`, so that an lb-cp of that user can connect. `required`: an unknown user is
// an error, else it stays as it is. Errors in words.
tl::expected<bool, std::string> become(const std::string& user, bool required, const std::string& state_dir,
                                       const std::string& socket);

// From now on, in all threads: no new program or process, no new BPF program, no mount, no module, no tracing; such a call
// gives EPERM. False: a build with sanitizers, which need what this forbids.
tl::expected<bool, std::string> filter_system_calls();

}  // namespace lb::worker
