// `why` of a flow to a listener that reads QUIC connection IDs.
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/explain/why_lab.h"

namespace lb::cp::explain {
namespace {

// UDP 443 of the same VIP → group blue. Connection IDs of config 0 are not encrypted: a server ID of one byte, a nonce of
// four. Target n has server ID n + 1.
class WhyQuicTest : public WhyTest {
 protected:
  using Octets = std::vector<std::uint8_t>;

  WhyQuicTest() {
    listener_ = world_.add_listener(0, abi::Protocol::udp, 443, 443, {{blue_, 1}});
    world_.listeners[listener_].name = kWeb;
    world_.listeners[listener_].has_quic = 1;
    world_.listeners[listener_].quic = 0;
    world_.quic_maps.resize(1);
    world_.quic_maps[0].config[0] = 0;
    abi::QuicConfig& config = world_.quic_configs.emplace_back();
    config.server_id_bytes = 1;
    config.nonce_bytes = 4;
    config.group = blue_;
    config.server_count = 3;
    for (std::uint8_t n = 1; n <= 3; ++n) world_.quic_servers.push_back({{n}, n - 1U});
    key_ = flow(abi::Protocol::udp, address("198.51.100.7"), 40000, address("192.0.2.10"), 443);
  }

  Answer ask_by(const Octets& cid, const Worker* worker = nullptr, std::uint64_t now_ns = kNow) {
    snapshot_ = test::make_snapshot(world_);
    Context context;
    context.snapshot = snapshot_;
    context.secret = kSecret;
    if (worker != nullptr) context.worker_tables.emplace_back(worker->lines());
    return why(context, key_, now_ns, {.connection_id = cid});
  }

  // Lets the worker see a datagram without a connection ID.
  std::uint32_t begin(Worker& worker) {
    Frame frame = make_frame(key_, 0);
    return worker.send(*test::make_snapshot(world_), frame, kNow).target[0];
  }

  static Octets cid_of(std::uint32_t target) { return {5, static_cast<std::uint8_t>(target + 1), 9, 9, 9, 9}; }
  static std::string label_of(std::uint32_t target) { return "10.77.2." + std::to_string(target + 1) + ":80"; }

  std::uint32_t listener_ = 0;
};

TEST_F(WhyQuicTest, AConnectionIdNamesTheTargetWhateverTheSlotSays) {
  for (std::uint32_t target = 0; target < 3; ++target) {
    const Answer answer = ask_by(cid_of(target));
    EXPECT_EQ(answer.verdict, "tx");
    EXPECT_EQ(answer.flow, "new");
    EXPECT_EQ(answer.target, target);
    EXPECT_EQ(answer.connection_id,
              "config 0 (not encrypted), server ID 0" + std::to_string(target + 1) + " → " + label_of(target));
    EXPECT_FALSE(answer.pinned_elsewhere);
    EXPECT_EQ(answer.explanation,
              "The connection ID names " + label_of(target) +
                  ": the packet goes there, whatever its addresses and ports. No worker holds a flow with "
                  "these addresses and ports.");
  }
}

TEST_F(WhyQuicTest, AnotherConnectionsEntryStaysAsItIsUntilItIsOver) {
  Worker worker;
  const std::uint32_t held = begin(worker);
  const std::uint32_t other = (held + 1) % 3;
  Answer answer = ask_by(cid_of(held), &worker);
  EXPECT_EQ(answer.flow, "hit");
  EXPECT_TRUE(mentions(answer, "Worker 0 holds this flow, on " + label_of(held) + ".")) << answer.explanation;
  answer = ask_by(cid_of(other), &worker);
  EXPECT_EQ(answer.target, other);
  EXPECT_EQ(answer.flow, "none");
  EXPECT_TRUE(mentions(answer, "on " + label_of(held) + ", which stays as it is.")) << answer.explanation;
  answer = ask_by(cid_of(other), &worker, kNow + 130 * kSecondNs);
  EXPECT_EQ(answer.flow, "hit");
  EXPECT_TRUE(mentions(answer, "on " + label_of(held) + ", and gives it to this one.")) << answer.explanation;
}

TEST_F(WhyQuicTest, AnUnroutableConnectionIdIsSaidSoAndThePacketGoesByItsFlow) {
  Worker worker;
  const std::uint32_t held = begin(worker);
  const std::string end = ": unroutable, so the packet goes by its flow, or by hash";
  for (const auto& [cid, said] : std::vector<std::pair<Octets, std::string>>{
           {{0xe0, 1, 9, 9, 9, 9}, "config 7 stands for none" + end},
           {{0x20, 1, 9, 9, 9, 9}, "config 1, which no target group of the listener has" + end},
           {{0, 1, 9, 9, 9}, "config 0 (not encrypted) needs 6 bytes, and there are 5" + end},
           {{0, 0xfe, 9, 9, 9, 9}, "config 0 (not encrypted), server ID fe, which no target has" + end},
           {{}, "none is given: the packet goes by its flow, or by hash"}}) {
    const Answer answer = ask_by(cid, &worker);
    EXPECT_EQ(answer.connection_id, said);
    EXPECT_EQ(answer.target, held);
    EXPECT_EQ(answer.flow, "hit");
  }
}

TEST_F(WhyQuicTest, ATargetWhoseFlowsAreNotToStayIsNamedAndPassedOver) {
  Worker worker;
  world_.targets[1].state = abi::TargetState::unhealthy;
  world_.targets[1].tracked = abi::TrackedFlows::rehash;
  world_.targets[1].flags |= abi::kTargetNoNewFlows;
  const Answer answer = ask_by(cid_of(1), &worker);
  EXPECT_NE(answer.target, 1U);
  EXPECT_EQ(answer.connection_id,
            "config 0 (not encrypted), server ID 02 → " + label_of(1) +
                ", whose flows are not to stay: unroutable, so the packet goes by its flow, or by hash");
}

TEST_F(WhyQuicTest, AListenerWithoutQuicHasNothingToSayOfConnectionIds) {
  world_.listeners[listener_].has_quic = 0;
  EXPECT_EQ(ask_by(cid_of(1)).connection_id, "");
}

}  // namespace
}  // namespace lb::cp::explain
