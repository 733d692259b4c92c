#include "dp/io/steering.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "bpf/steer.skel.h"

namespace lb::io {
namespace {

constexpr std::uint32_t kMaxMapsOfProgram = 16;

struct SkeletonDeleter {
  void operator()(steer_bpf* skeleton) const { steer_bpf::destroy(skeleton); }
};
using Skeleton = std::unique_ptr<steer_bpf, SkeletonDeleter>;

tl::unexpected<std::string> failed(const std::string& interface, const std::string& what, int error) {
  return tl::unexpected("steering of " + interface + ": " + what + ": " + std::strerror(error));
}

bool same_shape(const bpf_map* map, int other_fd) {
  bpf_map_info other{};
  std::uint32_t size = sizeof(other);
  return bpf_obj_get_info_by_fd(other_fd, &other, &size) == 0 &&
         other.type == static_cast<std::uint32_t>(bpf_map__type(map)) && other.key_size == bpf_map__key_size(map) &&
         other.value_size == bpf_map__value_size(map) && other.max_entries == bpf_map__max_entries(map);
}

Fd map_of_program(int program_fd, const char* name) {
  std::array<std::uint32_t, kMaxMapsOfProgram> ids{};
  bpf_prog_info info{};
  info.nr_map_ids = kMaxMapsOfProgram;
  info.map_ids = reinterpret_cast<std::uintptr_t>(ids.data());
  std::uint32_t size = sizeof(info);
  if (bpf_obj_get_info_by_fd(program_fd, &info, &size) != 0) return Fd{};
  for (std::uint32_t i = 0; i < std::min(info.nr_map_ids, kMaxMapsOfProgram); ++i) {
    Fd map(bpf_map_get_fd_by_id(ids[i]));
    bpf_map_info map_info{};
    std::uint32_t map_size = sizeof(map_info);
    if (map && bpf_obj_get_info_by_fd(map.get(), &map_info, &map_size) == 0 && std::strcmp(map_info.name, name) == 0)
      return map;
  }
  return Fd{};
}

template <typename Key>
std::vector<Key> keys_of(int map_fd) {
  std::vector<Key> keys;
  Key key;
  for (const Key* previous = nullptr; bpf_map_get_next_key(map_fd, previous, &key) == 0; previous = &keys.back()) {
    keys.push_back(key);
  }
  std::sort(keys.begin(), keys.end());
  return keys;
}

template <typename Key>
tl::expected<void, std::string> add_keys(const std::string& interface, int map_fd, const std::vector<Key>& keys,
                                         const char* what) {
  const std::uint32_t one = 1;
  for (const Key& key : keys) {
    if (bpf_map_update_elem(map_fd, &key, &one, BPF_ANY) != 0)
      return failed(interface, std::string("adding ") + what, errno);
  }
  return {};
}

template <typename Key>
tl::expected<void, std::string> keep_keys(const std::string& interface, int map_fd, const std::vector<Key>& sorted,
                                          const char* what) {
  for (const Key& key : keys_of<Key>(map_fd)) {
    if (std::binary_search(sorted.begin(), sorted.end(), key)) continue;
    if (bpf_map_delete_elem(map_fd, &key) != 0) return failed(interface, std::string("removing ") + what, errno);
  }
  return {};
}

constexpr const char* kVip = "a VIP";
constexpr const char* kReturn = "the source of a nat target's replies";
constexpr const char* kTunnelEnd = "a tunnel source";
constexpr const char* kOwn = "an address of this host";

// What an earlier run has left on the interface.
struct Found {
  Fd link;
  Fd program;
};

// An empty Found if the pin is absent, or belongs to an interface that is gone: that pin is removed.
Found find_pinned(const std::string& pin, std::uint32_t ifindex) {
  Found found;
  found.link = Fd(bpf_obj_get(pin.c_str()));
  if (!found.link) return found;
  bpf_link_info info{};
  std::uint32_t size = sizeof(info);
  std::uint32_t attached = 0;
  if (bpf_obj_get_info_by_fd(found.link.get(), &info, &size) == 0 && info.type == BPF_LINK_TYPE_XDP &&
      info.xdp.ifindex == ifindex && bpf_xdp_query_id(static_cast<int>(ifindex), 0, &attached) == 0 &&
      attached == info.prog_id) {
    found.program = Fd(bpf_prog_get_fd_by_id(info.prog_id));
  }
  if (!found.program) {
    ::unlink(pin.c_str());
    found = Found{};
  }
  return found;
}

SteeringStats read_stats(int outcomes_fd) {
  const int cpus = libbpf_num_possible_cpus();
  std::vector<std::uint64_t> per_cpu(cpus > 0 ? static_cast<std::size_t>(cpus) : 1);
  const auto sum = [&](std::uint32_t outcome) {
    std::fill(per_cpu.begin(), per_cpu.end(), 0);
    bpf_map_lookup_elem(outcomes_fd, &outcome, per_cpu.data());
    std::uint64_t total = 0;
    for (const std::uint64_t n : per_cpu) total += n;
    return total;
  };
  return {.steered = sum(0), .passed = sum(1), .dropped_no_socket = sum(2)};
}

// Our program, working on the maps that the one before it has left, except for its sockets. Returns in `kept` whether the
// VIPs are among these.
tl::expected<Skeleton, std::string> load_program(const std::string& interface, const Fd& before, bool& kept) {
  libbpf_set_print(nullptr);  // "skipping unrecognized data section xdp_metadata" is no news
  Skeleton skeleton(steer_bpf::open());
  if (!skeleton) return failed(interface, "opening the program", errno);
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, skeleton->obj) {
    if (!before || map == skeleton->maps.xsks_map) continue;
    const Fd old = map_of_program(before.get(), bpf_map__name(map));
    if (!old || !same_shape(map, old.get()) || bpf_map__reuse_fd(map, old.get()) != 0) continue;
    kept = kept || map == skeleton->maps.vips;
  }
  if (const int error = steer_bpf::load(skeleton.get()); error != 0) return failed(interface, "loading the program", -error);
  return skeleton;
}

tl::expected<void, std::string> attach_new(const std::string& interface, std::uint32_t ifindex, int program_fd,
                                           const std::string& pin) {
  const Fd link(bpf_link_create(program_fd, static_cast<int>(ifindex), BPF_XDP, nullptr));
  if (!link) {
    std::uint32_t other = 0;
    if (errno == EBUSY && bpf_xdp_query_id(static_cast<int>(ifindex), 0, &other) == 0 && other != 0) {
      return tl::unexpected("steering of " + interface + ": XDP program " + std::to_string(other) +
                            " of someone else is attached; detach it (ip link set dev " + interface + " xdp off)");
    }
    return failed(interface, "attaching the program", errno);
  }
  if (bpf_obj_pin(link.get(), pin.c_str()) != 0) return failed(interface, "pinning the link at " + pin, errno);
  return {};
}

}  // namespace

tl::expected<Steering, std::string> Steering::attach(const std::string& interface, const std::string& bpf_dir) {
  const std::uint32_t ifindex = ::if_nametoindex(interface.c_str());
  if (ifindex == 0) return failed(interface, "looking it up", errno);
  const std::string pin = bpf_dir + "/" + interface;
  const Found found = find_pinned(pin, ifindex);
  bool kept = false;
  auto loaded = load_program(interface, found.program, kept);
  if (!loaded) return tl::unexpected(loaded.error());
  const steer_bpf& skeleton = **loaded;
  const int program_fd = bpf_program__fd(skeleton.progs.xsk_def_prog);
  const int vips_fd = bpf_map__fd(skeleton.maps.vips);
  const int prefixes_fd = bpf_map__fd(skeleton.maps.vip_prefixes);
  const int returns_fd = bpf_map__fd(skeleton.maps.returns);
  const int tunnel_ends_fd = bpf_map__fd(skeleton.maps.tunnel_ends);
  const int everything_fd = bpf_map__fd(skeleton.maps.everything);
  const int own_addresses_fd = bpf_map__fd(skeleton.maps.own_addresses);
  const int outcomes_fd = bpf_map__fd(skeleton.maps.outcomes);

  Steering steering;
  steering.interface_ = interface;
  steering.taken_over_ = static_cast<bool>(found.link);
  if (found.link) {
    const Fd vips_before = kept ? Fd{} : map_of_program(found.program.get(), "vips");
    if (vips_before) {
      if (auto r = add_keys(interface, vips_fd, keys_of<abi::IpAddress>(vips_before.get()), kVip); !r)
        return tl::unexpected(r.error());
    }
    // Even the same program is replaced: drivers hand it to receive queues that were added meanwhile only then (veth), and
    // a queue without it passes VIPs to the kernel.
    if (bpf_link_update(found.link.get(), program_fd, nullptr) != 0)
      return failed(interface, "replacing the program", errno);
  } else if (auto r = attach_new(interface, ifindex, program_fd, pin); !r) {
    return tl::unexpected(r.error());
  }
  steering.vips_ = Fd(::fcntl(vips_fd, F_DUPFD_CLOEXEC, 0));
  steering.prefixes_ = Fd(::fcntl(prefixes_fd, F_DUPFD_CLOEXEC, 0));
  steering.returns_ = Fd(::fcntl(returns_fd, F_DUPFD_CLOEXEC, 0));
  steering.tunnel_ends_ = Fd(::fcntl(tunnel_ends_fd, F_DUPFD_CLOEXEC, 0));
  steering.everything_ = Fd(::fcntl(everything_fd, F_DUPFD_CLOEXEC, 0));
  steering.own_addresses_ = Fd(::fcntl(own_addresses_fd, F_DUPFD_CLOEXEC, 0));
  steering.outcomes_ = Fd(::fcntl(outcomes_fd, F_DUPFD_CLOEXEC, 0));
  return steering;
}

tl::expected<void, std::string> Steering::add(const Steered& steered) const {
  return add_keys(interface_, vips_.get(), steered.addresses, kVip)
      .and_then([&] { return add_keys(interface_, prefixes_.get(), steered.prefixes, kVip); })
      .and_then([&] { return add_keys(interface_, returns_.get(), steered.returns, kReturn); })
      .and_then([&] { return add_keys(interface_, tunnel_ends_.get(), steered.tunnel_ends, kTunnelEnd); })
      .and_then([&] { return is_whole(steered) ? steer_everything(true) : tl::expected<void, std::string>{}; });
}

bool Steering::is_whole(const Steered& steered) const {
  return std::binary_search(steered.whole_interfaces.begin(), steered.whole_interfaces.end(), interface_);
}

tl::expected<void, std::string> Steering::steer_everything(bool all) const {
  const std::uint32_t zero = 0;
  const std::uint32_t value = all ? 1 : 0;
  if (bpf_map_update_elem(everything_.get(), &zero, &value, BPF_ANY) != 0)
    return failed(interface_, "steering all of it", errno);
  return {};
}

tl::expected<void, std::string> Steering::keep_only(const Steered& steered) const {
  return keep_keys(interface_, vips_.get(), steered.addresses, kVip)
      .and_then([&] { return keep_keys(interface_, prefixes_.get(), steered.prefixes, kVip); })
      .and_then([&] { return keep_keys(interface_, returns_.get(), steered.returns, kReturn); })
      .and_then([&] { return keep_keys(interface_, tunnel_ends_.get(), steered.tunnel_ends, kTunnelEnd); })
      .and_then([&] { return steer_everything(is_whole(steered)); });
}

tl::expected<void, std::string> Steering::set_own_addresses(const std::vector<abi::IpAddress>& addresses) const {
  return add_keys(interface_, own_addresses_.get(), addresses, kOwn).and_then([&] {
    return keep_keys(interface_, own_addresses_.get(), addresses, kOwn);
  });
}

Steered Steering::steered() const {
  Steered steered{.addresses = keys_of<abi::IpAddress>(vips_.get()),
                  .prefixes = keys_of<SteeredPrefix>(prefixes_.get()),
                  .returns = keys_of<ReturnSource>(returns_.get()),
                  .tunnel_ends = keys_of<SteeredPrefix>(tunnel_ends_.get()),
                  .whole_interfaces = {}};
  const std::uint32_t zero = 0;
  std::uint32_t all = 0;
  if (bpf_map_lookup_elem(everything_.get(), &zero, &all) == 0 && all != 0) steered.whole_interfaces = {interface_};
  return steered;
}

SteeringStats Steering::stats() const {
  return read_stats(outcomes_.get());
}

SteeringStats Steering::stats_of(const std::string& interface, const std::string& bpf_dir) {
  const Found found = find_pinned(bpf_dir + "/" + interface, ::if_nametoindex(interface.c_str()));
  const Fd outcomes = found.program ? map_of_program(found.program.get(), "outcomes") : Fd{};
  return outcomes ? read_stats(outcomes.get()) : SteeringStats{};
}

}  // namespace lb::io
