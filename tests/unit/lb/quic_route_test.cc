#include "dp/lb/quic_route.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "dp/lb/aes_portable.h"
#include "tests/unit/lb/lab.h"

namespace lb::test {
namespace {

using Octets = std::vector<std::uint8_t>;
using Key = std::array<std::uint8_t, 16>;

Octets hex(const std::string& text) {
  Octets bytes;
  for (std::size_t i = 0; i < text.size(); i += 2)
    bytes.push_back(static_cast<std::uint8_t>(std::stoul(text.substr(i, 2), nullptr, 16)));
  return bytes;
}

Key key_of(const std::string& text) {
  Key key{};
  std::ranges::copy(hex(text), key.begin());
  return key;
}

const Key kDraftKey = key_of("8f95f09245765f80256934e50c66207f");

abi::QuicConfig config_of(std::uint8_t id, std::size_t server_id_bytes, std::size_t nonce_bytes, const Key* key) {
  return {.config_id = id,
          .server_id_bytes = static_cast<std::uint8_t>(server_id_bytes),
          .nonce_bytes = static_cast<std::uint8_t>(nonce_bytes),
          .keyed = static_cast<std::uint8_t>(key != nullptr ? 1 : 0),
          .key = key != nullptr ? *key : Key{}};
}

abi::QuicServerId id_of(const Octets& bytes) {
  abi::QuicServerId id{};
  std::ranges::copy(bytes, id.begin());
  return id;
}

// What a server does, nibble by nibble as the draft tells it, and so another way than the code under test.
Octets encrypt_block(const Key& key, const Octets& block) {
  aes::Block in;
  std::memcpy(in.word.data(), block.data(), 16);
  const aes::Block out = aes::encrypt(aes::expand_key(key), in);
  Octets bytes(16);
  std::memcpy(bytes.data(), out.word.data(), 16);
  return bytes;
}

Octets four_passes(const Key& key, const Octets& plain) {
  std::vector<std::uint8_t> left;  // nibbles
  std::vector<std::uint8_t> right;
  for (std::size_t i = 0; i < 2 * plain.size(); ++i) {
    const auto nibble = static_cast<std::uint8_t>(i % 2 == 0 ? plain[i / 2] >> 4 : plain[i / 2] & 0xf);
    (i < plain.size() ? left : right).push_back(nibble);
  }
  const bool odd = plain.size() % 2 != 0;
  for (std::uint8_t number = 1; number <= 4; ++number) {
    const bool of_left = number % 2 == 1;
    auto& from = of_left ? left : right;
    auto& to = of_left ? right : left;
    const std::size_t from_at = odd && !of_left ? 1 : 0;  // a right half of an odd length begins with an empty nibble
    const std::size_t to_at = odd && of_left ? 1 : 0;
    Octets block(16);
    for (std::size_t i = 0; i < from.size(); ++i)
      block[(i + from_at) / 2] |= static_cast<std::uint8_t>((i + from_at) % 2 == 0 ? from[i] << 4 : from[i]);
    block[14] = static_cast<std::uint8_t>(plain.size());
    block[15] = number;
    const Octets mask = encrypt_block(key, block);
    for (std::size_t i = 0; i < to.size(); ++i)
      to[i] ^= static_cast<std::uint8_t>((i + to_at) % 2 == 0 ? mask[(i + to_at) / 2] >> 4 : mask[(i + to_at) / 2] & 0xf);
  }
  left.insert(left.end(), right.begin(), right.end());
  Octets out(plain.size());
  for (std::size_t i = 0; i < left.size(); ++i) out[i / 2] |= static_cast<std::uint8_t>(i % 2 == 0 ? left[i] << 4 : left[i]);
  return out;
}

Octets make_cid(const abi::QuicConfig& config, const Octets& server_id, const Octets& nonce) {
  Octets block = server_id;
  block.insert(block.end(), nonce.begin(), nonce.end());
  if (config.keyed != 0) block = block.size() == 16 ? encrypt_block(config.key, block) : four_passes(config.key, block);
  block.insert(block.begin(), static_cast<std::uint8_t>(config.config_id << 5 | block.size()));
  return block;
}

TEST(QuicRoute, ReadsTheServerIdsOfTheDraftsVectors) {
  struct Row {
    std::uint8_t id;
    const char* server_id;
    const char* nonce;
    bool keyed;
    const char* cid;
  };
  // Appendix B of the draft. Left out: the row without a key whose nonce has an odd number of digits. The last row begins
  // with 0x12 there, which is config 0; 3 << 5 | 18 is 0x72.
  for (const Row& row :
       {Row{0, "c4605e", "4504cc4f", false, "07c4605e4504cc4f"}, Row{0, "ed793a", "ee080dbf", true, "0720b1d07b359d3c"},
        Row{1, "ed793a51d49b8f5fab65", "ee080dbf48", true, "2fcc381bc74cb4fbad2823a3d1f8fed2"},
        Row{2, "ed793a51d49b8f5f", "ee080dbf48c0d1e5", true, "504dd2d05a7b0de9b2b9907afb5ecf8cc3"},
        Row{3, "ed793a51d49b8f5fab", "ee080dbf48c0d1e55d", true, "725779c9cc86beb3a3a4a3ca96fce4bfe0cdbc"}}) {
    const Octets server_id = hex(row.server_id);
    const Octets nonce = hex(row.nonce);
    const abi::QuicConfig config = config_of(row.id, server_id.size(), nonce.size(), row.keyed ? &kDraftKey : nullptr);
    const aes::RoundKeys keys = aes::expand_key(config.key);
    const Octets cid = hex(row.cid);
    EXPECT_EQ(make_cid(config, server_id, nonce), cid) << row.cid;
    EXPECT_EQ(cid[0] >> 5, row.id);
    EXPECT_EQ(server_id_of(config, keys, cid.data() + 1), id_of(server_id)) << row.cid;
    EXPECT_EQ(server_id_portable(config, keys, cid.data() + 1), id_of(server_id)) << row.cid;
  }
}

TEST(QuicRoute, ReadsTheExampleWhoseStepsTheDraftShows) {
  const Key key = key_of("fdf726a9893ec05c0632d3956680baf0");
  const abi::QuicConfig config = config_of(0, 3, 4, &key);
  EXPECT_EQ(make_cid(config, hex("31441a"), hex("9c69c275")), hex("0767947d29be054a"));
  EXPECT_EQ(server_id_of(config, aes::expand_key(key), hex("67947d29be054a").data()), id_of(hex("31441a")));
}

// The AES step that only single-pass connection IDs take, by the example vector of FIPS 197, appendix B.
TEST(QuicRoute, DecryptsTheBlockOfFips197) {
  const Key key = key_of("2b7e151628aed2a6abf7158809cf4f3c");
  const abi::QuicConfig config = config_of(0, 12, 4, &key);
  const Octets cipher = hex("3925841d02dc09fbdc118597196a0b32");
  const Octets plain = hex("3243f6a8885a308d313198a2e0370734");
  const abi::QuicServerId wanted = id_of({plain.begin(), plain.begin() + 12});
  EXPECT_EQ(server_id_of(config, aes::expand_key(key), cipher.data()), wanted);
  EXPECT_EQ(server_id_portable(config, aes::expand_key(key), cipher.data()), wanted);
}

RC_GTEST_PROP(QuicRoute, ReadsBackWhatAServerWroteForEveryLengthOfServerIdAndNonce, (const Key& key)) {
  for (std::size_t server_id_bytes = 1; server_id_bytes <= 15; ++server_id_bytes) {
    for (std::size_t nonce_bytes = 4; server_id_bytes + nonce_bytes <= 19; ++nonce_bytes) {
      const auto server_id = *rc::gen::container<Octets>(server_id_bytes, rc::gen::arbitrary<std::uint8_t>());
      const auto nonce = *rc::gen::container<Octets>(nonce_bytes, rc::gen::arbitrary<std::uint8_t>());
      for (const Key* with : {static_cast<const Key*>(nullptr), &key}) {
        const abi::QuicConfig config = config_of(5, server_id_bytes, nonce_bytes, with);
        const Octets cid = make_cid(config, server_id, nonce);
        const aes::RoundKeys keys = aes::expand_key(key);
        RC_ASSERT(server_id_of(config, keys, cid.data() + 1) == id_of(server_id));
        RC_ASSERT(server_id_portable(config, keys, cid.data() + 1) == id_of(server_id));
      }
    }
  }
}

TEST(QuicRoute, FindsTheConnectionIdInHeadersOfEveryVersion) {
  const auto cid_of = [](const std::string& datagram) {
    const Octets bytes = hex(datagram);  // a buffer of just that size: ASan sees a read past it
    const auto found = destination_cid(bytes);
    return Octets(found.begin(), found.end());
  };
  EXPECT_EQ(cid_of("c00000000103aabbccff"), hex("aabbcc"));  // long header, version 1
  EXPECT_EQ(cid_of("80fafafafa03aabbccff"), hex("aabbcc"));  // of a version that nobody knows
  EXPECT_EQ(cid_of("c000000001002233"), Octets{});           // a connection ID of no bytes
  EXPECT_EQ(cid_of("40aabbccff"), hex("aabbccff"));          // short header: its end is not told
  EXPECT_EQ(cid_of("00aabb"), hex("aabb"));
  for (const char* cut : {"", "40", "c0", "c000", "c0000000", "c000000001", "c000000001ff0102", "c00000000104aabbcc"})
    EXPECT_EQ(cid_of(cut), Octets{}) << cut;
}

// VIP4:443 UDP → blue (targets 0-3) by the configs that a test adds.
struct QuicLab : Lab {
  QuicLab() {
    udp443 = world.add_listener(0, abi::Protocol::udp, 443, 443, {{blue, 1}});
    apply();
  }

  void add_config(const abi::QuicConfig& config, const std::vector<std::pair<Octets, std::uint32_t>>& servers) {
    auto& added = world.quic_configs.emplace_back(config);
    added.group = blue;
    added.first_server = static_cast<std::uint32_t>(world.quic_servers.size());
    added.server_count = static_cast<std::uint32_t>(servers.size());
    for (const auto& [server_id, target] : servers) world.quic_servers.push_back({id_of(server_id), target});
    world.listeners[udp443].has_quic = 1;
    world.listeners[udp443].quic = 0;
    world.quic_maps.resize(1);
    world.quic_maps[0].config[config.config_id] = static_cast<std::uint32_t>(world.quic_configs.size() - 1);
    apply();
  }

  const Burst& ask(const net::FlowKey& key, const Octets& datagram) {
    std::vector<std::uint8_t> frame(kRoom);
    frame.resize(write_frame(frame.data(), key, {.payload_bytes = static_cast<std::uint32_t>(datagram.size())}));
    std::ranges::copy(datagram, frame.end() - static_cast<std::ptrdiff_t>(datagram.size()));
    packets.clear();
    packets.add(frame);
    run();
    return packets.burst;
  }

  std::uint32_t udp443 = 0;
};

net::FlowKey client(std::uint8_t host, std::uint16_t port = 50000) {
  return {abi::IpAddress::v4(203, 0, 113, host), kVip4, port, 443, static_cast<std::uint8_t>(abi::Protocol::udp), 0, 0};
}

Octets short_header(const Octets& cid) {
  Octets datagram{0x40};
  datagram.insert(datagram.end(), cid.begin(), cid.end());
  datagram.resize(datagram.size() + 30, 0x5a);
  return datagram;
}

TEST(QuicRoute, EveryClientWithAConnectionIdComesToItsTargetWhateverItsAddress) {
  QuicLab lab;
  const abi::QuicConfig plain = config_of(0, 1, 4, nullptr);
  const abi::QuicConfig sealed = config_of(2, 2, 6, &kDraftKey);
  lab.add_config(plain, {{{1}, 0}, {{2}, 1}, {{3}, 2}});
  lab.add_config(sealed, {{{0, 7}, 3}});
  for (std::uint8_t host = 1; host < 100; ++host) {
    EXPECT_EQ(lab.ask(client(host), short_header(make_cid(plain, {2}, {9, 9, 9, host}))).target[0], 1U);
    EXPECT_EQ(lab.ask(client(host, 777), short_header(make_cid(sealed, {0, 7}, {1, 2, 3, 4, 5, host}))).target[0], 3U);
  }
  EXPECT_EQ(lab.counter(Counter::quic_routed), 2U * 99);
  EXPECT_EQ(lab.counter(Counter::quic_unroutable), 0U);
  lab.check_accounting();
}

TEST(QuicRoute, AnUnroutableConnectionIdGoesByItsFlowAndElseByHash) {
  QuicLab lab;
  const abi::QuicConfig plain = config_of(0, 1, 4, nullptr);
  lab.add_config(plain, {{{1}, 0}, {{2}, 1}});
  const auto hashed = lab.ask(client(1), {0xc0, 0, 0, 0, 1, 2, 0xe0, 0xff, 0}).target[0];
  EXPECT_EQ(lab.packets.burst.flow[0], FlowResult::fresh);
  for (const Octets& cid : {Octets{0xe0, 1, 9, 9, 9, 9}, Octets{0x20, 1, 9, 9, 9, 9}, Octets{0x00, 9, 9, 9, 9, 9}}) {
    EXPECT_EQ(lab.ask(client(1), short_header(cid)).target[0], hashed);
    EXPECT_EQ(lab.packets.burst.flow[0], FlowResult::hit);
  }
  EXPECT_EQ(lab.ask(client(1), {0x40, 0x00, 1, 9, 9}).target[0], hashed) << "a connection ID that is too short";
  EXPECT_EQ(lab.ask(client(1), {}).target[0], hashed) << "no header at all";
  EXPECT_EQ(lab.counter(Counter::quic_unroutable), 6U);
  EXPECT_EQ(lab.counter(Counter::quic_routed), 0U);
  lab.check_accounting();
}

TEST(QuicRoute, TheConnectionIdGoesBeforeTheEntryOfAnotherConnectionWithTheSameAddress) {
  QuicLab lab;
  const abi::QuicConfig plain = config_of(0, 1, 4, nullptr);
  lab.add_config(plain, {{{1}, 0}, {{2}, 1}});
  const Octets first = short_header(make_cid(plain, {1}, {1, 2, 3, 4}));
  const Octets second = short_header(make_cid(plain, {2}, {1, 2, 3, 4}));
  EXPECT_EQ(lab.ask(client(1), first).target[0], 0U);
  for (int i = 0; i < 3; ++i) {  // the entry is proven, and would be a common hit
    EXPECT_EQ(lab.ask(client(1), first).flow[0], FlowResult::hit);
    EXPECT_EQ(lab.ask(client(1), second).target[0], 1U);
  }
  EXPECT_EQ(lab.entry(client(1))->target, 0U) << "a forged source must not move a flow";
  lab.now_ns += 130 * kSecond;
  EXPECT_EQ(lab.ask(client(1), second).target[0], 1U);
  EXPECT_EQ(lab.entry(client(1))->target, 1U) << "the old flow is over";
  lab.check_accounting();
}

TEST(QuicRoute, ATargetThatDrainsKeepsItsConnectionsAndOneThatLosesItsFlowsLosesThem) {
  QuicLab lab;
  const abi::QuicConfig plain = config_of(0, 1, 4, nullptr);
  lab.add_config(plain, {{{1}, 0}});
  const Octets datagram = short_header(make_cid(plain, {1}, {1, 2, 3, 4}));
  lab.target(0).flags |= abi::kTargetNoNewFlows;
  lab.target(0).state = abi::TargetState::draining;
  lab.apply();
  EXPECT_EQ(lab.ask(client(1), datagram).target[0], 0U);
  lab.target(0).tracked = abi::TrackedFlows::rehash;
  lab.apply();
  EXPECT_NE(lab.ask(client(2), datagram).target[0], 0U);
  lab.target(0).flags = 0;
  lab.apply();
  EXPECT_NE(lab.ask(client(3), datagram).target[0], 0U);
  EXPECT_EQ(lab.counter(Counter::quic_unroutable), 2U);
  lab.check_accounting();
}

TEST(QuicRoute, TheVerifierRefusesWhatALookupCouldNotBear) {
  const auto said = [](auto change) -> std::string {
    QuicLab lab;
    lab.add_config(config_of(1, 2, 6, nullptr), {{{0, 1}, 0}, {{0, 2}, 1}});
    change(lab.world, lab.world.quic_configs[0]);
    const auto opened = make_bytes(lab.world).open();
    return opened ? "accepted" : opened.error().text;
  };
  EXPECT_EQ(said([](World&, abi::QuicConfig&) {}), "accepted");
  for (const auto& [what, change] : std::vector<std::pair<std::string, void (*)(World&, abi::QuicConfig&)>>{
           {"quic_configs[0]: id 7", [](World&, abi::QuicConfig&c) { c.config_id = 7; }},
           {"quic_configs[0]: id 1, server ID of 0", [](World&, abi::QuicConfig&c) { c.server_id_bytes = 0; }},
           {"quic_configs[0]: id 1, server ID of 2 bytes, nonce of 3", [](World&, abi::QuicConfig&c) { c.nonce_bytes = 3; }},
           {"quic_configs[0]: id 1, server ID of 14", [](World&, abi::QuicConfig&c) { c.server_id_bytes = 14; }},
           {"quic_configs[0]: id 1, server ID of 2 bytes, nonce of 6, keyed 2",
            [](World&, abi::QuicConfig&c) { c.keyed = 2; }},
           {"quic_configs[0]: group 9", [](World&, abi::QuicConfig&c) { c.group = 9; }},
           {"quic_configs[0]: 3 servers at 0 of 2", [](World&, abi::QuicConfig&c) { c.server_count = 3; }},
           {"quic_configs[0]: 2 servers at 1 of 2", [](World&, abi::QuicConfig&c) { c.first_server = 1; }},
           {"quic_servers[1]: target 99", [](World&w, abi::QuicConfig&) { w.quic_servers[1].target = 99; }},
           {"quic_servers[1]: not above", [](World&w, abi::QuicConfig&) { w.quic_servers[0].server_id = id_of({0, 2}); }},
           {"listeners[5]: has_quic 2", [](World&w, abi::QuicConfig&) { w.listeners[5].has_quic = 2; }},
           {"quic_maps[0]: config 7", [](World&w, abi::QuicConfig&) { w.quic_maps[0].config[1] = 7; }},
           {"quic_maps[0]: config 0 of 1 for id 2", [](World&w, abi::QuicConfig&) { w.quic_maps[0].config[2] = 0; }},
           {"listeners[5]: has_quic 1, protocol 17, map 1", [](World&w, abi::QuicConfig&) { w.listeners[5].quic = 1; }},
           {"listeners[0]: has_quic 1", [](World&w, abi::QuicConfig&) { w.listeners[0].has_quic = 1; }}}) {
    EXPECT_EQ(said(change).substr(0, what.size()), what);
  }
}

}  // namespace
}  // namespace lb::test
