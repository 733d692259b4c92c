// Hands compiled snapshots to lb-dp (dp/abi/control.h) and tells what became of them.
//
//   publish(a) ─▶ in flight: a ── verdict ── active ─▶ in force: a
//   publish(b) ─▶ waiting: b                          └▶ in flight: c
//   publish(c) ─▶ waiting: c   (b is merged away: it was never sent)
//
// One generation is in flight at a time; of later ones only the newest waits. Segments that lb-dp holds are not sent again:
// on one connection it holds those of the last generation it accepted. A new connection starts from nothing known.
// Nothing blocks: sends that do not fit are queued until the socket takes them. Nothing is given up: a generation that lb-dp
// does not answer is reported late, again and again, and stays in flight until lb-dp answers or the connection ends; on
// reconnect the newest generation is sent anew unless lb-dp says that it is already in force.
//
// All on the thread that runs the io_context: publish() and close() are called there, callbacks come from there, never from
// inside publish().
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cp/snapshot/compile.h"
#include "cp/snapshot/regions.h"
#include "cp/snapshot/trace_region.h"
#include "dp/abi/control.h"

namespace asio {
class io_context;
}

namespace lb::cp {

// lb-dp as it introduced itself.
struct DataPlane {
  std::uint64_t instance = 0;  // new at every start of lb-dp
  std::uint32_t pid = 0;
  abi::Generation generation;  // in force there; {0,0}: none
  std::uint32_t worker_count = 0;
  std::uint32_t target_capacity = 0;    // ids below it can be used
  std::uint32_t listener_capacity = 0;  // counter indices below it can be used
  std::vector<abi::PortInfo> ports;
  std::shared_ptr<const StatsRegion> stats;  // never null
  std::shared_ptr<const FlowRegion> flows;   // never null
  std::shared_ptr<const TraceRegion> trace;  // never null
};

// Any may be empty.
struct PublisherCallbacks {
  // Connected. A publish() from inside this callback is what will be sent first. When data_plane.generation is not below the
  // newest published one (and is not equal to it), that one is stale and is not sent: publish one with a higher epoch.
  std::function<void(const DataPlane& data_plane)> on_hello;
  // lb-dp has judged the generation; Refusal::none is accepted. After a refusal the last good one stays in force there.
  std::function<void(abi::Generation generation, abi::Refusal refusal, const std::string& text)> on_verdict;
  // Every worker forwards by it; also after a reconnect that found it in force already.
  std::function<void(abi::Generation generation)> on_active;
  // The connection ended, or could not be made (told once per outage and whenever the reason changes). Retried with
  // back-off.
  std::function<void(const std::string& reason)> on_disconnected;
  // The generation in flight is unanswered for `waited`; told every deadline.
  std::function<void(abi::Generation generation, std::chrono::milliseconds waited)> on_late;
};

struct PublisherOptions {
  std::string socket_path;                    // of lb-dp's control socket
  std::chrono::milliseconds first_retry{50};  // then doubled
  std::chrono::milliseconds longest_retry{1000};
  std::chrono::milliseconds deadline{2000};  // of verdict and active together, before on_late
};

class Publisher {
 public:
  // Starts to connect once `io` runs. `io` outlives the Publisher.
  Publisher(asio::io_context& io, PublisherOptions options, PublisherCallbacks callbacks);
  // Closes the connection; no callback comes afterwards.
  ~Publisher();
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  // Publishes as soon as lb-dp is there and idle. Generations must rise from call to call. Keeps the segments alive as long
  // as it may have to send them again.
  void publish(CompiledSnapshot snapshot);

  // Which packets lb-dp is to write down, until when. Nothing where it is not connected.
  void trace(const abi::TraceOrder& order);

  [[nodiscard]] bool connected() const;  // Hello received and accepted

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace lb::cp
