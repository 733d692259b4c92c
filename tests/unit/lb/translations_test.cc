#include "dp/lb/translations.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>

namespace lb {
namespace {

using abi::Translation;
using abi::TranslationState;

constexpr auto kTcp = static_cast<std::uint8_t>(abi::Protocol::tcp);
const abi::IpAddress kSnat = abi::IpAddress::v4(10, 0, 0, 9);
const abi::IpAddress kSnat2 = abi::IpAddress::v4(10, 0, 0, 10);

// Workers with translations on the addresses kSnat and kSnat2.
struct Book {
  explicit Book(std::uint32_t workers = 1, std::size_t slots = 70'000) : memory(workers, std::vector<Translation>(slots)) {
    make();
  }
  void make() {
    book = std::make_unique<SnatBook>(std::vector<std::span<Translation>>(memory.begin(), memory.end()));
    EXPECT_TRUE(book->learn(addresses));
  }
  std::uint32_t open(std::uint64_t hash, std::uint32_t tick = 0, std::span<const abi::IpAddress> from = {},
                     std::uint32_t worker = 0) {
    Translations& table = book->of(worker);
    const std::uint32_t slot =
        table.allocate({.addresses = from.empty() ? std::span(addresses).first(1) : from, .protocol = kTcp}, evicted);
    if (slot == kNoSlot) return slot;
    Translation flow;
    flow.state = TranslationState::opening;
    flow.tick = tick;
    flow.client = flow.vip = flow.target = abi::IpAddress::v4(1, 2, 3, 4);
    flow.hash = {hash, hash};
    table.fill(slot, flow);
    return slot;
  }
  std::uint16_t port(std::uint32_t slot, std::uint32_t worker = 0) { return book->of(worker).at(slot).snat_port; }

  std::vector<abi::IpAddress> addresses{kSnat, kSnat2};
  std::vector<std::vector<Translation>> memory;
  std::unique_ptr<SnatBook> book;
  std::uint64_t evicted = 0;
};

Hash128 hash_of(std::uint64_t n) {
  return {n, n};
}

TEST(Translations, EveryPortHasOneOwnerAndShares) {
  for (const std::uint32_t workers : {1U, 2U, 3U, 4U, 7U, 64U}) {
    std::uint32_t owned = 0;
    for (std::uint32_t worker = 0; worker < workers; ++worker) {
      const PortRange range = ports_of(worker, workers);
      owned += range.last - range.first;
      EXPECT_NEAR(range.last - range.first, kSnatPorts / workers, 1);
      EXPECT_EQ(owner_of(range.first, workers), worker);
      EXPECT_EQ(owner_of(range.last - 1, workers), worker);
    }
    EXPECT_EQ(owned, kSnatPorts);
  }
}

TEST(Translations, FoundByClientAndByPort) {
  Book b(2);
  const std::uint32_t slot = b.open(7, 0, {}, 1);
  EXPECT_EQ(b.book->of(1).find(hash_of(7)), slot);
  EXPECT_EQ(b.book->of(1).find(hash_of(8)), kNoSlot);
  const auto place = b.book->find_port(kSnat, b.port(slot, 1), kTcp);
  EXPECT_EQ(place.worker, 1U);
  EXPECT_EQ(place.slot, slot);
  EXPECT_EQ(b.book->find_port(kSnat2, b.port(slot, 1), kTcp).slot, kNoSlot);
  EXPECT_EQ(b.book->find_port(kSnat, b.port(slot, 1), static_cast<std::uint8_t>(abi::Protocol::udp)).slot, kNoSlot);
  std::uint32_t seen = 0;
  EXPECT_TRUE(b.book->of(1).peek(hash_of(7), seen));
  EXPECT_EQ(seen, slot);
}

TEST(Translations, APortComesRoundAgainAfterAllOthers) {
  Book b;
  const std::uint32_t first = b.open(1);
  const std::uint16_t port = b.port(first);
  b.book->of(0).release(first);
  EXPECT_EQ(b.book->find_port(kSnat, port, kTcp).slot, kNoSlot);
  for (std::uint32_t n = 1; n < kSnatPorts; ++n) ASSERT_NE(b.port(b.open(n + 1)), port) << n;
  EXPECT_EQ(b.port(b.open(99'999)), port);
}

TEST(Translations, WithoutAPortTheOldestUnprovenGoesAndNoOther) {
  Book b;
  std::uint32_t unproven = kNoSlot;
  for (std::uint32_t n = 0; n < kSnatPorts; ++n) {
    const std::uint32_t slot = b.open(n + 1, n);
    ASSERT_NE(slot, kNoSlot);
    b.book->of(0).set_state(slot, n == 500 ? TranslationState::answered : TranslationState::established);
    if (n == 500) unproven = slot;
  }
  EXPECT_EQ(b.evicted, 0U);
  const std::uint16_t port = b.port(unproven);
  const std::uint32_t slot = b.open(100'000);
  EXPECT_EQ(b.evicted, 1U);
  EXPECT_EQ(b.port(slot), port);
  EXPECT_EQ(b.book->of(0).find(hash_of(501)), kNoSlot);
  b.book->of(0).set_state(slot, TranslationState::established);
  EXPECT_EQ(b.open(100'001), kNoSlot) << "every flow is proven";
  EXPECT_NE(b.open(100'001, 0, b.addresses), kNoSlot) << "the next address has ports";
}

TEST(Translations, WithoutASlotTheOldestUnprovenGoes) {
  Book b(1, 3);
  b.book->of(0).set_state(b.open(1, 10), TranslationState::answered);
  b.open(2, 5);
  b.book->of(0).set_state(b.open(3, 0), TranslationState::established);
  EXPECT_NE(b.open(4, 20), kNoSlot);
  EXPECT_EQ(b.evicted, 1U);
  EXPECT_EQ(b.book->of(0).used(), 3U);
  EXPECT_EQ(b.book->of(0).find(hash_of(1)), kNoSlot) << "a target answers every SYN";
  EXPECT_NE(b.book->of(0).find(hash_of(2)), kNoSlot);
  EXPECT_NE(b.book->of(0).find(hash_of(3)), kNoSlot);
  EXPECT_NE(b.book->of(0).find(hash_of(4)), kNoSlot);
}

TEST(Translations, ForgottenClientsAreStillFoundByPort) {
  Book b;
  const std::uint32_t slot = b.open(1);
  b.book->of(0).forget_client(slot);
  EXPECT_EQ(b.book->of(0).find(hash_of(1)), kNoSlot);
  EXPECT_EQ(b.book->find_port(kSnat, b.port(slot), kTcp).slot, slot);
  b.book->of(0).release(slot);
  EXPECT_EQ(b.book->of(0).used(), 0U);
}

TEST(Translations, ARestartKeepsFlowsAndTheirPorts) {
  Book b;
  const std::uint32_t slot = b.open(1);
  const std::uint32_t gone = b.open(2);
  const std::uint16_t port = b.port(slot);
  b.book->of(0).set_state(slot, TranslationState::answered);
  b.book->of(0).release(gone);
  b.memory[0][9].state = TranslationState::established;  // torn: no port, no protocol
  b.make();
  EXPECT_EQ(b.book->rebuild(), 1U);
  EXPECT_EQ(b.book->of(0).find(hash_of(1)), slot);
  EXPECT_EQ(b.book->find_port(kSnat, port, kTcp).slot, slot);
  EXPECT_EQ(b.memory[0][9].state, TranslationState::free);
  std::set<std::uint16_t> ports{port};
  for (std::uint32_t n = 10; n < 1000; ++n) EXPECT_TRUE(ports.insert(b.port(b.open(n))).second);
}

TEST(Translations, FlowsOfAnAddressThatIsNoLongerKnownEnd) {
  Book b;
  b.open(1);
  b.addresses = {kSnat2};
  b.make();
  EXPECT_EQ(b.book->rebuild(), 0U);
}

TEST(Translations, AnotherNumberOfWorkersOwnsWhatItsPortsSay) {
  for (const auto& [from, to] : {std::pair(1U, 2U), {2U, 1U}, {2U, 3U}}) {
    Book b(from);
    std::vector<std::uint16_t> ports;
    for (std::uint32_t n = 0; n < 40; ++n) ports.push_back(b.port(b.open(n, 0, {}, n % from), n % from));
    Book moved(to);
    EXPECT_EQ(rehome_translations(std::vector<std::span<const Translation>>(b.memory.begin(), b.memory.end()),
                                  std::vector<std::span<Translation>>(moved.memory.begin(), moved.memory.end())),
              0U);
    EXPECT_EQ(moved.book->rebuild(), 40U);
    for (const std::uint16_t port : ports) {
      const auto place = moved.book->find_port(kSnat, port, kTcp);
      ASSERT_NE(place.slot, kNoSlot);
      EXPECT_EQ(place.worker, owner_of(port, to));
    }
  }
}

TEST(Translations, KnowsNoMoreAddressesThanItHasRoomFor) {
  Book b;
  std::vector<abi::IpAddress> many;
  for (std::uint32_t n = 0; n < abi::kMaxSnatAddresses - 2; ++n)
    many.push_back(abi::IpAddress::v4(10, 1, 0, static_cast<std::uint8_t>(n)));
  EXPECT_TRUE(b.book->learn(many));
  many.push_back(abi::IpAddress::v4(10, 2, 0, 0));
  EXPECT_FALSE(b.book->learn(many));
}

TEST(Translations, ReadersOnOtherCoresSeeWholeFlowsOrNone) {
  Book b(1, 64);
  std::atomic<bool> stop{false};
  std::thread reader([&] {
    while (!stop.load()) {
      for (std::uint64_t n = 1; n <= 8; ++n) {
        std::uint32_t slot = 0;
        const auto flow = b.book->of(0).peek(hash_of(n), slot);
        if (flow) {
          EXPECT_EQ(flow->hash[0], n);
          EXPECT_EQ(flow->client_port, n);
          EXPECT_EQ(flow->vip_port, n);
        }
      }
    }
  });
  Translations& table = b.book->of(0);
  for (int round = 0; round < 20'000; ++round) {
    const std::uint64_t n = 1 + static_cast<std::uint64_t>(round) % 8;
    if (const std::uint32_t slot = table.find(hash_of(n)); slot != kNoSlot) table.release(slot);
    const std::uint32_t slot = table.allocate({.addresses = b.addresses, .protocol = kTcp}, b.evicted);
    ASSERT_NE(slot, kNoSlot);
    Translation flow;
    flow.state = TranslationState::opening;
    flow.client_port = flow.vip_port = static_cast<std::uint16_t>(n);
    flow.hash = {n, n};
    table.fill(slot, flow);
  }
  stop = true;
  reader.join();
}

}  // namespace
}  // namespace lb
