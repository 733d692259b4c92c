// The translations of fullnat flows: which SNAT address and port a flow has, found from either side.
//
//   client:40000 → VIP:80 ──┐                                      ┌── SNAT:1024 → target:8080
//     hash, chain of slots ─┴─▶ abi::Translation (128 bytes) ◀─────┴─ cell of the port: its slot
//                                 in the flow region, outlives lb-dp
//
// Every SNAT address has the ports 1024 to 65535 for each protocol. They are split evenly among the workers, in ranges, so
// that a port names the worker that owns the flow; that worker alone writes. Any worker may read, for a reply or a client's
// packet that landed there, and tells the owner what it has seen by a bounded ring. Ports are given in order, and a port
// comes round again only after all others of its range: never-used ones first, then those given back longest ago. A
// translation that is over keeps its port for a while (closed_limit_ticks()), so that late packets find their way and a
// target's TIME_WAIT ends. No port, or no slot: the oldest translation that is not proven (is_proven()) is evicted; else
// none is given.
//
// Numbers: 128 bytes a flow in the region, 12 beside it, 4 a port and protocol. Allocates only in learn() and attach().
// Not for: one port used towards several targets at once.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "dp/abi/region.h"
#include "dp/abi/snapshot.h"
#include "dp/lb/flow_hash.h"
#include "dp/lb/hearsay.h"
#include "dp/lb/ways_back.h"

namespace lb {

class Snapshot;

inline constexpr std::uint32_t kFirstSnatPort = 1024;
inline constexpr std::uint32_t kSnatPorts = 65536 - kFirstSnatPort;
inline constexpr std::uint32_t kNoSlot = 0xffffffff;

// The part of an address's ports that belongs to worker `worker` of `workers`: [first, last).
struct PortRange {
  std::uint32_t first = 0;
  std::uint32_t last = 0;
};
[[nodiscard]] constexpr PortRange ports_of(std::uint32_t worker, std::uint32_t workers) {
  return {kFirstSnatPort + kSnatPorts * worker / workers, kFirstSnatPort + kSnatPorts * (worker + 1) / workers};
}
[[nodiscard]] constexpr std::uint32_t owner_of(std::uint32_t port, std::uint32_t workers) {
  std::uint32_t worker = (port - kFirstSnatPort) * workers / kSnatPorts;
  while (port >= ports_of(worker, workers).last) ++worker;
  return worker;
}

// What a worker tells the owner of a translation it has used.
struct TranslationNews {
  std::uint32_t slot = 0;
  std::uint16_t snat_port = 0;  // the slot may have another translation by then
  std::uint8_t from_target = 0;
  std::uint8_t tcp_flags = 0;
  std::uint32_t header_arrived = 0;
  std::uint32_t reserved = 0;
  WayBack way;  // from the client's side; used == 0: none
};

// Whether both ends have shown that they exist. A target answers any SYN, so TCP is proven by the client's packet after
// that: what a flood of SYNs from made-up addresses leaves behind may be evicted.
[[nodiscard]] constexpr bool is_proven(abi::TranslationState state) {
  return state != abi::TranslationState::opening && state != abi::TranslationState::answered;
}

inline constexpr std::uint32_t kPortUsed = 1U << 31;  // the rest: the slot
inline constexpr std::uint32_t kPortFree = 1U << 30;  // the rest: the next free port of the list, 0: none

// The ports of one address and protocol that one worker gives. Writer: that worker.
struct PortShare {
  std::unique_ptr<std::uint32_t[]> cells;  // by port - range.first: kPortUsed, kPortFree or 0: never given
  PortRange range;
  std::uint32_t fresh = 0;       // the next that has never been given
  std::uint32_t first_free = 0;  // a list, longest unused first; 0: empty
  std::uint32_t last_free = 0;
  std::uint32_t oldest = kNoSlot;  // list of translations that are not proven, by age
  std::uint32_t newest = kNoSlot;
};

// The cell of a port of the share.
inline std::uint32_t& cell_of(PortShare& share, std::uint32_t port) {
  return share.cells[port - share.range.first];
}

// One worker's part. Owner: that worker, but where a comment says more.
class Translations {
 public:
  struct Wanted {
    std::span<const abi::IpAddress> addresses;  // of the target group and of the target's family
    std::uint32_t turn = 0;                     // which of them is tried first, modulo their number
    std::uint8_t protocol = 0;
  };

  // The flow's translation in this table, kNoSlot: none. Owner only.
  [[nodiscard]] std::uint32_t find(const Hash128& hash) const;
  // A new translation with port and address, all else to be filled in by fill(). kNoSlot: there is no port or no slot;
  // `evicted` grows by one if another had to go.
  std::uint32_t allocate(const Wanted& wanted, std::uint64_t& evicted);
  // Writes what stands for the flow, enters it under its hash and, until it is proven, among those that may be evicted.
  void fill(std::uint32_t slot, const abi::Translation& flow);
  // The client's tuple no longer finds it: a new flow is to have it. Replies still do.
  void forget_client(std::uint32_t slot);
  // Gives slot and port back.
  void release(std::uint32_t slot);
  void set_state(std::uint32_t slot, abi::TranslationState state);
  void set_target(std::uint32_t slot, std::uint32_t id, const abi::IpAddress& address, std::uint16_t port);
  void set_way(std::uint32_t slot, const WayBack& way);
  [[nodiscard]] abi::Translation& at(std::uint32_t slot) const { return slots_[slot]; }
  [[nodiscard]] std::uint32_t capacity() const { return static_cast<std::uint32_t>(slots_.size()); }
  [[nodiscard]] std::uint32_t used() const { return used_; }
  std::uint32_t sweep_slot = 0;  // where ageing goes on

  // Copies, for any worker. The first walks a chain that its owner may be changing, and gives up after some tries.
  [[nodiscard]] std::optional<abi::Translation> peek(const Hash128& hash, std::uint32_t& slot) const;
  [[nodiscard]] std::optional<abi::Translation> peek(std::uint32_t slot) const { return peek_in(slots_, slot); }
  // From any thread or process.
  static std::optional<abi::Translation> peek_in(std::span<const abi::Translation> slots, std::uint32_t slot);

 private:
  friend class SnatBook;
  struct Links {
    std::uint32_t next = kNoSlot;   // in the chain of one hash, or of free slots
    std::uint32_t older = kNoSlot;  // in the list of PortShare
    std::uint32_t newer = kNoSlot;
  };

  void attach(class SnatBook& book, std::uint32_t worker, std::span<abi::Translation> slots);
  void rebuild();
  bool adopt(std::uint32_t slot);
  [[nodiscard]] PortShare* share_of(const abi::Translation& flow) const;
  void link_client(std::uint32_t slot);
  void link_oldest(std::uint32_t slot);
  void unlink_oldest(std::uint32_t slot);
  std::uint32_t take_slot(std::uint64_t& evicted);
  bool evict(std::span<PortShare* const> shares);
  [[nodiscard]] std::uint32_t head_of(const Hash128& hash) const {
    return static_cast<std::uint32_t>(hash.low) & static_cast<std::uint32_t>(heads_.size() - 1);
  }

  class SnatBook* book_ = nullptr;
  std::uint32_t worker_ = 0;
  std::span<abi::Translation> slots_;
  std::vector<std::uint32_t> heads_;  // by hash: first slot of a chain
  std::vector<Links> links_;
  std::uint32_t first_free_ = kNoSlot;
  std::uint32_t never_used_ = 0;  // slots from here on have never been given
  std::uint32_t used_ = 0;
  std::uint32_t changes_ = 0;  // of chains; odd while one is being changed
};

// All workers' translations, and the addresses known. Owner: lb-dp's main thread.
class SnatBook {
 public:
  // `slots`: one part a worker, at least 2 slots each; they outlive the book.
  explicit SnatBook(std::span<const std::span<abi::Translation>> slots);

  // Makes the addresses of a snapshot known, before any worker has it; they are not forgotten. False: that would make
  // more than kMaxSnatAddresses. Workers may run.
  bool learn(std::span<const abi::IpAddress> addresses);

  // Once, after the first learn(), before any worker runs: enters what stands in the slots, and frees what cannot be
  // entered. Returns how many.
  std::uint64_t rebuild();

  [[nodiscard]] std::uint32_t workers() const { return static_cast<std::uint32_t>(tables_.size()); }
  [[nodiscard]] Translations& of(std::uint32_t worker) { return tables_[worker]; }

  // Any worker. Which of the known addresses this is, kNoSlot: none.
  [[nodiscard]] std::uint32_t find_address(const abi::IpAddress& address) const;
  [[nodiscard]] PortShare& share(std::uint32_t address, std::uint32_t worker, std::uint8_t protocol);
  // The owner and slot of a port that is given to a flow. Slot kNoSlot: it is not.
  struct Place {
    std::uint32_t worker = 0;
    std::uint32_t slot = kNoSlot;
  };
  [[nodiscard]] Place find_port(const abi::IpAddress& address, std::uint16_t port, std::uint8_t protocol);
  // From worker `from` to worker `to`.
  [[nodiscard]] Ring<TranslationNews>& ring(std::uint32_t from, std::uint32_t to) { return rings_[from * workers() + to]; }
  // SNAT ports that a worker can have in use at once.
  [[nodiscard]] std::uint64_t capacity(std::uint32_t worker) const;

 private:
  friend class Translations;
  static constexpr std::uint32_t kCells = 2 * abi::kMaxSnatAddresses;
  struct Cell {
    abi::IpAddress address;
    std::uint32_t number = kNoSlot;
  };

  static std::uint32_t first_cell(const abi::IpAddress& address) { return abi::vip_table_hash(address, 0, 0) % kCells; }
  std::uint32_t add(const abi::IpAddress& address);

  std::vector<Translations> tables_;
  std::vector<Ring<TranslationNews>> rings_;
  std::array<Cell, kCells> cells_{};
  std::array<std::vector<PortShare>, abi::kMaxSnatAddresses> shares_;  // by address: by worker, TCP then UDP
  std::atomic<std::uint32_t> known_{0};
};

struct Reattached;

// After a restart, before rebuild(): as reattach() of flow tables (dp/lb/flow_table.h).
Reattached reattach(std::span<abi::Translation> slots, std::span<const std::uint64_t> old_directory,
                    const Snapshot& snapshot);

// After a restart: translations of another number of workers to the workers that own their ports now. Returns how many found
// no room. `to` is zeroed.
std::uint64_t rehome_translations(std::span<const std::span<const abi::Translation>> from,
                                  std::span<const std::span<abi::Translation>> to);

}  // namespace lb
