#include "dp/lb/translations.h"

#include <algorithm>
#include <bit>

namespace lb {
namespace {

using abi::Translation;
using abi::TranslationState;

constexpr std::uint32_t kWords = sizeof(Translation) / sizeof(std::uint64_t);
using Words = std::array<std::uint64_t, kWords>;
static_assert(offsetof(Translation, sequence) == 0);

std::uint32_t get(const std::uint32_t& word) {
  return __atomic_load_n(&word, __ATOMIC_RELAXED);
}
template <typename T>
void put(T& word, T value) {
  __atomic_store(&word, &value, __ATOMIC_RELAXED);
}

void begin_write(std::uint32_t& sequence) {
  put(sequence, sequence + 1);
  __atomic_thread_fence(__ATOMIC_RELEASE);
}
void end_write(std::uint32_t& sequence) {
  __atomic_store_n(&sequence, sequence + 1, __ATOMIC_RELEASE);
}
// For readers on other cores: by words, between two changes of `sequence`.
void store(Translation& to, Translation flow) {
  begin_write(to.sequence);
  flow.sequence = to.sequence;
  const auto words = std::bit_cast<Words>(flow);
  auto* out = reinterpret_cast<std::uint64_t*>(&to);
  for (std::uint32_t i = 0; i < kWords; ++i) put(out[i], words[i]);
  end_write(to.sequence);
}

std::uint32_t share_index(std::uint32_t worker, std::uint8_t protocol) {
  return 2 * worker + (protocol == static_cast<std::uint8_t>(abi::Protocol::udp) ? 1 : 0);
}

// 0: there is none.
std::uint32_t take_port(PortShare& share) {
  while (share.fresh < share.range.last && cell_of(share, share.fresh) != 0) ++share.fresh;
  if (share.fresh < share.range.last) return share.fresh++;
  const std::uint32_t port = share.first_free;
  if (port != 0) share.first_free = cell_of(share, port) & ~kPortFree;
  return port;
}

void give_port(PortShare& share, std::uint32_t port) {
  put(cell_of(share, port), kPortFree);
  if (share.first_free == 0) {
    share.first_free = port;
  } else {
    put(cell_of(share, share.last_free), kPortFree | port);
  }
  share.last_free = port;
}

}  // namespace

// ---- one worker's

std::uint32_t Translations::find(const Hash128& hash) const {
  for (std::uint32_t slot = heads_[head_of(hash)]; slot != kNoSlot; slot = links_[slot].next) {
    if (slots_[slot].hash[0] == hash.low && slots_[slot].hash[1] == hash.high) return slot;
  }
  return kNoSlot;
}

std::optional<Translation> Translations::peek_in(std::span<const Translation> slots, std::uint32_t slot) {
  constexpr int kTries = 16;
  if (slot >= slots.size()) return std::nullopt;
  const auto* from = reinterpret_cast<const std::uint64_t*>(&slots[slot]);
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const std::uint32_t before = __atomic_load_n(&slots[slot].sequence, __ATOMIC_ACQUIRE);
    if ((before & 1) != 0) continue;
    Words words;
    for (std::uint32_t i = 0; i < kWords; ++i) words[i] = __atomic_load_n(from + i, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (get(slots[slot].sequence) != before) continue;
    const auto flow = std::bit_cast<Translation>(words);
    return flow.state == TranslationState::free ? std::nullopt : std::optional(flow);
  }
  return std::nullopt;
}

std::optional<Translation> Translations::peek(const Hash128& hash, std::uint32_t& slot) const {
  constexpr int kTries = 8;
  constexpr int kMaxSteps = 64;  // chains have one or two; a longer walk has gone astray
  if (slots_.empty()) return std::nullopt;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const std::uint32_t before = __atomic_load_n(&changes_, __ATOMIC_ACQUIRE);
    slot = get(heads_[head_of(hash)]);
    for (int step = 0; slot != kNoSlot && step < kMaxSteps; ++step) {
      const auto flow = peek(slot);
      if (flow && flow->hash[0] == hash.low && flow->hash[1] == hash.high) return flow;
      slot = get(links_[slot].next);
    }
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if ((before & 1) == 0 && get(changes_) == before) return std::nullopt;
  }
  return std::nullopt;
}

PortShare* Translations::share_of(const Translation& flow) const {
  const std::uint32_t address = book_->find_address(flow.snat);
  return address == kNoSlot ? nullptr : &book_->share(address, worker_, flow.protocol);
}

void Translations::link_client(std::uint32_t slot) {
  std::uint32_t& head = heads_[head_of({slots_[slot].hash[0], slots_[slot].hash[1]})];
  begin_write(changes_);
  put(links_[slot].next, head);
  put(head, slot);
  end_write(changes_);
}

void Translations::forget_client(std::uint32_t slot) {
  std::uint32_t* link = &heads_[head_of({slots_[slot].hash[0], slots_[slot].hash[1]})];
  while (*link != kNoSlot && *link != slot) link = &links_[*link].next;
  if (*link == kNoSlot) return;
  begin_write(changes_);
  put(*link, links_[slot].next);
  end_write(changes_);
}

void Translations::link_oldest(std::uint32_t slot) {
  PortShare& share = *share_of(slots_[slot]);
  links_[slot].older = share.newest;
  links_[slot].newer = kNoSlot;
  (share.newest != kNoSlot ? links_[share.newest].newer : share.oldest) = slot;
  share.newest = slot;
}

void Translations::unlink_oldest(std::uint32_t slot) {
  PortShare& share = *share_of(slots_[slot]);
  const Links& links = links_[slot];
  (links.older != kNoSlot ? links_[links.older].newer : share.oldest) = links.newer;
  (links.newer != kNoSlot ? links_[links.newer].older : share.newest) = links.older;
}

bool Translations::evict(std::span<PortShare* const> shares) {
  std::uint32_t oldest = kNoSlot;
  for (const PortShare* share : shares) {
    if (share->oldest == kNoSlot) continue;
    const bool older = oldest == kNoSlot || static_cast<std::int32_t>(slots_[share->oldest].tick - slots_[oldest].tick) < 0;
    if (older) oldest = share->oldest;
  }
  if (oldest == kNoSlot) return false;
  release(oldest);
  return true;
}

std::uint32_t Translations::take_slot(std::uint64_t& evicted) {
  if (first_free_ == kNoSlot && never_used_ == slots_.size()) {
    std::array<PortShare*, std::size_t{2} * abi::kMaxSnatAddresses> all{};
    std::uint32_t count = 0;
    for (std::uint32_t address = 0; address < book_->known_.load(std::memory_order_acquire); ++address) {
      for (std::uint32_t i = 0; i < 2; ++i) all[count++] = &book_->shares_[address][2 * worker_ + i];
    }
    if (!evict({all.data(), count})) return kNoSlot;
    ++evicted;
  }
  if (first_free_ == kNoSlot) return never_used_++;
  const std::uint32_t slot = first_free_;
  first_free_ = links_[slot].next;
  return slot;
}

std::uint32_t Translations::allocate(const Wanted& wanted, std::uint64_t& evicted) {
  std::array<PortShare*, abi::kMaxSnatAddresses> shares{};
  std::array<const abi::IpAddress*, abi::kMaxSnatAddresses> addresses{};
  std::uint32_t count = 0;
  for (std::size_t n = 0; n < wanted.addresses.size() && count < shares.size(); ++n) {
    const abi::IpAddress& address = wanted.addresses[(wanted.turn + n) % wanted.addresses.size()];
    const std::uint32_t known = book_->find_address(address);
    if (known == kNoSlot) continue;
    addresses[count] = &address;
    shares[count++] = &book_->share(known, worker_, wanted.protocol);
  }
  const auto take = [&](std::uint32_t& from) {
    for (from = 0; from < count; ++from) {
      if (const std::uint32_t port = take_port(*shares[from]); port != 0) return port;
    }
    return 0U;
  };
  std::uint32_t from = 0;
  std::uint32_t port = take(from);
  if (port == 0 && evict({shares.data(), count})) {
    ++evicted;
    port = take(from);
  }
  if (port == 0) return kNoSlot;
  const std::uint32_t slot = take_slot(evicted);
  if (slot == kNoSlot) {
    give_port(*shares[from], port);
    return kNoSlot;
  }
  Translation flow = slots_[slot];
  flow.state = TranslationState::free;
  flow.snat = *addresses[from];
  flow.snat_port = static_cast<std::uint16_t>(port);
  flow.protocol = wanted.protocol;
  store(slots_[slot], flow);
  ++used_;
  return slot;
}

void Translations::fill(std::uint32_t slot, const Translation& flow) {
  Translation& to = slots_[slot];
  Translation whole = flow;
  whole.snat = to.snat;
  whole.snat_port = to.snat_port;
  whole.protocol = to.protocol;
  store(to, whole);
  put(cell_of(*share_of(to), to.snat_port), kPortUsed | slot);
  link_client(slot);
  if (!is_proven(to.state)) link_oldest(slot);
}

void Translations::release(std::uint32_t slot) {
  Translation& flow = slots_[slot];
  if (!is_proven(flow.state)) unlink_oldest(slot);
  forget_client(slot);
  PortShare& share = *share_of(flow);
  begin_write(flow.sequence);
  put(flow.state, TranslationState::free);
  end_write(flow.sequence);
  give_port(share, flow.snat_port);
  put(links_[slot].next, first_free_);
  first_free_ = slot;
  --used_;
}

void Translations::set_state(std::uint32_t slot, TranslationState state) {
  Translation& flow = slots_[slot];
  if (flow.state == state) return;
  if (!is_proven(flow.state) && is_proven(state)) unlink_oldest(slot);
  put(flow.state, state);
}

void Translations::set_target(std::uint32_t slot, std::uint32_t id, const abi::IpAddress& address, std::uint16_t port) {
  Translation& flow = slots_[slot];
  const auto words = std::bit_cast<std::array<std::uint64_t, 2>>(address);
  begin_write(flow.sequence);
  auto* out = reinterpret_cast<std::uint64_t*>(&flow.target);
  for (std::uint32_t i = 0; i < 2; ++i) put(out[i], words[i]);
  put(flow.target_port, port);
  put(flow.target_id, id);
  end_write(flow.sequence);
}

void Translations::set_way(std::uint32_t slot, const WayBack& way) {
  Translation& flow = slots_[slot];
  const auto words = std::bit_cast<std::array<std::uint64_t, 2>>(way);
  if (flow.way == words) return;
  begin_write(flow.sequence);
  for (std::uint32_t i = 0; i < 2; ++i) put(flow.way[i], words[i]);
  end_write(flow.sequence);
}

// ---- all workers'

std::uint32_t SnatBook::find_address(const abi::IpAddress& address) const {
  for (std::uint32_t at = first_cell(address);; at = (at + 1) % kCells) {
    const std::uint32_t number = __atomic_load_n(&cells_[at].number, __ATOMIC_ACQUIRE);
    if (number == kNoSlot || cells_[at].address == address) return number;
  }
}

PortShare& SnatBook::share(std::uint32_t address, std::uint32_t worker, std::uint8_t protocol) {
  return shares_[address][share_index(worker, protocol)];
}

SnatBook::Place SnatBook::find_port(const abi::IpAddress& address, std::uint16_t port, std::uint8_t protocol) {
  const std::uint32_t known = find_address(address);
  if (known == kNoSlot || port < kFirstSnatPort) return {};
  const std::uint32_t worker = owner_of(port, workers());
  const std::uint32_t cell = get(cell_of(share(known, worker, protocol), port));
  if ((cell & kPortUsed) == 0) return {worker, kNoSlot};
  return {worker, cell & ~kPortUsed};
}

std::uint64_t SnatBook::capacity(std::uint32_t worker) const {
  const PortRange range = ports_of(worker, workers());
  const std::uint64_t ports = std::uint64_t{2} * (range.last - range.first) * known_.load(std::memory_order_acquire);
  return std::min<std::uint64_t>(ports, tables_[worker].capacity());
}

}  // namespace lb
