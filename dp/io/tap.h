// A TAP interface of lb-dp's own: the way into the kernel for frames that are the kernel's.
//
//   worker ── write ──▶ /dev/net/tun ──▶ kernel stack        any worker may write; a write takes 2–10 µs and never blocks
//   worker ◀── read ─── /dev/net/tun ◀── kernel stack        one worker reads, and only where the TAP is a kernel twin
//
// The interface exists as long as the Tap does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <tl/expected.hpp>

#include "dp/abi/types.h"
#include "dp/io/fd.h"

namespace lb::io {

struct TapOptions {
  std::string name;
  abi::MacAddress mac{};  // frames to this address are taken as the host's own
  std::uint32_t mtu_bytes = 1500;
  bool punt_only = false;  // true: nothing is read; the kernel gets no address of its own there
};

class Tap {
 public:
  // Makes the interface and brings it up. Errors in words: no permission, name in use, …
  static tl::expected<Tap, std::string> open(const TapOptions& options);

  // False: the kernel did not take the frame.
  bool write(std::span<const std::uint8_t> frame) const;

  // Bytes of the frame read into `out`; 0: there is none.
  std::size_t read(std::span<std::uint8_t> out) const;

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const abi::MacAddress& mac() const { return mac_; }

 private:
  Tap(Fd fd, std::string name, const abi::MacAddress& mac);

  Fd fd_;
  std::string name_;
  abi::MacAddress mac_{};
};

}  // namespace lb::io
