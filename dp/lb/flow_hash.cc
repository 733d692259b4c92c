#include "dp/lb/flow_hash.h"

#include <cstring>
#include <tuple>

#include "dp/lb/aes_portable.h"

namespace lb {
namespace {

// A key for one block format: the secret encrypts the format's number.
aes::RoundKeys subkey(const aes::RoundKeys& keys, std::uint8_t number) {
  const aes::Block block = aes::encrypt(keys, aes::Block{{number, 0, 0, 0}});
  std::array<std::uint8_t, 16> bytes{};
  std::memcpy(bytes.data(), block.word.data(), bytes.size());
  return aes::expand_key(bytes);
}

}  // namespace

HashKeys make_hash_keys(const NodeSecret& secret) {
  const aes::RoundKeys keys = aes::expand_key(secret);
  return HashKeys{subkey(keys, 4), subkey(keys, 6)};
}

HashKeys make_hash_keys(std::uint64_t fleet_seed) {
  NodeSecret secret{0, 0, 0, 0, 0, 0, 0, 0, 'l', 'b', ' ', 's', 'l', 'o', 't', 's'};
  for (std::size_t i = 0; i < 8; ++i) secret[i] = static_cast<std::uint8_t>(fleet_seed >> (8 * i));
  return make_hash_keys(secret);
}

net::FlowKey either_way(const net::FlowKey& key) {
  if (std::tie(key.source, key.source_port) <= std::tie(key.destination, key.destination_port)) return key;
  return {key.destination, key.source, key.destination_port, key.source_port, key.protocol, key.is_v6, 0};
}

net::FlowKey symmetric_key(const net::FlowKey& key, abi::Stickiness stickiness) {
  if (stickiness == abi::Stickiness::symmetric_five_tuple) return either_way(key);
  net::FlowKey addresses = key;
  addresses.source_port = addresses.destination_port = 0;
  if (stickiness == abi::Stickiness::symmetric_ip) addresses.protocol = 0;
  return either_way(addresses);
}

Hash128 flow_hash(const HashKeys& keys, const net::FlowKey& key) {
  return aes::hash(keys, key);
}

}  // namespace lb
