#include "tests/bench/design_rig.h"

#include <fmt/format.h>
#include <x86intrin.h>

#include <array>
#include <cstring>
#include <string_view>

#include "dp/base/endian.h"
#include "dp/lb/flow_ops.h"

namespace lb::bench {
namespace {

constexpr std::uint64_t kNeverThere = 1ULL << 39;  // flow numbers from here on are in no table

const DesignOps& ops_of(const Kernel& kernel) {
  for (const DesignOps* one : {&kDesignsV2, &kDesignsV3, &kDesignsV4}) {
    if (std::string_view(one->name) == kernel.name) return *one;
  }
  return kDesignsV2;
}

std::uint8_t* rounded_up(void* memory) {
  constexpr std::uintptr_t kHugePage = 2U << 20;
  return reinterpret_cast<std::uint8_t*>((reinterpret_cast<std::uintptr_t>(memory) + kHugePage - 1) & ~(kHugePage - 1));
}

}  // namespace

DesignRig::DesignRig(const Kernel& kernel, Design design, std::uint64_t flows)
    : ops_(ops_of(kernel)),
      design_(static_cast<std::size_t>(design)),
      kernel_(kernel),
      flows_(flows),
      keys_(make_hash_keys(kSecret)),
      memory_(design_bytes(design, design_lines(design, flows))) {
  table_ = {.memory = rounded_up(memory_.data()), .lines = design_lines(design, flows), .keys = &keys_};
  for (std::uint64_t n = 0; n < flows; ++n) ops_.enter[design_](table_, flow(n), static_cast<std::uint32_t>(n % kTargets));
}

DesignFlow DesignRig::flow(std::uint64_t n) const {
  const net::FlowKey key = flow_key(n, 1);
  DesignFlow flow{};
  std::memcpy(&flow.tuple.bytes[0], &key.source.bytes[12], 4);
  std::memcpy(&flow.tuple.bytes[4], &key.destination.bytes[12], 4);
  store_be16(&flow.tuple.bytes[8], key.source_port);
  store_be16(&flow.tuple.bytes[10], key.destination_port);
  flow.tuple.bytes[12] = key.protocol;
  flow.hash = kernel_.hash(keys_, key);
  return flow;
}

std::uint64_t DesignRig::hit(std::uint32_t packets) {
  std::array<DesignFlow, kBurst> flows;
  for (std::uint32_t i = 0; i < packets; ++i) flows[i] = flow(oldest_ + random_() % flows_);
  const std::uint64_t start = __rdtsc();
  sink_ = sink_ + ops_.look_up[design_](table_, flows.data(), packets);
  return __rdtsc() - start;
}

std::uint64_t DesignRig::miss(std::uint32_t packets) {
  std::array<DesignFlow, kBurst> flows;
  for (std::uint32_t i = 0; i < packets; ++i) flows[i] = flow(kNeverThere + random_() % kNeverThere);
  const std::uint64_t start = __rdtsc();
  sink_ = sink_ + ops_.look_up[design_](table_, flows.data(), packets);
  return __rdtsc() - start;
}

std::uint64_t DesignRig::exchange(std::uint32_t packets) {
  std::array<DesignFlow, kBurst> gone;
  std::array<DesignFlow, kBurst> come;
  for (std::uint32_t i = 0; i < packets; ++i) {
    gone[i] = flow(oldest_ + i);
    come[i] = flow(oldest_ + flows_ + i);
  }
  oldest_ += packets;
  const std::uint64_t start = __rdtsc();
  ops_.exchange[design_](table_, gone.data(), come.data(), packets);
  return __rdtsc() - start;
}

double DesignRig::bytes_per_flow() const {
  return static_cast<double>(design_bytes(static_cast<Design>(design_), table_.lines)) / static_cast<double>(flows_);
}

std::string DesignRig::distribution() const {
  std::uint64_t in_second = table_.in_second;
  std::uint64_t overflowed = table_.overflowed;
  if (static_cast<Design>(design_) == Design::lines) {
    in_second = overflowed = 0;
    const auto* lines = reinterpret_cast<const abi::FlowLine*>(table_.memory);
    for (std::uint64_t line = 0; line < table_.lines; ++line) {
      in_second += lines[line].overflow;
      overflowed += lines[line].overflow != 0;
    }
  }
  return fmt::format(
      "# design/{} of {} flows: {:.1f} bytes a flow, {:.1f} % in their second line, {:.1f} % of lines send a "
      "miss on, {} refused",
      kDesignNames[design_], flows_, bytes_per_flow(), 100.0 * static_cast<double>(in_second) / static_cast<double>(flows_),
      100.0 * static_cast<double>(overflowed) / static_cast<double>(table_.lines), table_.refused);
}

}  // namespace lb::bench
