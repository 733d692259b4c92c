// lb-dp's side of the control socket (dp/abi/control.h): takes segments and roots from lb-cp, has them verified, and
// answers.
//
//   Segments ─▶ held by id ─┐
//   Publish ──▶ root ───────┴▶ Snapshot::open ─▶ GenerationSink::accept ─▶ Verdict … settled() ─▶ Active ─▶ SnapshotStore
//
// Everything received is hostile until verified. A message that is not as it must be closes the connection with a line in
// the log; a snapshot that cannot be accepted is refused by name and the last good generation stays. Nothing here blocks.
// Thread: the main thread.
#pragma once

#include <poll.h>

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "dp/abi/control.h"
#include "dp/abi/trace.h"
#include "dp/io/fd.h"
#include "dp/lb/snapshot.h"
#include "dp/worker/segments.h"
#include "dp/worker/snapshot_store.h"

namespace lb::worker {

// What takes accepted generations and brings them into force.
class GenerationSink {
 public:
  virtual ~GenerationSink() = default;
  // The parts of Hello that are the data plane's (workers, capacities, ports); fds of the stats, flow and trace region.
  virtual void describe(abi::Hello& hello) const = 0;
  [[nodiscard]] virtual std::array<int, 3> region_fds() const = 0;
  // Which packets are to be written down from now on; an order of 0 packets a second: none.
  virtual void trace(const abi::TraceOrder& order) = 0;
  // Begins to bring a verified snapshot into force, or says why not (unknown_port, capacity, system).
  virtual tl::expected<void, SnapshotError> accept(std::shared_ptr<const Snapshot> snapshot) = 0;
  // True once every worker forwards by the snapshot accepted last and older ones are released.
  virtual bool settled() = 0;
};

class SnapshotReader {
 public:
  // `store` may be nullptr: nothing is kept. Both must outlive the reader.
  SnapshotReader(GenerationSink& sink, SnapshotStore* store) : sink_(sink), store_(store) {}
  ~SnapshotReader();
  SnapshotReader(const SnapshotReader&) = delete;
  SnapshotReader& operator=(const SnapshotReader&) = delete;

  // Listens on a Unix socket, mode 0600. A socket file that nobody listens on is replaced; errors in words.
  tl::expected<void, std::string> listen(const std::string& path);

  // Takes the stored generation into force, if there is one that can be verified. The reason why not goes to the log.
  void restore();

  // For the main loop: wait on these, then call on_ready; call on_tick at least every millisecond while moving().
  [[nodiscard]] std::array<pollfd, 2> poll_fds() const;
  void on_ready(const std::array<pollfd, 2>& ready);
  void on_tick();
  [[nodiscard]] bool moving() const { return moving_.has_value(); }

  [[nodiscard]] abi::Generation generation() const { return generation_; }

 private:
  struct Message;

  void accept_connection();
  void receive();
  void on_segments(Message& message);
  void on_publish(Message& message);
  void on_trace(Message& message);
  tl::expected<StoredGeneration, SnapshotError> take(const SegmentBytes& root, abi::Generation announced);
  void send_verdict(abi::Generation generation, abi::Refusal refusal, std::string_view text);
  bool send(const void* message, std::size_t size, std::span<const int> fds = {});
  void disconnect(std::string_view why);

  GenerationSink& sink_;
  SnapshotStore* store_;
  std::string path_;
  io::Fd listener_;
  io::Fd client_;
  SegmentsById held_;
  std::optional<SnapshotError> bad_segment_;  // of those sent since the last Publish
  std::optional<StoredGeneration> moving_;    // accepted, not yet active
  abi::Generation generation_;                // accepted last
  std::uint64_t instance_ = 0;
};

}  // namespace lb::worker
