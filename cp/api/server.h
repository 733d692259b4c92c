// The API of lb-cp: proto/api.proto over gRPC on a Unix socket.
//
//   lbctl ── unix socket (0660) ──▶ ApiServer ──▶ Operations (the control loop)
//
//   lbctl ── view socket (0660) ───▶    ″      what changes nothing
//
// Who may open the first socket may do everything, who may open the other one may look: access is a socket's mode and group,
// nothing else. Every handler answers
// from one LiveState, so the rows of a reply fit together. Nothing of gRPC or protobuf shows in this header.
#pragma once

#include <memory>
#include <string>
#include <tl/expected.hpp>

#include "cp/api/operations.h"

namespace lb::cp {

struct ApiOptions {
  std::string socket_path = "/run/lb/cp.sock";  // absolute; at most 107 bytes (sockaddr_un)
  std::string group;                            // group that may connect beside the owner; empty: the process's own
  std::string view_socket_path;                 // empty: none
  std::string view_group;
};

class ApiServer {
 public:
  // `operations` outlives the server.
  ApiServer(Operations& operations, ApiOptions options);
  ~ApiServer();  // as stop()
  ApiServer(const ApiServer&) = delete;
  ApiServer& operator=(const ApiServer&) = delete;

  // Listens and serves on threads of its own. A socket file on which nobody listens is replaced; errors: somebody listens,
  // the path is something else than a socket, its directory is missing, the group is unknown. Call once.
  tl::expected<void, std::string> start();
  // Refuses new requests, gives running ones one second, then cancels them; removes the socket file. Idempotent.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lb::cp
