#include "tests/bench/rig.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <stdexcept>

#include "dp/lb/flow_ops.h"
#include "tests/unit/lb/packets.h"

namespace lb::bench {
namespace {

constexpr std::size_t kHugePage = 2U << 20;

std::size_t rounded(std::size_t size) {
  return (size + kHugePage - 1) / kHugePage * kHugePage;
}

test::World make_world(Mode mode, std::uint32_t listeners) {
  test::World world;
  constexpr std::array<abi::ForwardingMode, kModes> kForwarding = {abi::ForwardingMode::l2dsr, abi::ForwardingMode::ipip,
                                                                   abi::ForwardingMode::ipip,  abi::ForwardingMode::gue,
                                                                   abi::ForwardingMode::gre,   abi::ForwardingMode::nat};
  const auto group = world.add_group(kForwarding[static_cast<std::size_t>(mode)], kSlots);
  world.groups[group].tcp_idle_timeout_s = 6000;  // rows do not outlive their flows
  for (std::uint32_t i = 0; i < kTargets; ++i) {
    abi::IpAddress address = abi::IpAddress::v4(10, 0, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i));
    if (mode == Mode::ipip6)
      address = {
          {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)}};
    world.add_target(group, address);
  }
  for (std::uint32_t l = 0; l < listeners; ++l) {
    const net::FlowKey key = flow_key(l, listeners);
    if (l % 10 == 0) world.add_vip(key.destination);
    world.add_listener(l / 10, abi::Protocol::tcp, key.destination_port, key.destination_port, {{group, 1}});
  }
  return world;
}

// How many packets are the first of their flow within a tick, at the assumed rate: those store to the flow's line.
double stale_share(std::uint64_t flows) {
  const double per_flow =
      kAssumedPps * static_cast<double>(kTickNs) / 1e9 / static_cast<double>(std::max<std::uint64_t>(flows, 1));
  return (1 - std::exp(-per_flow)) / per_flow;
}

}  // namespace

HugeMemory::HugeMemory(std::size_t size) : size_(rounded(size)) {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS;
  data_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, kFlags | MAP_HUGETLB | MAP_POPULATE, -1, 0);
  if (data_ != MAP_FAILED) {
    pages_ = "hugetlb";
    return;
  }
  size_ += kHugePage;  // so that a huge page can begin anywhere
  data_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, kFlags, -1, 0);
  if (data_ == MAP_FAILED) throw std::runtime_error("no memory for " + std::to_string(size) + " bytes");
  if (madvise(data_, size_, MADV_HUGEPAGE) == 0) pages_ = "transparent";
}

HugeMemory::HugeMemory(HugeMemory&& other) noexcept : data_(other.data_), size_(other.size_), pages_(other.pages_) {
  other.data_ = nullptr;
}

std::span<abi::FlowLine> HugeMemory::lines(std::uint64_t flows) const {
  auto at = reinterpret_cast<std::uintptr_t>(data_);
  if (std::strcmp(pages_, "hugetlb") != 0) at = rounded(at);
  return {reinterpret_cast<abi::FlowLine*>(at), FlowTable::lines_for(flows)};
}

HugeMemory::~HugeMemory() {
  if (data_ != nullptr) munmap(data_, size_);
}

net::FlowKey flow_key(std::uint64_t n, std::uint32_t listeners) {
  net::FlowKey key;
  const std::uint64_t listener = n % listeners;
  const auto source = static_cast<std::uint32_t>(0x0b000000 + (n & 0xffffff));
  key.source = abi::IpAddress::v4(static_cast<std::uint8_t>(source >> 24), static_cast<std::uint8_t>(source >> 16),
                                  static_cast<std::uint8_t>(source >> 8), static_cast<std::uint8_t>(source));
  const std::uint64_t vip = listener / 10;
  key.destination = abi::IpAddress::v4(198, 18, static_cast<std::uint8_t>(vip >> 8), static_cast<std::uint8_t>(vip));
  key.source_port = static_cast<std::uint16_t>(1024 + (n >> 24));
  key.destination_port = static_cast<std::uint16_t>(80 + listener % 10);
  key.protocol = static_cast<std::uint8_t>(abi::Protocol::tcp);
  return key;
}

PacketPool::PacketPool()
    : memory_(std::size_t{kBuffers} * kStride), first_(static_cast<std::uint8_t*>(memory_.data())), order_(kBuffers) {
  // A pool that has been in use hands its buffers out in no order.
  std::iota(order_.begin(), order_.end(), std::uint16_t{0});
  std::shuffle(order_.begin(), order_.end(), std::mt19937(1));
}

void PacketPool::write(std::uint32_t buffer, const net::FlowKey& key, std::uint8_t tcp_flags) {
  test::write_frame(first_ + std::size_t{order_[buffer]} * kStride + kHeadroom, key, {.tcp_flags = tcp_flags});
}

void PacketPool::fill(Burst& burst, std::uint32_t b, std::uint32_t size) const {
  constexpr std::uint32_t kFrameBytes = 60;  // 64 on the wire with the FCS
  burst.count = size;
  burst.ip_checksum_checked = true;  // as every NIC does
  for (std::uint32_t i = 0; i < size; ++i) {
    burst.data[i] = first_ + std::size_t{order_[b * size + i]} * kStride + kHeadroom;
    burst.length[i] = kFrameBytes;
    burst.headroom[i] = 128;
    burst.tailroom[i] = kStride - kHeadroom - kFrameBytes;
    burst.in_port[i] = 0;
  }
}

Rig::Rig(const Kernel& kernel, std::uint64_t flows, std::uint32_t listeners, FlowState state)
    : next_flow(flows),
      flows_(flows),
      listeners_(listeners),
      memory_(FlowTable::lines_for(flows) * sizeof(abi::FlowLine)),
      target_flows_(kTargets),
      listener_stats_(listeners) {
  lines_ = memory_.lines(flows);
  table_ = std::make_unique<FlowTable>(lines_, target_flows_, kSecret);
  for (std::size_t m = 0; m < kModes; ++m) {
    snapshots_[m] = test::make_snapshot(make_world(static_cast<Mode>(m), listeners));
    pipelines_[m] = std::make_unique<Pipeline>(
        PipelineOptions{.flows = table_.get(), .stats = &stats_, .listener_stats = listener_stats_.data()}, kernel);
  }
  for (std::uint64_t n = 0; n < flows; ++n) enter(kernel, n, state);
}

void Rig::enter(const Kernel& kernel, std::uint64_t flow, FlowState state) {
  const Hash128 hash = kernel.hash(table_->hash_keys(), flow_key(flow, listeners_));
  const std::uint64_t tick = now_ns / kTickNs & kTickMask;
  // Proven flows: as many stale as packets would find stale. Others: spread over their lifetime.
  const std::uint64_t coin = (flow + 1) * 0x9e3779b97f4a7c15ULL >> 32;
  const bool stale = static_cast<double>(coin) < stale_share(flows_) * 4294967296.0;
  const std::uint64_t age = state == FlowState::fresh ? coin * kFreshTimeoutTicks >> 32 : stale ? 1 : 0;
  const NewFlow entry{first_line(hash, lines_.size()), fingerprint_of(hash),
                      make_meta(static_cast<std::uint32_t>(flow % kTargets), state), (tick - age) & kTickMask};
  const std::uint64_t second = other_line(entry.first, entry.fingerprint, lines_.size());
  for (const std::uint64_t line : {entry.first, second}) {
    if (const std::uint32_t free = match(lines_[line], 0); free != 0)
      return place(table_->state(), entry, line, lowest_bit(free));
  }
  const std::uint64_t both[2] = {entry.first, second};
  FlowChanges changes;
  const FlowSlot slot = make_room(table_->state(), both, changes);
  if (slot.line != nullptr) place(table_->state(), entry, static_cast<std::uint64_t>(slot.line - lines_.data()), slot.index);
}

}  // namespace lb::bench
