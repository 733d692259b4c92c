#include "dp/io/tap.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "dp/io/interface.h"

namespace lb::io {
namespace {

constexpr abi::IpAddress kDummyAddress = abi::IpAddress::v4(192, 0, 0, 8);  // RFC 7600 §4.8: names no host anywhere

// Missing files (a kernel without IPv6) are fine: there is nothing to set then.
void set_sysctl(const std::string& family, const std::string& name, const char* key, const char* value) {
  std::ofstream("/proc/sys/net/" + family + "/conf/" + name + "/" + key) << value;
}

}  // namespace

Tap::Tap(Fd fd, std::string name, const abi::MacAddress& mac) : fd_(std::move(fd)), name_(std::move(name)), mac_(mac) {}

tl::expected<Tap, std::string> Tap::open(const TapOptions& options) {
  Fd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return tl::unexpected(std::string("/dev/net/tun: ") + std::strerror(errno));
  Tap tap(std::move(fd), options.name, options.mac);
  ifreq request{};
  options.name.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (::ioctl(tap.fd_.get(), TUNSETIFF, &request) != 0) {
    const char* hint = errno == EBUSY ? " (another process has it: is a second lb-dp running here?)" : "";
    return tl::unexpected("TAP " + options.name + ": " + std::strerror(errno) + hint);
  }
  // Clients are not reached through the TAP but through the port beside it: a strict reverse-path check would drop every
  // punted frame. Loose (2) wins over strict (1) on `all`, but takes nothing on an interface without an address.
  set_sysctl("ipv4", options.name, "rp_filter", "2");
  if (options.punt_only) {
    if (auto r = set_interface_address(options.name, kDummyAddress); !r) return tl::unexpected(r.error());
    set_sysctl("ipv6", options.name, "addr_gen_mode", "1");
    set_sysctl("ipv6", options.name, "accept_ra", "0");
    set_sysctl("ipv4", options.name, "arp_ignore", "8");
  }
  if (auto r = set_interface_mac(options.name, options.mac); !r) return tl::unexpected(r.error());
  if (auto r = set_interface_mtu(options.name, options.mtu_bytes); !r) return tl::unexpected(r.error());
  if (auto r = set_interface_up(options.name); !r) return tl::unexpected(r.error());
  return tap;
}

bool Tap::write(std::span<const std::uint8_t> frame) const {
  return ::write(fd_.get(), frame.data(), frame.size()) == static_cast<ssize_t>(frame.size());
}

std::size_t Tap::read(std::span<std::uint8_t> out) const {
  const ssize_t n = ::read(fd_.get(), out.data(), out.size());
  return n > 0 ? static_cast<std::size_t>(n) : 0;
}

}  // namespace lb::io
