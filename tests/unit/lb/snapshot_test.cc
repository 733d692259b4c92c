#include "dp/lb/snapshot.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <random>

#include "tests/unit/lb/world.h"

namespace lb {
namespace {

using test::AlignedBytes;
using test::World;
using test::WorldBytes;

World small_world() {
  World world;
  const auto vip4 = world.add_vip(abi::IpAddress::v4(192, 0, 2, 10));
  const auto vip6 = world.add_vip({{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}});
  const auto blue = world.add_group(abi::ForwardingMode::ipip);
  const auto green = world.add_group(abi::ForwardingMode::l2dsr);
  for (std::uint8_t i = 0; i < 3; ++i) world.add_target(blue, abi::IpAddress::v4(10, 0, 0, i));
  for (std::uint8_t i = 0; i < 2; ++i) world.add_target(green, abi::IpAddress::v4(10, 0, 1, i));
  world.add_listener(vip4, abi::Protocol::tcp, 80, 80, {{blue, 3}, {green, 1}});
  world.add_listener(vip4, abi::Protocol::udp, 0, 65535, {{blue, 1}});
  world.limit(world.add_listener(vip6, abi::Protocol::tcp, 1000, 2000, {{green, 1}}), {});
  return world;
}

abi::Refusal refusal_of(const WorldBytes& bytes) {
  const auto opened = bytes.open();
  return opened ? abi::Refusal::none : opened.error().refusal;
}

// Walks everything the packet path can reach, as a hostile snapshot that was accepted would be walked.
std::uint64_t use(const Snapshot& snapshot) {
  std::uint64_t sum = snapshot.root().fleet_seed;
  for (const auto& vip : snapshot.vips()) sum += snapshot.name(vip.name).size() + vip.address.bytes[15];
  for (const auto& cell : snapshot.vip_table()) {
    if (cell.kind == abi::VipCellKind::exact) sum += snapshot.listeners()[cell.index].vip;
    for (std::uint32_t i = 0; cell.kind == abi::VipCellKind::ranges && i < cell.count; ++i) {
      sum += snapshot.listeners()[snapshot.range_listeners()[cell.index + i]].vip;
    }
  }
  for (const auto& listener : snapshot.listeners()) {
    if (listener.vip != abi::kNoIndex) sum += snapshot.vips()[listener.vip].address.bytes[0];
    sum += snapshot.name(listener.name).size();
    for (std::uint32_t g = 0; g < listener.group_count; ++g) sum += snapshot.groups()[listener.groups[g].group].slot_count;
  }
  for (std::uint32_t g = 0; g < snapshot.groups().size(); ++g) {
    const auto& group = snapshot.groups()[g];
    for (std::uint32_t s = 0; s < group.slot_count; ++s) {
      sum += snapshot.targets()[snapshot.group_targets()[group.first_target + snapshot.slots(g)[s]]].port;
    }
  }
  for (const auto& target : snapshot.targets()) {
    if ((target.flags & abi::kTargetLive) == 0) continue;
    sum += snapshot.groups()[target.group].slot_count;
    if ((target.flags & abi::kTargetResolved) != 0)
      sum += static_cast<unsigned char>(snapshot.ports()[target.out_port].name[0]);
  }
  return sum;
}

TEST(Snapshot, RefusesTunnelValuesThatDoNotFitTheMode) {
  const auto said = [](abi::ForwardingMode mode, std::uint8_t flags, std::uint32_t word) {
    test::World world;
    world.add_target(world.add_group(mode), abi::IpAddress::v4(10, 0, 0, 1));
    world.targets[0].tunnel_flags = flags;
    world.targets[0].tunnel_word = word;
    const auto opened = test::make_bytes(world).open();
    return opened ? std::string() : opened.error().text;
  };
  using enum abi::ForwardingMode;
  EXPECT_EQ(said(gue, 0, 6080), "");
  EXPECT_EQ(said(gue, abi::kTunnelZeroChecksum, 65535), "");
  EXPECT_EQ(said(gue, 0, 0), "targets[0]: tunnel_word 0 in mode 2");
  EXPECT_EQ(said(gue, 0, 65536), "targets[0]: tunnel_word 65536 in mode 2");
  EXPECT_EQ(said(gue, abi::kTunnelKeyed, 6080), "targets[0]: tunnel_flags 1 in mode 2");
  EXPECT_EQ(said(gre, 0, 0), "");
  EXPECT_EQ(said(gre, abi::kTunnelKeyed, 0xffffffff), "");
  EXPECT_EQ(said(gre, 0, 7), "targets[0]: tunnel_word 7 in mode 3");
  EXPECT_EQ(said(gre, abi::kTunnelZeroChecksum, 0), "targets[0]: tunnel_flags 2 in mode 3");
}

TEST(Snapshot, AcceptsWhatIsInOrder) {
  const auto opened = test::make_bytes(small_world()).open();
  ASSERT_TRUE(opened) << opened.error().text;
  EXPECT_EQ((*opened)->listeners().size(), 3U);
  EXPECT_EQ((*opened)->generation(), (abi::Generation{1, 1}));
  EXPECT_EQ((*opened)->slots(0)[4], 4 % 3);
  EXPECT_NE(use(**opened), 0U);
}

TEST(Snapshot, RefusesWrongHeadersByName) {
  const auto with = [](auto change) {
    WorldBytes bytes = test::make_bytes(small_world());
    change(bytes.root.at<abi::Root>(0).header);
    return refusal_of(bytes);
  };
  EXPECT_EQ(with([](auto& h) { h.magic ^= 1; }), abi::Refusal::magic);
  EXPECT_EQ(with([](auto& h) { h.version += 1; }), abi::Refusal::version);
  EXPECT_EQ(with([](auto& h) { h.layout_fingerprint ^= 1; }), abi::Refusal::fingerprint);
  EXPECT_EQ(with([](auto& h) { h.size_bytes -= 64; }), abi::Refusal::size);
  EXPECT_EQ(with([](auto& h) { h.checksum ^= 1; }), abi::Refusal::checksum);
  EXPECT_EQ(with([](auto& h) { h.kind = abi::SegmentKind::groups; }), abi::Refusal::bounds);
}

TEST(Snapshot, RefusesTruncatedRoots) {
  const WorldBytes bytes = test::make_bytes(small_world());
  SegmentBytes slots = bytes.slots.segment();
  for (std::size_t size = 0; size < bytes.root.size(); size += 8) {
    SegmentBytes root = bytes.root.segment();
    root.bytes = root.bytes.first(size);
    EXPECT_FALSE(Snapshot::open(root, [&](std::uint64_t) { return &slots; })) << size;
  }
}

TEST(Snapshot, RefusesWhenASegmentIsMissingOrIsNotTheOneNamed) {
  const WorldBytes bytes = test::make_bytes(small_world());
  auto missing = Snapshot::open(bytes.root.segment(), [](std::uint64_t) { return nullptr; });
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().refusal, abi::Refusal::missing_segment);
  bytes.slots.at<abi::SegmentHeader>(0).segment_id = 8;
  test::seal(bytes.slots);
  EXPECT_FALSE(bytes.open());
}

// One wrong field at a time, checksum corrected: the verifier must find it by its bounds.
TEST(Snapshot, RefusesEveryIndexAndEnumeratorOutOfRange) {
  const auto with = [](auto change) {
    WorldBytes bytes = test::make_bytes(small_world());
    auto& root = bytes.root.at<abi::Root>(0);
    change(bytes, root);
    test::seal(bytes.root);
    const auto opened = bytes.open();
    return opened ? std::string("accepted") : opened.error().text;
  };
  const auto listener = [](WorldBytes& b, abi::Root& r) -> abi::Listener& {
    return b.root.at<abi::Listener>(r.listeners.offset);
  };
  const auto group = [](WorldBytes& b, abi::Root& r) -> abi::TargetGroup& {
    return b.root.at<abi::TargetGroup>(r.groups.offset);
  };
  const auto target = [](WorldBytes& b, abi::Root& r) -> abi::Target& { return b.root.at<abi::Target>(r.targets.offset); };
#define REFUSED(part, change) \
  EXPECT_EQ(with([&](WorldBytes& b, abi::Root& r) { part(b, r).change; }).substr(0, sizeof(#part) - 1), #part) << #change
  REFUSED(listener, vip = 2);
  REFUSED(listener, first_port = 81);
  REFUSED(listener, protocol = 1);
  REFUSED(listener, draining = 2);
  REFUSED(listener, group_count = 0);
  REFUSED(listener, group_count = 9);
  REFUSED(listener, total_weight = 5);
  REFUSED(listener, groups[1].cumulative_weight = 2);
  REFUSED(listener, groups[0].group = 2);
  REFUSED(listener, counter_index = abi::kMaxListeners);
  REFUSED(listener, name.length = 6);
  REFUSED(listener, name.offset = 0xffffffff);
  REFUSED(group, segment = 1);
  REFUSED(group, slots_offset = 65);
  REFUSED(group, slots_offset = ~0ULL << 6);
  REFUSED(group, slot_count = 1000);
  REFUSED(group, first_target = 4);
  REFUSED(group, target_count = 2);
  REFUSED(group, tcp_idle_timeout_s = 0);
  REFUSED(group, udp_idle_timeout_s = 100000);
  REFUSED(group, stickiness = static_cast<abi::Stickiness>(7));
  REFUSED(group, fail_open = 2);
  REFUSED(target, group = 2);
  REFUSED(target, flags = 16);
  REFUSED(target, tracked = static_cast<abi::TrackedFlows>(3));
  REFUSED(target, state = static_cast<abi::TargetState>(7));
  REFUSED(target, out_port = 2);
  REFUSED(target, mode = abi::ForwardingMode::l2dsr);
  REFUSED(target, vlan = 4095);
  REFUSED(target, mtu_bytes = 67);
  REFUSED(target, tunnel_flags = abi::kTunnelKeyed);
  REFUSED(target, tunnel_word = 1);
#undef REFUSED
  EXPECT_NE(with([](WorldBytes&, abi::Root& r) { r.vip_table.count -= 1; }).find("power of two"), std::string::npos);
  EXPECT_NE(
      with([](WorldBytes& b, abi::Root& r) { b.root.at<abi::Vip>(r.vips.offset).gateway = 0; }).find("vips[0]: gateway 0"),
      std::string::npos);  // that listener is for a port
  EXPECT_NE(
      with([](WorldBytes& b, abi::Root& r) { b.root.at<abi::Port>(r.ports.offset).gateway = 99; }).find("ports[0]: gateway"),
      std::string::npos);
  EXPECT_NE(with([](WorldBytes& b, abi::Root& r) {
              b.root.at<abi::Listener>(r.listeners.offset).protocol = 0;
            }).find("has no ports"),
            std::string::npos);  // but stands in the VIP table
  EXPECT_NE(with([](WorldBytes&, abi::Root& r) { r.targets.count = 1U << 21; }).find("at most"), std::string::npos);
  EXPECT_NE(with([](WorldBytes&, abi::Root& r) { r.names.offset = ~0ULL << 6; }).find("leaves the root"), std::string::npos);
  const auto limits = [](WorldBytes& b, abi::Root& r) -> abi::RateLimits& {
    return b.root.at<abi::RateLimits>(r.rate_limits.offset);
  };
  const std::pair<const char*, std::function<void(WorldBytes&, abi::Root&)>> rates[] = {
      {"rate limits 1 of 1", [&](WorldBytes& b, abi::Root& r) { (&listener(b, r))[2].rate_limits = 1; }},
      {"listeners[2]: guards 0", [&](WorldBytes& b, abi::Root& r) { (&listener(b, r))[2].guards = 0; }},
      {"listeners[0]: guards 2", [&](WorldBytes& b, abi::Root& r) { listener(b, r).guards = abi::kGuardRates; }},
      {"listeners[0]: guards 1", [&](WorldBytes& b, abi::Root& r) { listener(b, r).guards = abi::kGuardSecurity; }},
      {"action 3", [&](WorldBytes& b, abi::Root& r) { limits(b, r).action = abi::RateAction{3}; }},
      {"dscp 64", [&](WorldBytes& b, abi::Root& r) { limits(b, r).dscp = 64; }},
      {"prefix lengths 95", [&](WorldBytes& b, abi::Root& r) { limits(b, r).prefix_v4 = 95; }},
      {"prefix lengths 128, 129", [&](WorldBytes& b, abi::Root& r) { limits(b, r).prefix_v6 = 129; }},
      {"source: cost", [&](WorldBytes& b, abi::Root& r) { limits(b, r).source.cost[2] = abi::kMaxRateCost + 1; }},
      {"listener: cost", [&](WorldBytes& b, abi::Root& r) { limits(b, r).listener.hold[0] = abi::kMaxRateHold + 1; }},
      {"rate_limits: 65537 elements", [](WorldBytes&, abi::Root& r) { r.rate_limits.count = abi::kMaxRateLimits + 1; }},
  };
  for (const auto& [text, change] : rates) EXPECT_NE(with(change).find(text), std::string::npos) << with(change);
  EXPECT_NE(with([](WorldBytes&, abi::Root& r) { r.hygiene = abi::kHygieneAll + 1; }).find("hygiene"), std::string::npos);
  EXPECT_NE(with([](WorldBytes&, abi::Root& r) { r.tunnel_source_v4.prefix_length = 95; }).find("prefix length"),
            std::string::npos);
  EXPECT_NE(
      with([](WorldBytes&, abi::Root& r) { r.tunnel_source_v6.prefix = abi::IpAddress::v4(1, 2, 3, 4); }).find("family"),
      std::string::npos);
}

TEST(Snapshot, RefusesASlotThatNamesNoTarget) {
  const WorldBytes bytes = test::make_bytes(small_world());
  bytes.slots.at<std::uint16_t>(64 + 2 * 50) = 3;
  test::seal(bytes.slots);
  auto& root = bytes.root.at<abi::Root>(0);
  bytes.root.at<abi::SegmentEntry>(root.segments.offset).checksum = bytes.slots.at<abi::SegmentHeader>(0).checksum;
  test::seal(bytes.root);
  const auto opened = bytes.open();
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().text.find("a slot names target 3 of 3"), std::string::npos) << opened.error().text;
}

TEST(Snapshot, RefusesAVipTableWhoseCellsALookupWouldNotReach) {
  const WorldBytes bytes = test::make_bytes(small_world());
  auto& root = bytes.root.at<abi::Root>(0);
  auto* cells = &bytes.root.at<abi::VipCell>(root.vip_table.offset);
  const auto mask = root.vip_table.count - 1;
  std::uint32_t from = 0;
  while (cells[from].kind == abi::VipCellKind::empty || cells[(from + 1) & mask].kind != abi::VipCellKind::empty) ++from;
  std::uint32_t to = (from + 2) & mask;
  while (cells[to].kind != abi::VipCellKind::empty) to = (to + 1) & mask;
  cells[to] = cells[from];
  cells[from] = {};
  test::seal(bytes.root);
  const auto opened = bytes.open();
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().text.find("would not reach"), std::string::npos) << opened.error().text;
}

TEST(Snapshot, NamesTheSegmentsOfARoot) {
  const WorldBytes bytes = test::make_bytes(small_world());
  const auto ids = Snapshot::segment_ids(bytes.root.bytes());
  ASSERT_TRUE(ids);
  EXPECT_EQ(*ids, std::vector<std::uint64_t>{7});
}

// The checksum is no defence against an author who means harm, so every mutation comes with a right one. What is accepted
// is walked: under ASan, any index the verifier let through shows.
TEST(SnapshotMutation, EveryByteFlippedIsRefusedOrHarmless) {
  const WorldBytes original = test::make_bytes(small_world());
  const std::array<std::uint8_t, 4> flips = {0x01, 0x80, 0xff, 0x10};
  for (const AlignedBytes* part : {&original.root, &original.slots}) {
    for (std::size_t at = 0; at < part->size(); ++at) {
      for (const std::uint8_t flip : flips) {
        auto& byte = part->at<std::uint8_t>(at);
        byte = static_cast<std::uint8_t>(byte ^ flip);
        auto& header = part->at<abi::SegmentHeader>(0);
        const std::uint64_t checksum = header.checksum;
        header.checksum = segment_checksum(part->bytes());
        const auto opened = original.open();
        if (opened)
          use(**opened);
        else
          EXPECT_FALSE(opened.error().text.empty());
        header.checksum = checksum;
        byte = static_cast<std::uint8_t>(byte ^ flip);
      }
    }
  }
  EXPECT_TRUE(original.open());
}

TEST(SnapshotMutation, RandomWordsAreRefusedOrHarmless) {
  const WorldBytes original = test::make_bytes(small_world());
  std::mt19937_64 random(7);
  const std::array<std::uint32_t, 6> favourites = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 64};
  std::vector<std::byte> saved(original.root.bytes().begin(), original.root.bytes().end());
  for (int round = 0; round < 20000; ++round) {
    for (std::uint64_t words = random() % 3 + 1; words > 0; --words) {
      const std::size_t at = (random() % (original.root.size() / 4)) * 4;
      if (at < 32) continue;  // magic to size have tests of their own
      original.root.at<std::uint32_t>(at) =
          random() % 2 == 0 ? favourites[random() % favourites.size()] : static_cast<std::uint32_t>(random());
    }
    original.root.at<abi::SegmentHeader>(0).checksum = segment_checksum(original.root.bytes());
    if (const auto opened = original.open()) use(**opened);
    std::memcpy(original.root.data(), saved.data(), saved.size());
  }
}

// What a disk, a build of another day or a torn write leaves: none of it is authored, so the checksums are as wrong as the
// rest.
TEST(SnapshotDamage, AHundredThousandDamagedSnapshotsAreRefusedByName) {
  const WorldBytes original = test::make_bytes(small_world());
  World other_world = small_world();
  other_world.add_target(other_world.add_group(abi::ForwardingMode::gue), abi::IpAddress::v4(10, 9, 9, 9));
  const WorldBytes other = test::make_bytes(other_world);
  std::mt19937_64 random(11);
  std::map<abi::Refusal, int> refusals;
  AlignedBytes foreign(2 * original.root.size());
  for (int round = 0; round < 100'000; ++round) {
    SegmentBytes root = original.root.segment();
    SegmentBytes slots = original.slots.segment();
    const bool in_root = random() % 4 != 0;
    const AlignedBytes& part = in_root ? original.root : original.slots;
    SegmentBytes& damaged = in_root ? root : slots;
    std::size_t at = 0;
    std::byte flip{};
    switch (random() % 4) {
      case 0:  // cut short
        damaged.bytes = damaged.bytes.first(random() % part.size());
        break;
      case 1:  // a bit or more of a byte
        at = random() % part.size();
        flip = static_cast<std::byte>(random() % 255 + 1);
        part.at<std::byte>(at) ^= flip;
        break;
      case 2:  // of another snapshot
        damaged = in_root ? root : other.slots.segment();
        if (in_root) slots = other.slots.segment();
        break;
      default:  // no snapshot at all
        for (std::size_t i = 0; i < 256; i += 8) foreign.at<std::uint64_t>(i) = random();
        damaged.bytes = foreign.segment().bytes.first(random() % foreign.size());
    }
    const auto opened = Snapshot::open(root, [&](std::uint64_t) { return &slots; });
    part.at<std::byte>(at) ^= flip;
    ASSERT_FALSE(opened) << "round " << round;
    ASSERT_FALSE(opened.error().text.empty());
    ++refusals[opened.error().refusal];
  }
  for (const auto refusal : {abi::Refusal::size, abi::Refusal::magic, abi::Refusal::checksum})
    EXPECT_GT(refusals[refusal], 1000) << abi::to_string(refusal);
  EXPECT_EQ(refusals[abi::Refusal::none], 0);
  EXPECT_TRUE(original.open());
}

}  // namespace
}  // namespace lb
