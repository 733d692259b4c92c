#include "dp/lb/flow_hash.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "dp/lb/aes_portable.h"
#include "dp/lb/dispatch.h"
#include "dp/lb/vip_table.h"

namespace lb {
namespace {

net::FlowKey random_key(std::mt19937_64& random) {
  net::FlowKey key;
  key.is_v6 = random() % 2;
  for (abi::IpAddress* address : {&key.source, &key.destination}) {
    for (auto& byte : address->bytes) byte = static_cast<std::uint8_t>(random());
    if (key.is_v6 == 0)
      *address = abi::IpAddress::v4(address->bytes[0], address->bytes[1], address->bytes[2], address->bytes[3]);
  }
  key.source_port = static_cast<std::uint16_t>(random());
  key.destination_port = static_cast<std::uint16_t>(random());
  key.protocol = random() % 2 ? 6 : 17;
  return key;
}

TEST(Aes, GivesTheExampleOfFips197) {
  std::array<std::uint8_t, 16> key{};
  for (std::uint8_t i = 0; i < 16; ++i) key[i] = i;
  const aes::Block plain{{0x33221100, 0x77665544, 0xbbaa9988, 0xffeeddcc}};
  const aes::Block want{{0xd8e0c469, 0x30047b6a, 0x80b7cdd8, 0x5ac5b470}};
  EXPECT_EQ(aes::encrypt(aes::expand_key(key), plain).word, want.word);
}

TEST(FlowHash, IsTheSameInEveryBuildOfThePacketPath) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    NodeSecret secret;
    for (auto& byte : secret) byte = static_cast<std::uint8_t>(random());
    const HashKeys keys = round % 2 ? make_hash_keys(secret) : make_hash_keys(random());
    const net::FlowKey key = random_key(random);
    for (const Kernel* kernel : kernels()) {
      if (!kernel->supported()) continue;
      EXPECT_EQ(kernel->hash(keys, key), flow_hash(keys, key)) << kernel->name;
    }
  }
}

TEST(FlowHash, DependsOnEveryPartOfTheKeyAndOnTheSecret) {
  std::mt19937_64 random(2);
  const HashKeys keys = make_hash_keys(NodeSecret{1});
  for (int round = 0; round < 100; ++round) {
    const net::FlowKey key = random_key(random);
    std::set<std::pair<std::uint64_t, std::uint64_t>> seen;
    const auto add = [&](const HashKeys& by, const net::FlowKey& of) {
      const Hash128 hash = flow_hash(by, of);
      EXPECT_TRUE(seen.insert({hash.low, hash.high}).second);
    };
    add(keys, key);
    add(make_hash_keys(NodeSecret{2}), key);
    for (std::size_t byte = key.is_v6 ? 0 : 12; byte < 16; ++byte) {
      net::FlowKey other = key;
      other.source.bytes[byte] ^= 1;
      add(keys, other);
      other = key;
      other.destination.bytes[byte] ^= 1;
      add(keys, other);
    }
    net::FlowKey other = key;
    other.source_port ^= 1;
    add(keys, other);
    other = key;
    other.destination_port ^= 0x100;
    add(keys, other);
    other = key;
    other.protocol = static_cast<std::uint8_t>(23 - key.protocol);
    add(keys, other);
  }
}

TEST(FlowHash, StickinessDropsWhatItNames) {
  std::mt19937_64 random(3);
  const net::FlowKey key = random_key(random);
  EXPECT_EQ(sticky_key(key, abi::Stickiness::five_tuple), key);
  const net::FlowKey proto = sticky_key(key, abi::Stickiness::source_ip_dest_ip_proto);
  EXPECT_EQ(proto.source_port, 0);
  EXPECT_EQ(proto.protocol, key.protocol);
  const net::FlowKey both = sticky_key(key, abi::Stickiness::source_ip_dest_ip);
  EXPECT_EQ(both.protocol, 0);
  EXPECT_EQ(both.destination, key.destination);
  const net::FlowKey source = sticky_key(key, abi::Stickiness::source_ip);
  EXPECT_EQ(source.source, key.source);
  EXPECT_TRUE(source.destination.is_zero());
}

TEST(VipHash, IsThatOfTheSnapshot) {
  std::mt19937_64 random(4);
  for (int round = 0; round < 1000; ++round) {
    const net::FlowKey key = random_key(random);
    EXPECT_EQ(vip_hash(key), abi::vip_table_hash(key.destination, key.protocol, key.destination_port));
  }
}

TEST(Dispatch, TakesTheBestAndRefusesWhatIsNotThere) {
  ASSERT_TRUE(choose_kernel(""));
  EXPECT_STREQ((*choose_kernel("v2"))->name, "v2");
  const auto wrong = choose_kernel("v9");
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().find("v9"), std::string::npos);
}

}  // namespace
}  // namespace lb
