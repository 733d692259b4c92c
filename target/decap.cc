#include "target/decap.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "bpf/decap.skel.h"
#include "target/fd.h"
#include "target/host.h"

namespace lb::target {
namespace {

constexpr std::uint32_t kTcHandle = 0x6c62;
constexpr std::uint32_t kTcPriority = 1;

using Skeleton = std::unique_ptr<decap_bpf, decltype(&decap_bpf::destroy)>;
template <typename T>
using Result = tl::expected<T, std::string>;

tl::unexpected<std::string> failure(const std::string& what, int error) {
  return tl::unexpected(what + ": " + std::strerror(std::abs(error)));
}

Result<int> index_of(const std::string& interface) {
  const unsigned ifindex = if_nametoindex(interface.c_str());
  if (ifindex == 0) return failure(interface, errno);
  return static_cast<int>(ifindex);
}

bpf_prog_info info_of(int program_fd) {
  bpf_prog_info info{};
  __u32 size = sizeof info;
  if (bpf_obj_get_info_by_fd(program_fd, &info, &size) != 0) return {};
  return info;
}

// Our program on an interface, and its maps.
struct Attached {
  Mode mode = Mode::native;
  Fd program;
  Fd addresses;
  Fd gue_ports;
  Fd counters;
};

Fd find_map(int program_fd, std::string_view name) {
  std::array<__u32, 8> ids{};
  bpf_prog_info info{};
  __u32 size = sizeof info;
  info.nr_map_ids = ids.size();
  info.map_ids = reinterpret_cast<std::uintptr_t>(ids.data());
  if (bpf_obj_get_info_by_fd(program_fd, &info, &size) != 0) return Fd();
  for (std::size_t i = 0; i < std::min<std::size_t>(info.nr_map_ids, ids.size()); ++i) {
    Fd map(bpf_map_get_fd_by_id(ids[i]));
    bpf_map_info map_info{};
    size = sizeof map_info;
    if (map && bpf_obj_get_info_by_fd(map.get(), &map_info, &size) == 0 && map_info.name == name) return map;
  }
  return Fd();
}

// The program with this id, if it is ours: by its name and those of its maps.
std::optional<Attached> open_ours(Mode mode, std::uint32_t id) {
  if (id == 0) return std::nullopt;
  Fd program(bpf_prog_get_fd_by_id(id));
  if (!program || info_of(program.get()).name != std::string_view(mode == Mode::tc ? "decap_tc" : "decap_xdp"))
    return std::nullopt;
  Fd addresses = find_map(program.get(), "addresses");
  Fd gue_ports = find_map(program.get(), "gue_ports");  // there is none in the program of earlier versions
  Fd counters = find_map(program.get(), "counters");
  if (!addresses || !counters) return std::nullopt;
  return Attached{mode, std::move(program), std::move(addresses), std::move(gue_ports), std::move(counters)};
}

std::optional<Attached> find_attached(int ifindex) {
  LIBBPF_OPTS(bpf_xdp_query_opts, xdp);
  if (bpf_xdp_query(ifindex, 0, &xdp) == 0) {
    if (auto native = open_ours(Mode::native, xdp.drv_prog_id)) return native;
    if (auto generic = open_ours(Mode::generic, xdp.skb_prog_id)) return generic;
  }
  LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_INGRESS);
  LIBBPF_OPTS(bpf_tc_opts, filter, .handle = kTcHandle, .priority = kTcPriority);
  if (bpf_tc_query(&hook, &filter) != 0) return std::nullopt;
  return open_ours(Mode::tc, filter.prog_id);
}

template <typename Key>
std::vector<Key> read_keys(int map) {
  std::vector<Key> keys;
  Key next;
  for (const void* key = nullptr; bpf_map_get_next_key(map, key, &next) == 0; key = &keys.back()) keys.push_back(next);
  std::sort(keys.begin(), keys.end());
  return keys;
}

// Adds before it removes, so that an address that stays is never missing.
template <typename Key>
Result<void> write_keys(int map, const std::vector<Key>& wanted, const char* what) {
  const std::uint8_t present = 1;
  for (const auto& key : wanted) {
    if (const int error = bpf_map_update_elem(map, &key, &present, BPF_ANY)) return failure(what, error);
  }
  for (const auto& key : read_keys<Key>(map)) {
    if (std::find(wanted.begin(), wanted.end(), key) == wanted.end()) bpf_map_delete_elem(map, &key);
  }
  return {};
}

// What is decapsulated: the outer destinations, and the UDP ports of GUE.
struct Wanted {
  const std::vector<abi::IpAddress>& addresses;
  const std::vector<std::uint16_t>& gue_ports;
};

Result<void> write_wanted(int addresses, int gue_ports, const Wanted& wanted) {
  return write_keys(addresses, wanted.addresses, "addresses").and_then([&] {
    return write_keys(gue_ports, wanted.gue_ports, "GUE ports");
  });
}

bpf_program* program_of(const decap_bpf& skeleton, Mode mode) {
  return mode == Mode::tc ? skeleton.progs.decap_tc : skeleton.progs.decap_xdp;
}

Result<Skeleton> load(Mode mode) {
  Skeleton skeleton(decap_bpf::open(), &decap_bpf::destroy);
  if (!skeleton) return failure("decap program", errno);
  bpf_program__set_autoload(skeleton->progs.decap_xdp, mode != Mode::tc);
  bpf_program__set_autoload(skeleton->progs.decap_tc, mode == Mode::tc);
  if (const int error = decap_bpf::load(skeleton.get())) return failure("the kernel refuses the decap program", error);
  return skeleton;
}

Result<void> attach_tc(int ifindex, int program) {
  LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_INGRESS);
  if (const int error = bpf_tc_hook_create(&hook); error != 0 && error != -EEXIST) return failure("clsact qdisc", error);
  LIBBPF_OPTS(bpf_tc_opts, filter, .prog_fd = program, .handle = kTcHandle, .priority = kTcPriority);
  if (const int error = bpf_tc_attach(&hook, &filter)) return failure("tc filter", error);
  return {};
}

std::uint32_t xdp_flags(Mode mode) {
  return mode == Mode::native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
}

Result<void> attach_xdp(int ifindex, int program, Mode mode) {
  const int error = bpf_xdp_attach(ifindex, program, xdp_flags(mode) | XDP_FLAGS_UPDATE_IF_NOEXIST, nullptr);
  if (error == -EBUSY || error == -EEXIST) return tl::unexpected(std::string("another XDP program is attached"));
  if (error != 0) return failure("XDP", error);
  return {};
}

Result<void> attach_as(Mode mode, int ifindex, const Wanted& wanted) {
  auto skeleton = load(mode);
  if (!skeleton) return tl::unexpected(skeleton.error());
  const decap_bpf& bpf = **skeleton;
  auto written = write_wanted(bpf_map__fd(bpf.maps.addresses), bpf_map__fd(bpf.maps.gue_ports), wanted);
  if (!written) return written;
  const int program = bpf_program__fd(program_of(bpf, mode));
  return mode == Mode::tc ? attach_tc(ifindex, program) : attach_xdp(ifindex, program, mode);
}

// Whether what is attached is this build's program in the mode asked for, so that it can stay.
Result<bool> is_current(const Attached& attached, std::optional<Mode> mode) {
  if (mode && *mode != attached.mode) return false;
  auto skeleton = load(attached.mode);
  if (!skeleton) return tl::unexpected(skeleton.error());
  const bpf_prog_info ours = info_of(bpf_program__fd(program_of(**skeleton, attached.mode)));
  const bpf_prog_info theirs = info_of(attached.program.get());
  return std::memcmp(ours.tag, theirs.tag, sizeof ours.tag) == 0;
}

Result<void> remove_attached(const Attached& attached, int ifindex) {
  int error = 0;
  if (attached.mode == Mode::tc) {
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_INGRESS);
    LIBBPF_OPTS(bpf_tc_opts, filter, .handle = kTcHandle, .priority = kTcPriority);
    error = bpf_tc_detach(&hook, &filter);
  } else {
    error = bpf_xdp_detach(ifindex, xdp_flags(attached.mode), nullptr);
  }
  if (error != 0) return failure("detach", error);
  return {};
}

}  // namespace

std::string_view to_string(Mode mode) {
  switch (mode) {
    case Mode::native: return "native";
    case Mode::generic: return "generic";
    case Mode::tc: return "tc";
  }
  return "?";
}

Result<AttachResult> attach(const std::string& interface, std::optional<Mode> mode, std::vector<abi::IpAddress> addresses,
                            const std::vector<std::uint16_t>& gue_ports) {
  libbpf_set_print(nullptr);
  const auto ifindex = index_of(interface);
  if (!ifindex) return tl::unexpected(ifindex.error());
  if (addresses.empty()) {
    for (const auto& local : local_addresses()) {
      if (local.interface == interface) addresses.push_back(local.address);
    }
  }
  if (addresses.empty()) return tl::unexpected(interface + " has no address: give those of the tunnel with --address");
  if (addresses.size() > DECAP_MAX_ADDRESSES) {
    return tl::unexpected("more than " + std::to_string(DECAP_MAX_ADDRESSES) + " addresses");
  }
  if (gue_ports.size() > DECAP_MAX_GUE_PORTS) {
    return tl::unexpected("more than " + std::to_string(DECAP_MAX_GUE_PORTS) + " GUE ports");
  }
  if (geteuid() != 0) return tl::unexpected(std::string("needs root"));
  const Wanted wanted{addresses, gue_ports};
  if (auto attached = find_attached(*ifindex)) {
    const auto current = is_current(*attached, mode);
    if (!current) return tl::unexpected(current.error());
    if (*current) {
      auto written = write_wanted(attached->addresses.get(), attached->gue_ports.get(), wanted);
      if (!written) return tl::unexpected(written.error());
      return AttachResult{attached->mode, true, addresses.size()};
    }
    if (auto removed = remove_attached(*attached, *ifindex); !removed) return tl::unexpected(removed.error());
  }
  std::string errors;
  for (const Mode candidate : {Mode::native, Mode::generic, Mode::tc}) {
    if (mode && *mode != candidate) continue;
    const auto attached = attach_as(candidate, *ifindex, wanted);
    if (attached) return AttachResult{candidate, false, addresses.size()};
    errors += (errors.empty() ? "" : "; ") + std::string(to_string(candidate)) + ": " + attached.error();
  }
  return tl::unexpected(interface + ": " + errors);
}

Result<bool> detach(const std::string& interface) {
  libbpf_set_print(nullptr);
  const auto ifindex = index_of(interface);
  if (!ifindex) return tl::unexpected(ifindex.error());
  if (geteuid() != 0) return tl::unexpected(std::string("needs root"));
  const auto attached = find_attached(*ifindex);
  if (!attached) return false;
  if (auto removed = remove_attached(*attached, *ifindex); !removed) return tl::unexpected(removed.error());
  return true;
}

Result<std::optional<Status>> status(const std::string& interface) {
  libbpf_set_print(nullptr);
  const auto ifindex = index_of(interface);
  if (!ifindex) return tl::unexpected(ifindex.error());
  if (geteuid() != 0) return tl::unexpected(std::string("needs root"));
  const auto attached = find_attached(*ifindex);
  if (!attached) return std::optional<Status>{};

  const int cpus = libbpf_num_possible_cpus();
  if (cpus <= 0) return failure("number of CPUs", cpus);
  Status status{.mode = attached->mode,
                .addresses = read_keys<abi::IpAddress>(attached->addresses.get()),
                .gue_ports = read_keys<std::uint16_t>(attached->gue_ports.get())};
  std::vector<std::uint64_t> per_cpu(static_cast<std::size_t>(cpus));
  for (std::uint32_t i = 0; i < DECAP_COUNTERS; ++i) {
    const int error = bpf_map_lookup_elem(attached->counters.get(), &i, per_cpu.data());
    if (error != 0) return failure("counters", error);
    for (const std::uint64_t packets : per_cpu) status.counters[i] += packets;
  }
  return std::optional(std::move(status));
}

}  // namespace lb::target
