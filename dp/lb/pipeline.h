// The packet's way, in stages over a burst:
//
//   parse → VIP table → flow table → (miss) Maglev pick → rewrite / encapsulate
//
// A Pipeline belongs to one worker and is used by its thread alone. It knows no DPDK: packets are spans of bytes with
// room in front, so that lb-dp (mbufs), lb-replay (pcap), `why` and the benchmarks run the very same code.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "dp/abi/counters.h"
#include "dp/abi/types.h"
#include "dp/lb/flow_table.h"
#include "dp/lb/fragments.h"
#include "dp/lb/snapshot.h"

namespace lb {

inline constexpr std::uint32_t kBurst = 64;  // packets a Burst can hold

enum class Verdict : std::uint8_t {
  tx,      // send it on out_port: data and length describe the frame
  punt,    // the kernel's: unchanged
  drop,    // ends here; reason says why
  held,    // copied, to be sent or dropped later (dp/lb/fragments.h): free the buffer; in_flight counts it meanwhile
  answer,  // a drop with reason answered_*: the same buffer now holds lb's answer, to be sent on out_port
};

enum class FlowResult : std::uint8_t { none, hit, fresh };  // "none", "hit", "new" in lb-replay's output

// Structure of arrays, count ≤ kBurst. Owner: the worker.
struct Burst {
  std::uint32_t count = 0;
  bool ip_checksum_checked = false;  // in: the NIC has verified IPv4 header checksums
  // In: first byte of the Ethernet header, bytes of the frame, free bytes in front of data and behind it.
  // Out (tx, answer): the frame to send; data may have moved into the headroom.
  std::array<std::uint8_t*, kBurst> data{};
  std::array<std::uint32_t, kBurst> length{};
  std::array<std::uint16_t, kBurst> headroom{};
  std::array<std::uint16_t, kBurst> tailroom{};
  std::array<std::uint8_t, kBurst> in_port{};  // in: index of the port, as in snapshot ports
  // In: the same port by its number that no snapshot changes, and out_port by that number (nullptr: they are the same).
  std::uint8_t own_port = 0;
  const std::uint8_t* port_of_own = nullptr;
  // Out.
  std::array<Verdict, kBurst> verdict{};
  std::array<abi::DropReason, kBurst> reason{};  // none unless drop or answer
  std::array<std::uint8_t, kBurst> out_port{};   // into Snapshot::ports(); answers: the in_port
  // Out, for replay, why and trace: what was decided on the way; kNoIndex where a stage was not reached.
  std::array<std::uint32_t, kBurst> listener{};  // into Snapshot::listeners()
  std::array<std::uint32_t, kBurst> group{};     // into Snapshot::groups()
  std::array<std::uint32_t, kBurst> target{};    // target id
  std::array<std::uint32_t, kBurst> slot{};      // Maglev slot; kNoIndex on a hit
  std::array<FlowResult, kBurst> flow{};
};

class RateBook;
class RateFlows;
class RateMemory;
class SnatBook;
struct RateTable;

// A buffer for a packet that lb makes beside the answer (the reset to the target). Rare path only.
class ExtraPackets {
 public:
  virtual ~ExtraPackets() = default;
  // Copies `length` bytes and sends them on `out_port` (as Burst::out_port). Counts nothing; false: no buffer or port full.
  virtual bool send(std::uint8_t out_port, const std::uint8_t* frame, std::uint32_t length) = 0;
};

struct PipelineOptions {
  FlowTable* flows = nullptr;                    // owned by the caller; this worker's
  abi::WorkerStats* stats = nullptr;             // this worker's counters
  abi::ListenerStats* listener_stats = nullptr;  // listener_capacity blocks, by Listener::counter_index
  // Tracked flows by target id, one array a worker, as long as flows->state().target_count each: read, for
  // least_connections. Empty: this worker's count alone.
  std::span<const std::uint32_t* const> target_flows = {};
  // By target id, this worker's (dp/lb/passive.h). Empty: nobody wants to know.
  std::span<std::uint32_t> target_troubles = {};
  ExtraPackets* extra = nullptr;
  // The flow tables of all workers of this lb-dp, under one node secret; this one's is `worker`. Read only, while their
  // owners write. Empty or one: there are no others to look into.
  std::span<const std::span<const abi::FlowLine>> tables{};
  std::uint32_t worker = 0;
  std::span<FragmentNotes> notes{};        // of all workers, as tables; empty: this one is alone and keeps its own
  HeldObserver* held_observer = nullptr;   // for replay: which held packets ended how
  std::span<FlowTable* const> peers{};     // every worker's table, by worker; empty: there are no others
  std::span<const RateTable> rates{};      // of all workers, as tables; empty: this one is alone and keeps its own
  SnatBook* snat = nullptr;                // translations of all workers; nullptr: flows of mode fullnat are refused
  bool punt_enabled = true;                // false: what would be punted is dropped as not_ip or punt_failed
  std::uint32_t resets_per_second = 1000;  // limit of originated resets
  std::uint32_t echoes_per_second = 1000;  // limit of answered echo requests
};

struct Kernel;
struct Work;

class Pipeline {
 public:
  // Runs the build of the packet path that dispatch.h chose; the second form, another. Everything options point to outlives
  // the pipeline; `flows`, `stats` and `listener_stats` must be given.
  explicit Pipeline(const PipelineOptions& options);
  Pipeline(const PipelineOptions& options, const Kernel& kernel);
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;
  ~Pipeline();

  // All workers' tables by worker, for replies whose flow is not in this worker's; they outlive the pipeline. Main thread,
  // before any packet of any of them.
  void set_peers(std::span<FlowTable* const> peers);

  // Decides and rewrites every packet of the burst. now_ns: a clock that never goes back (CLOCK_MONOTONIC or pcap time),
  // read once per burst. Adds to counters rx_*, forwarded, punted, drops, originated_* and flow_*, sets the gauge `flows`;
  // tx_* and tx_full are the sender's. The caller has seen that every Listener::counter_index has its block.
  void process(const Snapshot& snapshot, Burst& burst, std::uint64_t now_ns);

  // Takes in what other workers tell, and ages a part of the flow table: looks at the next `lines` lines, going round. Call
  // it so often that the whole table is looked at within 10 s (at most within 15 min: last-seen ticks wrap).
  void age(const Snapshot& snapshot, std::uint32_t lines, std::uint64_t now_ns);

  // Sends or drops what is held, if it is time. Every millisecond or so.
  void tend(const Snapshot& snapshot, std::uint64_t now_ns);

  // For benchmarks, which run the stages one by one.
  [[nodiscard]] Work& work() { return *work_; }

 private:
  const Kernel* kernel_;
  std::unique_ptr<RateMemory> rate_memory_;
  std::unique_ptr<RateBook> rates_;
  std::unique_ptr<RateFlows> rate_flows_;
  std::unique_ptr<Work> work_;
};

}  // namespace lb
