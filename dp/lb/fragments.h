// Fragments of IP packets to a VIP. Only the first carries ports, so it alone can be served like any packet of its flow;
// what it learns is noted for those that follow, which may come before it, or to another worker.
//
//   first    as any packet of its flow ─▶ (source, destination, id) → target is noted in this worker's table
//   later    noted here ─▶ noted by another worker ─▶ on to that target
//                                                └─▶ neither: held, at most kHoldNs, until the first one comes
//
// The table is bounded: four places for each hash, the oldest note gives way. So is what is held: kHeldPackets, each
// at most kHeldBytes; beyond, a fragment is dropped as fragment_table_full. A flood of fragments therefore takes notes and
// room from other fragments alone, and fragments that come in order need neither room nor luck: notes are of the newest.
//
// Owner: one Pipeline, its thread. Other workers read the notes while it writes, by relaxed atomics: a note is
// its key, a value of one word and the key again. No worker hands packets to another.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "dp/abi/counters.h"
#include "dp/lb/flow_hash.h"
#include "dp/lb/snapshot.h"
#include "dp/net/parse.h"

namespace lb {

struct Work;

// What the first fragment tells those that follow.
struct FragmentNote {
  std::uint32_t target = 0;  // target id
  std::uint16_t port = 0;    // of the listener, host order
  std::uint16_t wire = 0;    // what may be seen of the flow's hash (wire_hash())
  std::uint32_t cookie = 0;  // geneve: the flow's (dp/lb/gateway.h)
};

class FragmentNotes {
 public:
  static constexpr std::uint32_t kNotes = 4096;
  static constexpr std::uint64_t kNoteNs = 30'000'000'000;  // as long as Linux keeps fragments for reassembly

  FragmentNotes() : notes_(std::make_unique<std::array<Note, kNotes>>()) {}

  // By the owner. False: a younger note than kNoteNs had to go.
  bool put(const Hash128& key, const FragmentNote& note, std::uint64_t now_ns);

  // By anyone.
  [[nodiscard]] std::optional<FragmentNote> find(const Hash128& key, std::uint64_t now_ns) const;

 private:
  static constexpr std::uint32_t kWays = 4;
  struct Note {
    std::uint64_t key = 0;  // 0: none
    std::uint64_t value = 0;
    std::uint64_t cookie = 0;
    std::uint64_t at_ns = 0;
  };
  std::unique_ptr<std::array<Note, kNotes>> notes_;
};

// What became of a packet that was held; `number` counts a pipeline's held packets from 0.
class HeldObserver {
 public:
  virtual ~HeldObserver() = default;
  // reason none: sent to `target` (an id) as the extra packet before this call; else dropped. kNoIndex where not reached.
  virtual void held_ended(std::uint64_t number, abi::DropReason reason, std::uint32_t listener, std::uint32_t target) = 0;
};

inline constexpr std::uint32_t kHeldPackets = 64;
inline constexpr std::uint32_t kHeldBytes = 2048;
inline constexpr std::uint64_t kHoldNs = 500'000'000;

struct HeldPacket {
  Hash128 key;
  std::uint64_t until_ns = 0;
  std::uint64_t number = 0;
  std::uint32_t length = 0;  // 0: free
  std::uint8_t in_port = 0;
  std::array<std::uint8_t, 128 + kHeldBytes> bytes;  // headroom for an outer header, then the frame
};

struct HeldPackets {
  std::uint32_t count = 0;
  std::uint64_t taken = 0;
  std::array<HeldPacket, kHeldPackets> packets;
};

// Packet i is a fragment to a VIP, as parsed. True: it is a first one, its key now complete, to be served like a whole
// packet. False: the verdict is set, or serve_rare() will set it.
bool take_fragment(Work& work, std::uint32_t i);

// The note that fragments of this packet's datagram go by, of any worker; none if its target is gone. `packet`: any fragment
// as it came, or as an appliance gives it back.
std::optional<FragmentNote> note_of(Work& work, const std::uint8_t* frame, const net::ParsedPacket& packet);

// Whether packet i, at or after stage vip, is one of first_fragments.
bool is_first_fragment(const Work& work, std::uint32_t i);

// After stage decide: notes where the burst's first fragments go, and sends those after them that wait for it.
void note_first_fragments(Work& work);

// Packet i, a later fragment, goes where the first one did, or is held.
void serve_later_fragment(Work& work, std::uint32_t i);

// Between bursts: what is held is sent, if its first fragment has come to any worker, or ends as fragment_timeout.
void tend_held(Work& work);

}  // namespace lb
