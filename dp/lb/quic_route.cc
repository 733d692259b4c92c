#include "dp/lb/quic_route.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "dp/lb/aes_portable.h"
#include "dp/lb/work.h"

namespace lb {
namespace {

constexpr std::uint8_t kLongHeader = 0x80;      // RFC 8999 §5.1
constexpr std::size_t kLongHeaderLengthAt = 5;  // behind first byte and version: length of the connection ID
constexpr std::uint32_t kUdpHeaderBytes = 8;

using Octets = std::array<std::uint8_t, 16>;

struct Portable {
  static Octets encrypt(const aes::RoundKeys& keys, const Octets& in) { return bytes(aes::encrypt(keys, block(in))); }
  static Octets decrypt(const aes::RoundKeys& keys, const Octets& in) { return bytes(aes::decrypt(keys, block(in))); }

 private:
  static aes::Block block(const Octets& in) {
    aes::Block block;
    std::memcpy(block.word.data(), in.data(), in.size());
    return block;
  }
  static Octets bytes(const aes::Block& block) {
    Octets out;
    std::memcpy(out.data(), block.word.data(), out.size());
    return out;
  }
};

// Only called where the CPU has the instructions.
struct Instructions {
  [[gnu::target("aes,sse4.1")]] static Octets encrypt(const aes::RoundKeys& keys, const Octets& in) {
    __m128i state = _mm_xor_si128(load(in), load(keys[0]));
    for (std::size_t round = 1; round < 10; ++round) state = _mm_aesenc_si128(state, load(keys[round]));
    return store(_mm_aesenclast_si128(state, load(keys[10])));
  }
  [[gnu::target("aes,sse4.1")]] static Octets decrypt(const aes::RoundKeys& keys, const Octets& in) {
    __m128i state = _mm_xor_si128(load(in), load(keys[10]));
    for (std::size_t round = 9; round > 0; --round) state = _mm_aesdec_si128(state, _mm_aesimc_si128(load(keys[round])));
    return store(_mm_aesdeclast_si128(state, load(keys[0])));
  }

 private:
  static __m128i load(const Octets& octets) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(octets.data())); }
  static Octets store(__m128i from) {
    Octets to;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to.data()), from);
    return to;
  }
};

// Server ID and nonce as two halves of `half` bytes; of an odd number of bytes the middle one is shared, four bits each.
struct Halves {
  std::uint32_t bytes;  // of both together
  std::uint32_t half;
  Octets left{};
  Octets right{};

  explicit Halves(const std::uint8_t* octets, std::uint32_t count) : bytes(count), half((count + 1) / 2) {
    std::memcpy(left.data(), octets, half);
    std::memcpy(right.data(), octets + count - half, half);
    clear_shared(left, half - 1, 0xf0);
    clear_shared(right, 0, 0x0f);
  }

  void clear_shared(Octets& of, std::uint32_t at, std::uint8_t keep) const {
    if (bytes % 2 != 0) of[at] &= keep;
  }
};

// One pass: `to` xor the cipher of `from`, as wide as a half.
template <typename Aes>
void pass(const aes::RoundKeys& keys, const Halves& halves, std::uint8_t number, const Octets& from, Octets& to) {
  Octets input{};
  std::memcpy(input.data(), from.data(), halves.half);
  input[14] = static_cast<std::uint8_t>(halves.bytes);
  input[15] = number;
  const Octets output = Aes::encrypt(keys, input);
  for (std::uint32_t i = 0; i < halves.half; ++i) to[i] ^= output[i];
}

template <typename Aes>
Octets undo_four_passes(const aes::RoundKeys& keys, const std::uint8_t* octets, std::uint32_t server_id_bytes,
                        std::uint32_t bytes) {
  Halves halves(octets, bytes);
  pass<Aes>(keys, halves, 4, halves.right, halves.left);
  halves.clear_shared(halves.left, halves.half - 1, 0xf0);
  pass<Aes>(keys, halves, 3, halves.left, halves.right);
  halves.clear_shared(halves.right, 0, 0x0f);
  pass<Aes>(keys, halves, 2, halves.right, halves.left);
  halves.clear_shared(halves.left, halves.half - 1, 0xf0);
  Octets plain = halves.left;
  if (server_id_bytes <= bytes / 2) return plain;  // the nonce is of no interest
  pass<Aes>(keys, halves, 1, halves.left, halves.right);
  halves.clear_shared(halves.right, 0, 0x0f);
  const std::uint32_t right_at = bytes - halves.half;
  for (std::uint32_t i = 0; i < halves.half && right_at + i < plain.size(); ++i) plain[right_at + i] |= halves.right[i];
  return plain;
}

template <typename Aes>
abi::QuicServerId read_server_id(const abi::QuicConfig& config, const aes::RoundKeys& keys, const std::uint8_t* octets) {
  const std::uint32_t bytes = std::uint32_t{config.server_id_bytes} + config.nonce_bytes;
  Octets plain{};
  if (config.keyed == 0) {
    std::memcpy(plain.data(), octets, config.server_id_bytes);
  } else if (bytes == abi::kQuicSinglePassBytes) {
    std::memcpy(plain.data(), octets, plain.size());
    plain = Aes::decrypt(keys, plain);
  } else {
    plain = undo_four_passes<Aes>(keys, octets, config.server_id_bytes, bytes);
  }
  std::fill(plain.begin() + config.server_id_bytes, plain.end(), std::uint8_t{0});
  return plain;
}

std::uint32_t find_server(const Snapshot& snapshot, const abi::QuicConfig& config, const abi::QuicServerId& server_id) {
  const auto servers = snapshot.quic().servers.subspan(config.first_server, config.server_count);
  const auto at = std::lower_bound(servers.begin(), servers.end(), server_id,
                                   [](const abi::QuicServer& a, const abi::QuicServerId& id) { return a.server_id < id; });
  return at != servers.end() && at->server_id == server_id ? at->target : abi::kNoIndex;
}

// Tracked flows stay with it: what a flow table says of flows is here what a connection ID says.
bool is_in_use(const Snapshot& snapshot, const abi::Listener& listener, std::uint32_t id) {
  const abi::Target* target = live_target(snapshot, id);
  return target != nullptr && target->tracked == abi::TrackedFlows::keep && serves(listener, target->group);
}

}  // namespace

std::span<const std::uint8_t> udp_payload(const std::uint8_t* frame, const net::ParsedPacket& packet) {
  const std::uint32_t begin = packet.l4_offset + kUdpHeaderBytes;
  const std::uint32_t end = packet.l2_length + std::uint32_t{packet.ip_length};
  return end > begin ? std::span(frame + begin, end - begin) : std::span<const std::uint8_t>{};
}

std::span<const std::uint8_t> destination_cid(std::span<const std::uint8_t> datagram) {
  if (datagram.empty()) return {};
  if ((datagram[0] & kLongHeader) == 0) return datagram.subspan(1);
  if (datagram.size() <= kLongHeaderLengthAt) return {};
  const std::size_t length = datagram[kLongHeaderLengthAt];
  const auto rest = datagram.subspan(kLongHeaderLengthAt + 1);
  return length <= rest.size() ? rest.first(length) : std::span<const std::uint8_t>{};
}

abi::QuicServerId server_id_portable(const abi::QuicConfig& config, const aes::RoundKeys& round_keys,
                                     const std::uint8_t* octets) {
  return read_server_id<Portable>(config, round_keys, octets);
}

abi::QuicServerId server_id_of(const abi::QuicConfig& config, const aes::RoundKeys& round_keys, const std::uint8_t* octets) {
  if (config.keyed != 0 && __builtin_cpu_supports("aes")) return read_server_id<Instructions>(config, round_keys, octets);
  return read_server_id<Portable>(config, round_keys, octets);
}

CidRoute route_by_cid(const Snapshot& snapshot, const abi::Listener& listener, std::span<const std::uint8_t> cid) {
  CidRoute route;
  if (cid.empty()) return route;
  const std::uint32_t id = cid[0] >> 5;
  route.result = CidResult::no_config;
  if (id >= abi::kQuicConfigIds) return route;
  route.config = snapshot.quic().maps[listener.quic].config[id];
  if (route.config == abi::kNoIndex) return route;
  const abi::QuicConfig& config = snapshot.quic().configs[route.config];
  route.result = CidResult::too_short;
  if (cid.size() < 1U + config.server_id_bytes + config.nonce_bytes) return route;
  route.server_id = server_id_of(config, snapshot.quic().round_keys[route.config], cid.data() + 1);
  route.target = find_server(snapshot, config, route.server_id);
  route.result = CidResult::no_server;
  if (route.target == abi::kNoIndex) return route;
  route.result = is_in_use(snapshot, listener, route.target) ? CidResult::routed : CidResult::target_gone;
  return route;
}

std::uint32_t target_by_cid(Work& work, std::uint32_t i) {
  const net::ParsedPacket& packet = packet_of(work, i);
  const abi::Listener& listener = work.snapshot->listeners()[work.burst->listener[i]];
  const CidRoute route = route_by_cid(*work.snapshot, listener, destination_cid(udp_payload(work.burst->data[i], packet)));
  const bool routed = route.result == CidResult::routed;
  ++count(work, routed ? abi::Counter::quic_routed : abi::Counter::quic_unroutable);
  return routed ? route.target : abi::kNoIndex;
}

}  // namespace lb
