// What is done with translations while no packet waits: at start-up, and when a snapshot brings addresses.
#include <algorithm>
#include <bit>

#include "dp/lb/translations.h"

namespace lb {
namespace {

using abi::Translation;
using abi::TranslationState;

bool is_whole(const Translation& flow) {
  const bool l4 = flow.protocol == static_cast<std::uint8_t>(abi::Protocol::tcp) ||
                  flow.protocol == static_cast<std::uint8_t>(abi::Protocol::udp);
  return flow.state != TranslationState::free && static_cast<std::uint8_t>(flow.state) < abi::kTranslationStateCount && l4 &&
         flow.snat_port >= kFirstSnatPort && static_cast<std::uint8_t>(flow.client_address) < abi::kClientAddressCount &&
         flow.client.is_v4() == flow.vip.is_v4() && flow.snat.is_v4() == flow.target.is_v4();
}

}  // namespace

void Translations::attach(SnatBook& book, std::uint32_t worker, std::span<Translation> slots) {
  book_ = &book;
  worker_ = worker;
  slots_ = slots;
  heads_.assign(std::bit_ceil(std::max<std::size_t>(slots.size(), 2)), kNoSlot);
  links_.assign(slots.size(), {});
}

bool Translations::adopt(std::uint32_t slot) {
  Translation& flow = slots_[slot];
  if (!is_whole(flow) || owner_of(flow.snat_port, book_->workers()) != worker_) return false;
  PortShare* share = share_of(flow);
  if (share == nullptr || cell_of(*share, flow.snat_port) != 0) return false;
  constexpr std::size_t kMaxPorts = abi::kMaxPorts;
  if (std::bit_cast<WayBack>(flow.way).own_port >= kMaxPorts) flow.way = {};
  flow.sequence &= ~1U;
  cell_of(*share, flow.snat_port) = kPortUsed | slot;
  link_client(slot);
  if (!is_proven(flow.state)) link_oldest(slot);
  ++used_;
  return true;
}

void Translations::rebuild() {
  never_used_ = 0;
  for (std::uint32_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot].state == TranslationState::free) continue;
    if (adopt(slot)) {
      never_used_ = slot + 1;
    } else {
      slots_[slot] = {};
    }
  }
  for (std::uint32_t slot = 0; slot < never_used_; ++slot) {
    if (slots_[slot].state != TranslationState::free) continue;
    links_[slot].next = first_free_;
    first_free_ = slot;
  }
}

SnatBook::SnatBook(std::span<const std::span<Translation>> slots)
    : tables_(slots.size()), rings_(slots.size() * slots.size()) {
  for (std::uint32_t worker = 0; worker < slots.size(); ++worker) tables_[worker].attach(*this, worker, slots[worker]);
}

std::uint32_t SnatBook::add(const abi::IpAddress& address) {
  const std::uint32_t number = known_.load(std::memory_order_relaxed);
  if (number == abi::kMaxSnatAddresses) return kNoSlot;
  shares_[number] = std::vector<PortShare>(std::size_t{2} * workers());
  for (std::uint32_t i = 0; i < shares_[number].size(); ++i) {
    PortShare& share = shares_[number][i];
    share.range = ports_of(i / 2, workers());
    share.fresh = share.range.first;
    share.cells = std::make_unique<std::uint32_t[]>(share.range.last - share.range.first);
  }
  std::uint32_t at = first_cell(address);
  while (cells_[at].number != kNoSlot) at = (at + 1) % kCells;
  cells_[at].address = address;
  __atomic_store_n(&cells_[at].number, number, __ATOMIC_RELEASE);
  known_.store(number + 1, std::memory_order_release);
  return number;
}

bool SnatBook::learn(std::span<const abi::IpAddress> addresses) {
  for (const abi::IpAddress& address : addresses) {
    if (find_address(address) == kNoSlot && add(address) == kNoSlot) return false;
  }
  return true;
}

std::uint64_t SnatBook::rebuild() {
  std::uint64_t kept = 0;
  for (Translations& table : tables_) {
    table.rebuild();
    kept += table.used();
  }
  return kept;
}

std::uint64_t rehome_translations(std::span<const std::span<const Translation>> from,
                                  std::span<const std::span<Translation>> to) {
  std::vector<std::size_t> next(to.size(), 0);
  std::uint64_t no_room = 0;
  for (const std::span<const Translation> table : from) {
    for (const Translation& flow : table) {
      if (!is_whole(flow) || (flow.sequence & 1) != 0) continue;
      const std::uint32_t owner = owner_of(flow.snat_port, static_cast<std::uint32_t>(to.size()));
      if (next[owner] == to[owner].size()) {
        ++no_room;
      } else {
        to[owner][next[owner]++] = flow;
      }
    }
  }
  return no_room;
}

}  // namespace lb
