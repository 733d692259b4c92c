#include "cp/control/tunnel_probes.h"

#include <spdlog/spdlog.h>

namespace lb::cp {
namespace {

constexpr std::chrono::seconds kAskAgain{5};

}  // namespace

void TunnelProbes::set_next_hop(const abi::IpAddress& target, const NextHop& next_hop) {
  const std::lock_guard lock(mutex_);
  next_hops_[target] = next_hop;
}

void TunnelProbes::forget_next_hop(const abi::IpAddress& target) {
  const std::lock_guard lock(mutex_);
  next_hops_.erase(target);
}

NextHop TunnelProbes::next_hop(const abi::IpAddress& target) {
  const std::lock_guard lock(mutex_);
  const auto known = next_hops_.find(target);
  return known == next_hops_.end() ? NextHop{} : known->second;
}

tl::expected<void, ProbeError> TunnelProbes::open() {
  const auto now = std::chrono::steady_clock::now();
  if (refused_ && now < refused_at_ + kAskAgain) return tl::unexpected(*refused_);
  auto opened = ProbeTunnel::open();
  if (opened) {
    tunnel_ = std::move(*opened);
    refused_.reset();
    return {};
  }
  if (!refused_) spdlog::warn("{}", opened.error().text);
  refused_ = ProbeError{true, opened.error().text};
  refused_at_ = now;
  return tl::unexpected(*refused_);
}

tl::expected<void, ProbeError> TunnelProbes::prepare(int fd, std::uint32_t number, const ProbeSpec& spec) {
  if (tunnel_ == nullptr) {
    if (auto opened = open(); !opened) return opened;
  }
  const auto ready = tunnel_->prepare(fd, number, *spec.through, spec.address, next_hop(spec.address));
  if (!ready) return tl::unexpected(ProbeError{ready.error().number != 0, ready.error().text});
  return {};
}

void TunnelProbes::forget(std::uint32_t number) {
  if (tunnel_ != nullptr) tunnel_->forget(number);
}

}  // namespace lb::cp
