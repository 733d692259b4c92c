// Compiled once per instruction set, as dp/lb/kernel.cc is.
#include "tests/bench/yardsticks.h"

#include "dp/base/endian.h"
#include "dp/lb/flow_hash_ops.h"
#include "dp/lb/flow_ops.h"
#include "dp/net/checksum.h"
#include "dp/net/headers.h"

namespace lb::bench {
namespace {

std::uint64_t run_floor(Burst& burst) {
  std::uint64_t bytes = 0;
  for (std::uint32_t i = 0; i < burst.count; ++i) prefetch(burst.data[i]);
  for (std::uint32_t i = 0; i < burst.count; ++i) {
    std::uint8_t* frame = burst.data[i];
    const auto low = load<std::uint64_t>(frame);
    const auto high = load<std::uint32_t>(frame + 8);
    store(frame, low >> 48 | std::uint64_t{high} << 16 | low << 48);
    store(frame + 8, static_cast<std::uint32_t>(low >> 16));
    bytes += burst.length[i];
  }
  return bytes;
}

LB_INLINE Hash128 hash_frame(const HashKeys& keys, const std::uint8_t* ip) {
  const auto addresses = load<std::uint64_t>(ip + net::kIpv4SourceAt);
  const std::uint64_t last = load<std::uint32_t>(ip + net::kIpv4Bytes) | std::uint64_t{ip[net::kIpv4ProtocolAt]} << 32;
#if defined(__AES__)
  const __m128i block =
      lb::detail::aes_encrypt(keys.v4, _mm_set_epi64x(static_cast<long long>(last), static_cast<long long>(addresses)));
  return {static_cast<std::uint64_t>(_mm_cvtsi128_si64(block)), static_cast<std::uint64_t>(_mm_extract_epi64(block, 1))};
#else
  const aes::Block block = aes::encrypt(keys.v4, aes::block_of(addresses, last));
  return {block.word[0] | std::uint64_t{block.word[1]} << 32, block.word[2] | std::uint64_t{block.word[3]} << 32};
#endif
}

LB_INLINE void prepend(Burst& burst, std::uint32_t i, const LimitTarget& target, std::uint64_t hash) {
  std::uint8_t* inner = burst.data[i] + net::kEthernetBytes;
  const std::uint32_t length = load_be16(inner + net::kIpv4TotalLengthAt) + net::kIpv4Bytes;
  std::uint8_t* outer = inner - net::kIpv4Bytes;
  const std::uint32_t word0 = swap32(0x45000000U | length);
  const std::uint32_t word1 = swap32(0x4000U);
  const std::uint32_t word2 = swap32(0x40040000U);
  const std::uint32_t source = swap32(0x64400000U | (hash & 0xff));
  const std::uint64_t sum = std::uint64_t{word0} + word1 + word2 + source + target.address;
  store(outer, word0);
  store(outer + 4, word1);
  store(outer + 8, word2 | std::uint32_t{net::checksum_finish(sum)} << 16);
  store(outer + 12, source);
  store(outer + 16, target.address);
  std::memcpy(outer - net::kEthernetBytes, target.macs, sizeof target.macs);
  store(outer - 2, std::uint16_t{0x0008});
  burst.data[i] = outer - net::kEthernetBytes;
  burst.length[i] = length + net::kEthernetBytes;
}

std::uint64_t run_limit(Burst& burst, std::span<const abi::FlowLine> lines, const HashKeys& keys,
                        const LimitTarget* targets) {
  Hash128 hashes[kBurst];
  std::uint64_t at[kBurst];
  std::uint64_t found = 0;
  for (std::uint32_t i = 0; i < burst.count; ++i) prefetch(burst.data[i]);
  for (std::uint32_t i = 0; i < burst.count; ++i) {
    const std::uint8_t* frame = burst.data[i];
    if (load<std::uint16_t>(frame + net::kEtherTypeAt) != 0x0008 || frame[net::kEthernetBytes] != 0x45) continue;
    hashes[i] = hash_frame(keys, frame + net::kEthernetBytes);
    at[i] = first_line(hashes[i], lines.size());
    prefetch(&lines[at[i]]);
    prefetch_for_write(burst.data[i] - 1);
  }
  for (std::uint32_t i = 0; i < burst.count; ++i) {
    const std::uint32_t entries = match(lines[at[i]], fingerprint_of(hashes[i]));
    const std::uint32_t target = entries != 0 ? meta_target(lines[at[i]].meta[lowest_bit(entries)]) : 0;
    found += entries != 0;
    prepend(burst, i, targets[target], hashes[i].high);
  }
  return found;
}

}  // namespace

extern const Yardstick LB_YARDSTICK;
const Yardstick LB_YARDSTICK = {LB_MARCH, run_floor, run_limit};

}  // namespace lb::bench
