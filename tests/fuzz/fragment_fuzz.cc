// Fragments to VIPs, of both families, in any order, with any contents, on either worker, while time passes: every one ends
// once, held ones do not stay, and what was sent on is whole.
//
// Input: steps, each a byte of choices (family, worker, id, more follow, time), one of the offset, one of the length, then
// that much payload; a first fragment's begins with ports.
#include "dp/net/checksum.h"
#include "dp/net/headers.h"
#include "tests/fuzz/fleet.h"

namespace {

using namespace lb;
using fuzz::Frame;
using fuzz::Input;

constexpr int kMostSteps = 96;

void put_ethernet(Frame& frame, std::uint16_t ether_type) {
  const std::uint8_t macs[12] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9};
  std::copy_n(macs, sizeof macs, frame.begin());
  store_be16(frame.data() + net::kEtherTypeAt, ether_type);
}

Frame fragment4(std::uint8_t choices, std::uint8_t where, std::span<const std::uint8_t> payload) {
  Frame frame(net::kEthernetBytes + net::kIpv4Bytes + payload.size());
  put_ethernet(frame, net::kEtherTypeIpv4);
  std::uint8_t* ip = frame.data() + net::kEthernetBytes;
  ip[0] = 0x45;
  store_be16(ip + net::kIpv4TotalLengthAt, static_cast<std::uint16_t>(net::kIpv4Bytes + payload.size()));
  store_be16(ip + 4, choices >> 2 & 3);
  store_be16(ip + net::kIpv4FragmentAt, static_cast<std::uint16_t>((where & 0x3f) | ((choices & 16) != 0 ? 0x2000 : 0)));
  ip[net::kIpv4TtlAt] = 64;
  ip[net::kIpv4ProtocolAt] = (where & 0x80) != 0 ? 6 : 17;
  const std::uint8_t ends[8] = {198, 51, 100, 7, 192, 0, 2, 10};
  std::copy_n(ends, sizeof ends, ip + net::kIpv4SourceAt);
  store(ip + net::kIpv4ChecksumAt, net::checksum_finish(net::ipv4_header_sum(ip)));
  std::copy(payload.begin(), payload.end(), ip + net::kIpv4Bytes);
  return frame;
}

Frame fragment6(std::uint8_t choices, std::uint8_t where, std::span<const std::uint8_t> payload) {
  constexpr std::uint32_t kFragmentHeaderBytes = 8;
  Frame frame(net::kEthernetBytes + net::kIpv6Bytes + kFragmentHeaderBytes + payload.size());
  put_ethernet(frame, net::kEtherTypeIpv6);
  std::uint8_t* ip = frame.data() + net::kEthernetBytes;
  ip[0] = 0x60;
  store_be16(ip + net::kIpv6PayloadLengthAt, static_cast<std::uint16_t>(kFragmentHeaderBytes + payload.size()));
  ip[net::kIpv6NextHeaderAt] = 44;
  ip[net::kIpv6HopLimitAt] = 64;
  const std::uint8_t ends[32] = {0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7,
                                 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10};
  std::copy_n(ends, sizeof ends, ip + net::kIpv6SourceAt);
  std::uint8_t* header = ip + net::kIpv6Bytes;
  header[0] = (where & 0x80) != 0 ? 6 : 17;
  store_be16(header + 2, static_cast<std::uint16_t>((where & 0x3f) << 3 | ((choices & 16) != 0 ? 1 : 0)));
  store_be32(header + 4, choices >> 2 & 3);
  std::copy(payload.begin(), payload.end(), header + kFragmentHeaderBytes);
  return frame;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::uint64_t kStepsNs[] = {0, 1'000'000, 501'000'000, 31'000'000'000};
  Input input(data, size);
  fuzz::Fleet fleet;
  for (int step = 0; step < kMostSteps && !input.empty(); ++step) {
    const std::uint8_t choices = input.byte();
    const std::uint8_t where = input.byte();
    Frame payload;
    if ((where & 0x3f) == 0) {  // ports of a listener, most of the time
      const std::uint8_t port = input.byte();
      payload = {0x9c, 0x40, 0, static_cast<std::uint8_t>(80 + port % 9), 0, static_cast<std::uint8_t>(port >> 4), 0, 0};
    }
    const auto more = input.take(input.byte());
    payload.insert(payload.end(), more.begin(), more.end());
    fleet.packet(choices >> 1 & 1,
                 (choices & 1) != 0 ? fragment6(choices, where, payload) : fragment4(choices, where, payload));
    fleet.pass(kStepsNs[choices >> 6]);
    fleet.age();
    fleet.check();
  }
  fleet.pass(kHoldNs);
  fleet.age();
  fleet.check();
  fleet.check_nothing_held();
  return 0;
}
