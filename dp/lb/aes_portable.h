// AES-128 (FIPS 197) in plain C++, for CPUs without AES instructions and as the twin the others are tested against. One
// 1 KiB table: S-box and MixColumns of a byte, the other three columns are its rotations. Not constant in time: the flow
// hash is a lookup key, not a ciphertext that anyone sees.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "dp/base/compiler.h"
#include "dp/base/endian.h"
#include "dp/lb/flow_hash.h"

namespace lb::aes {

static_assert(std::endian::native == std::endian::little);

using RoundKeys = std::array<std::array<std::uint8_t, 16>, 11>;

// Four columns; byte 0 of the block is the low byte of word 0.
struct Block {
  std::array<std::uint32_t, 4> word{};
};

namespace detail {

constexpr std::uint8_t twice(std::uint8_t x) {
  return static_cast<std::uint8_t>(x << 1 ^ (x & 0x80 ? 0x1b : 0));
}

// Powers of the generator 3 walk the field; the inverse of 3^i is 3^(255-i).
constexpr std::array<std::uint8_t, 256> make_sbox() {
  std::array<std::uint8_t, 256> power{};
  std::array<std::uint8_t, 256> log{};
  std::uint8_t x = 1;
  for (std::size_t i = 0; i < 255; ++i) {
    power[i] = x;
    log[x] = static_cast<std::uint8_t>(i);
    x = static_cast<std::uint8_t>(x ^ twice(x));
  }
  std::array<std::uint8_t, 256> sbox{};
  for (std::size_t i = 0; i < 256; ++i) {
    const std::uint8_t inverse = i == 0 ? std::uint8_t{0} : power[(255U - log[i]) % 255U];
    std::uint8_t sum = 0x63;
    for (int turn = 0; turn < 5; ++turn) sum = static_cast<std::uint8_t>(sum ^ std::rotl(inverse, turn));
    sbox[i] = sum;
  }
  return sbox;
}

inline constexpr std::array<std::uint8_t, 256> kSbox = make_sbox();

constexpr std::array<std::uint8_t, 256> make_inverse_sbox() {
  std::array<std::uint8_t, 256> inverse{};
  for (std::size_t i = 0; i < 256; ++i) inverse[kSbox[i]] = static_cast<std::uint8_t>(i);
  return inverse;
}

inline constexpr std::array<std::uint8_t, 256> kInverseSbox = make_inverse_sbox();

// Product in the field; factor 1…15.
constexpr std::uint8_t times(std::uint8_t x, unsigned factor) {
  std::uint8_t product = 0;
  for (; factor != 0; factor >>= 1, x = twice(x)) product = static_cast<std::uint8_t>(product ^ ((factor & 1) != 0 ? x : 0));
  return product;
}

constexpr std::array<std::uint32_t, 256> make_columns() {
  std::array<std::uint32_t, 256> columns{};
  for (std::size_t i = 0; i < 256; ++i) {
    const std::uint8_t s = kSbox[i];
    const std::uint8_t s2 = twice(s);
    const auto s3 = static_cast<std::uint8_t>(s2 ^ s);
    columns[i] = std::uint32_t{s2} | std::uint32_t{s} << 8 | std::uint32_t{s} << 16 | std::uint32_t{s3} << 24;
  }
  return columns;
}

inline constexpr std::array<std::uint32_t, 256> kColumns = make_columns();

LB_INLINE std::uint32_t byte_of(const Block& block, std::size_t column, std::size_t row) {
  return block.word[column & 3] >> (8 * row) & 0xff;
}

LB_INLINE Block add_key(Block block, const std::array<std::uint8_t, 16>& key) {
  for (std::size_t i = 0; i < 4; ++i) block.word[i] ^= load<std::uint32_t>(key.data() + 4 * i);
  return block;
}

}  // namespace detail

LB_INLINE Block encrypt(const RoundKeys& keys, const Block& plain) {
  Block state = detail::add_key(plain, keys[0]);
  for (std::size_t round = 1; round < 10; ++round) {
    Block next;
    for (std::size_t c = 0; c < 4; ++c) {
      next.word[c] = detail::kColumns[detail::byte_of(state, c, 0)] ^
                     std::rotl(detail::kColumns[detail::byte_of(state, c + 1, 1)], 8) ^
                     std::rotl(detail::kColumns[detail::byte_of(state, c + 2, 2)], 16) ^
                     std::rotl(detail::kColumns[detail::byte_of(state, c + 3, 3)], 24);
    }
    state = detail::add_key(next, keys[round]);
  }
  Block last;
  for (std::size_t c = 0; c < 4; ++c) {
    for (std::size_t row = 0; row < 4; ++row) {
      last.word[c] |= std::uint32_t{detail::kSbox[detail::byte_of(state, c + row, row)]} << (8 * row);
    }
  }
  return detail::add_key(last, keys[10]);
}

// The inverse cipher, step by step: only single-pass QUIC connection IDs want it.
LB_INLINE Block decrypt(const RoundKeys& keys, const Block& cipher) {
  std::array<std::uint8_t, 16> state{};
  for (std::size_t i = 0; i < 16; ++i)
    state[i] = static_cast<std::uint8_t>(detail::byte_of(cipher, i / 4, i % 4) ^ keys[10][i]);
  for (std::size_t round = 9;; --round) {
    std::array<std::uint8_t, 16> moved{};  // rows shifted back, bytes substituted back
    for (std::size_t i = 0; i < 16; ++i) moved[(i + 4 * (i % 4)) % 16] = detail::kInverseSbox[state[i]];
    for (std::size_t i = 0; i < 16; ++i) moved[i] = static_cast<std::uint8_t>(moved[i] ^ keys[round][i]);
    if (round == 0) {
      state = moved;
      break;
    }
    for (std::size_t i = 0; i < 16; ++i) {
      const std::uint8_t* column = moved.data() + i / 4 * 4;
      state[i] = static_cast<std::uint8_t>(detail::times(column[i % 4], 14) ^ detail::times(column[(i + 1) % 4], 11) ^
                                           detail::times(column[(i + 2) % 4], 13) ^ detail::times(column[(i + 3) % 4], 9));
    }
  }
  Block plain;
  for (std::size_t i = 0; i < 4; ++i) plain.word[i] = load<std::uint32_t>(state.data() + 4 * i);
  return plain;
}

LB_INLINE RoundKeys expand_key(const std::array<std::uint8_t, 16>& key) {
  RoundKeys keys{};
  keys[0] = key;
  std::uint8_t constant = 1;
  for (std::size_t round = 1; round <= 10; ++round) {
    const auto& before = keys[round - 1];
    auto& now = keys[round];
    for (std::size_t i = 0; i < 4; ++i) {
      now[i] = static_cast<std::uint8_t>(before[i] ^ detail::kSbox[before[12 + ((i + 1) & 3)]] ^ (i == 0 ? constant : 0));
    }
    for (std::size_t i = 4; i < 16; ++i) now[i] = static_cast<std::uint8_t>(before[i] ^ now[i - 4]);
    constant = detail::twice(constant);
  }
  return keys;
}

// The last block of both formats: ports in network order, protocol, zeros.
LB_INLINE std::uint64_t ports_and_protocol(const net::FlowKey& key) {
  return std::uint64_t{swap16(key.source_port)} | std::uint64_t{swap16(key.destination_port)} << 16 |
         std::uint64_t{key.protocol} << 32;
}

LB_INLINE Block block_of(std::uint64_t low, std::uint64_t high) {
  return Block{{static_cast<std::uint32_t>(low), static_cast<std::uint32_t>(low >> 32), static_cast<std::uint32_t>(high),
                static_cast<std::uint32_t>(high >> 32)}};
}

LB_INLINE Block mixed(const Block& a, const Block& b) {
  return Block{{a.word[0] ^ b.word[0], a.word[1] ^ b.word[1], a.word[2] ^ b.word[2], a.word[3] ^ b.word[3]}};
}

LB_INLINE Hash128 hash(const HashKeys& keys, const net::FlowKey& key) {
  const std::uint8_t* source = key.source.bytes.data();
  const std::uint8_t* destination = key.destination.bytes.data();
  const std::uint64_t last = ports_and_protocol(key);
  Block block;
  if (key.is_v6 == 0) {
    block = encrypt(
        keys.v4,
        block_of(load<std::uint32_t>(source + 12) | std::uint64_t{load<std::uint32_t>(destination + 12)} << 32, last));
  } else {
    block = encrypt(keys.v6, block_of(load<std::uint64_t>(source), load<std::uint64_t>(source + 8)));
    block = encrypt(keys.v6, mixed(block, block_of(load<std::uint64_t>(destination), load<std::uint64_t>(destination + 8))));
    block = encrypt(keys.v6, mixed(block, block_of(last, 0)));
  }
  return Hash128{block.word[0] | std::uint64_t{block.word[1]} << 32, block.word[2] | std::uint64_t{block.word[3]} << 32};
}

}  // namespace lb::aes
