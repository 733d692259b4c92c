// Capture files in and out, by libpcap: pcap with microsecond or nanosecond stamps, and pcapng, of Ethernet frames.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tl/expected.hpp>

namespace lb::replay {

struct CapturedFrame {
  std::uint64_t at_ns = 0;              // stamp, ns since 1970; 0 where the file has a nonsensical one
  std::span<const std::uint8_t> bytes;  // what was captured, maybe less than was on the wire; valid until the next read
};

class CaptureReader {
 public:
  // Error: "FILE: what is wrong", as for a file that is no capture or whose link type is not Ethernet.
  static tl::expected<CaptureReader, std::string> open(const std::string& file);

  // The next frame; nullopt at the end. Error: "FILE: packet N: what is wrong".
  tl::expected<std::optional<CapturedFrame>, std::string> next();

  // Whether the file keeps nanoseconds: what is written in answer to it does so as well.
  [[nodiscard]] bool nanoseconds() const { return nanoseconds_; }

 private:
  struct Close {
    void operator()(void* pcap) const;
  };
  std::unique_ptr<void, Close> pcap_;
  std::string file_;
  std::uint64_t packets_ = 0;
  bool nanoseconds_ = false;
};

class CaptureWriter {
 public:
  static tl::expected<CaptureWriter, std::string> open(const std::string& file, bool nanoseconds);

  void write(std::uint64_t at_ns, std::span<const std::uint8_t> frame);

  // Flushes to the file. Error: "FILE: what is wrong"; whatever write() met shows here.
  tl::expected<void, std::string> close();

 private:
  struct CloseDump {
    void operator()(void* dump) const;
  };
  struct ClosePcap {
    void operator()(void* pcap) const;
  };
  std::unique_ptr<void, ClosePcap> pcap_;
  std::unique_ptr<void, CloseDump> dump_;
  std::string file_;
  bool nanoseconds_ = false;
};

}  // namespace lb::replay
