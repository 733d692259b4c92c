// What the fuzz targets share: a reader of their input, and blocks of memory whose ends the sanitizers watch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

namespace lb::fuzz {

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

// Takes bytes from the front; past the end there are zeros.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}
  [[nodiscard]] bool empty() const { return rest_.empty(); }
  std::uint8_t byte() {
    if (rest_.empty()) return 0;
    const std::uint8_t value = rest_.front();
    rest_ = rest_.subspan(1);
    return value;
  }
  std::uint16_t half() {
    const std::uint16_t high = byte();
    return static_cast<std::uint16_t>(high << 8 | byte());
  }
  std::uint64_t word() {
    std::uint64_t value = 0;
    for (int i = 0; i < 4; ++i) value = value << 16 | half();
    return value;
  }
  std::span<const std::uint8_t> take(std::size_t count) {
    const auto taken = rest_.first(std::min(count, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }

 private:
  std::span<const std::uint8_t> rest_;
};

// A heap block of its own: `headroom` bytes, the frame, and nothing behind it.
struct Block {
  Block(std::span<const std::uint8_t> frame, std::size_t headroom)
      : bytes(new std::uint8_t[headroom + frame.size()]), data(bytes.get() + headroom) {
    std::memset(bytes.get(), 0, headroom);
    if (!frame.empty()) std::memcpy(data, frame.data(), frame.size());
  }
  std::unique_ptr<std::uint8_t[]> bytes;
  std::uint8_t* data;
};

}  // namespace lb::fuzz
