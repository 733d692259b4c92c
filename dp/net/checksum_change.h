// What replacing bytes does to an Internet checksum over them (RFC 1624), gathered over several replacements. Bytes start at
// an even offset of what the checksum covers. Out of the common path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dp/base/endian.h"
#include "dp/net/checksum.h"

namespace lb::net {

// What some bytes' sum grows by, in one's complement: ~old + new, word by word (RFC 1624, equation 3).
class ChecksumChange {
 public:
  void add(const std::uint8_t* old_bytes, const std::uint8_t* new_bytes, std::size_t length) {
    sum_ += std::uint64_t{static_cast<std::uint16_t>(~checksum_fold(checksum_sum(old_bytes, length)))} +
            checksum_fold(checksum_sum(new_bytes, length));
  }
  void add(const ChecksumChange& other) { sum_ += other.sum_; }
  // Bytes that were not there before.
  void add_new(const std::uint8_t* bytes, std::size_t length) { sum_ += checksum_fold(checksum_sum(bytes, length)); }
  // Words whose sum was `before` and is `after`, both not folded.
  void add_sums(std::uint64_t before, std::uint64_t after) {
    sum_ += std::uint64_t{static_cast<std::uint16_t>(~checksum_fold(before))} + checksum_fold(after);
  }
  // Of a checksum field that covers what changed.
  void apply(std::uint8_t* checksum) const {
    store(checksum, checksum_finish(std::uint64_t{static_cast<std::uint16_t>(~load<std::uint16_t>(checksum))} + sum_));
  }

 private:
  std::uint64_t sum_ = 0;
};

// Replaces bytes and returns what that does to a sum over them.
inline ChecksumChange replace_bytes(std::uint8_t* at, const std::uint8_t* with, std::size_t length) {
  ChecksumChange change;
  change.add(at, with, length);
  std::memcpy(at, with, length);
  return change;
}

}  // namespace lb::net
