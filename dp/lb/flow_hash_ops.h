// The flow hash on the packet path: AES instructions where this instruction set has them, else the portable twin. Blocks of
// different packets do not wait for each other, so a loop over a burst keeps the AES units busy.
#pragma once

#include "dp/base/compiler.h"
#include "dp/base/endian.h"
#include "dp/lb/aes_portable.h"
#include "dp/lb/flow_hash.h"

#if defined(__AES__)
#include <immintrin.h>
#endif

namespace lb {

#if defined(__AES__)

namespace detail {

LB_INLINE __m128i aes_encrypt(const aes::RoundKeys& keys, __m128i block) {
  const auto* key = reinterpret_cast<const __m128i*>(keys.data());
  block = _mm_xor_si128(block, _mm_load_si128(key));
  for (int round = 1; round < 10; ++round) block = _mm_aesenc_si128(block, _mm_load_si128(key + round));
  return _mm_aesenclast_si128(block, _mm_load_si128(key + 10));
}

}  // namespace detail

// An IPv4 flow by its addresses and by its ports and protocol, as they stand in the packet.
LB_INLINE Hash128 hash_v4(const HashKeys& keys, std::uint64_t addresses, std::uint64_t last) {
  const __m128i block =
      detail::aes_encrypt(keys.v4, _mm_set_epi64x(static_cast<long long>(last), static_cast<long long>(addresses)));
  return {static_cast<std::uint64_t>(_mm_cvtsi128_si64(block)), static_cast<std::uint64_t>(_mm_extract_epi64(block, 1))};
}

LB_INLINE Hash128 flow_hash_fast(const HashKeys& keys, const net::FlowKey& key) {
  const std::uint8_t* source = key.source.bytes.data();
  const std::uint8_t* destination = key.destination.bytes.data();
  const std::uint64_t last = aes::ports_and_protocol(key);
  if (key.is_v6 == 0) [[likely]] {
    return hash_v4(keys, load<std::uint32_t>(source + 12) | std::uint64_t{load<std::uint32_t>(destination + 12)} << 32,
                   last);
  }
  __m128i block = detail::aes_encrypt(keys.v6, _mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
  block = _mm_xor_si128(block, _mm_loadu_si128(reinterpret_cast<const __m128i*>(destination)));
  block = _mm_xor_si128(detail::aes_encrypt(keys.v6, block), _mm_cvtsi64_si128(static_cast<long long>(last)));
  block = detail::aes_encrypt(keys.v6, block);
  return {static_cast<std::uint64_t>(_mm_cvtsi128_si64(block)), static_cast<std::uint64_t>(_mm_extract_epi64(block, 1))};
}

// IPv4 flows at once, `count` rounded up to four of them; 16 bytes each, as hash_v4() takes them. Both arrays are aligned to
// 64 bytes.
LB_INLINE void hash_v4_burst(const HashKeys& keys, const void* tuples, Hash128* hashes, std::uint32_t count) {
#if defined(__VAES__) && defined(__AVX512F__)
  const auto* key = reinterpret_cast<const __m128i*>(keys.v4.data());
  __m512i round_keys[11];
  for (int round = 0; round < 11; ++round)
    round_keys[round] = _mm512_maskz_broadcast_i32x4(0xffff, _mm_load_si128(key + round));
  const auto* from = static_cast<const __m512i*>(tuples);
  auto* to = reinterpret_cast<__m512i*>(hashes);
  for (std::uint32_t n = 0; n < (count + 3) / 4; ++n) {
    __m512i block = _mm512_xor_si512(_mm512_load_si512(from + n), round_keys[0]);
    for (int round = 1; round < 10; ++round) block = _mm512_aesenc_epi128(block, round_keys[round]);
    _mm512_store_si512(to + n, _mm512_aesenclast_epi128(block, round_keys[10]));
  }
#else
  const auto* from = static_cast<const __m128i*>(tuples);
  auto* to = reinterpret_cast<__m128i*>(hashes);
  for (std::uint32_t n = 0; n < count; ++n) _mm_store_si128(to + n, detail::aes_encrypt(keys.v4, _mm_load_si128(from + n)));
#endif
}

#else

LB_INLINE Hash128 hash_v4(const HashKeys& keys, std::uint64_t addresses, std::uint64_t last) {
  const aes::Block block = aes::encrypt(keys.v4, aes::block_of(addresses, last));
  return {block.word[0] | std::uint64_t{block.word[1]} << 32, block.word[2] | std::uint64_t{block.word[3]} << 32};
}

LB_INLINE Hash128 flow_hash_fast(const HashKeys& keys, const net::FlowKey& key) {
  return aes::hash(keys, key);
}

LB_INLINE void hash_v4_burst(const HashKeys& keys, const void* tuples, Hash128* hashes, std::uint32_t count) {
  const auto* from = static_cast<const std::uint8_t*>(tuples);
  for (std::uint32_t n = 0; n < count; ++n, from += 16)
    hashes[n] = hash_v4(keys, load<std::uint64_t>(from), load<std::uint64_t>(from + 8));
}

#endif

}  // namespace lb
