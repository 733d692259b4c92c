#include "dp/lb/pipeline.h"

#include <algorithm>

#include "dp/lb/dispatch.h"
#include "dp/lb/fragments.h"
#include "dp/lb/fullnat.h"
#include "dp/lb/guard_rates.h"
#include "dp/lb/nat.h"
#include "dp/lb/rare.h"
#include "dp/lb/rate_flows.h"
#include "dp/lb/rate_memory.h"
#include "dp/lb/sweep_ops.h"
#include "dp/lb/translations.h"
#include "dp/lb/work.h"

namespace lb {
namespace {

// When rules have changed, every tracked flow is asked again by its next packet: those whose last packet is older.
void note_security(Work& work, std::uint64_t tick) {
  const std::uint64_t epoch = work.snapshot->root().security_epoch;
  constexpr std::uint64_t kNever = std::uint64_t{1} << 16;  // no entry is idle for that long
  if (epoch != work.security_epoch) {
    work.security_epoch = epoch;
    work.security_since_tick = tick;
    work.security_changed = true;
  }
  const std::uint64_t since = work.security_changed ? tick - work.security_since_tick : kNever;
  if (since >= kNever) work.security_changed = false;
  work.unasked_ticks = static_cast<std::uint32_t>(since < kNever ? since : kNever);
  work.plain_ticks = work.unasked_ticks < kMinIdleLimitTicks ? work.unasked_ticks : kMinIdleLimitTicks;
}

// lb-dp has reported a wrong LB_MARCH by now (chosen_kernel()); whoever has not looked gets the best there is.
const Kernel& kernel_or_best() {
  const auto& chosen = chosen_kernel();
  return chosen ? **chosen : **choose_kernel("");
}

// As large a part of the translations as `lines` is of the flow table.
std::uint32_t slots_to_look_at(Work& work, std::uint32_t lines) {
  if (work.options.snat == nullptr || lines == 0) return 0;
  const std::uint64_t all = work.options.snat->of(work.options.worker).capacity();
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(all * lines / work.options.flows->state().line_count + 1, all));
}

}  // namespace

Pipeline::Pipeline(const PipelineOptions& options) : Pipeline(options, kernel_or_best()) {}

Pipeline::Pipeline(const PipelineOptions& options, const Kernel& kernel)
    : kernel_(&kernel),
      rate_memory_(std::make_unique<RateMemory>(options.rates.empty() ? abi::kMaxListeners : 0)),
      rates_(std::make_unique<RateBook>(options.rates.empty() ? rate_memory_->tables() : options.rates,
                                        options.rates.empty() ? 0 : options.worker)),
      rate_flows_(std::make_unique<RateFlows>(rate_memory_->flows())),
      work_(std::make_unique<Work>(options)) {
  work_->rates = rates_.get();
  work_->rate_flows = rate_flows_.get();
  work_->hash_of = kernel.hash;
  options.stats->flow_capacity = options.flows->capacity();
  work_->hash_one = kernel.hash;
}

Pipeline::~Pipeline() = default;

void Pipeline::set_peers(std::span<FlowTable* const> peers) {
  work_->options.peers = peers;
  work_->options.flows->expect_news(static_cast<std::uint32_t>(peers.size()));
}

void Pipeline::process(const Snapshot& snapshot, Burst& burst, std::uint64_t now_ns) {
  work_->snapshot = &snapshot;
  work_->burst = &burst;
  work_->now_ns = now_ns;
  const std::uint64_t tick = now_ns / kTickNs;
  work_->tick = tick & kTickMask;
  work_->peer_looks = kPeerLooksPerBurst;
  note_security(*work_, tick);
  kernel_->process(*work_);
}

void Pipeline::tend(const Snapshot& snapshot, std::uint64_t now_ns) {
  if (work_->held->count == 0) return;
  work_->snapshot = &snapshot;
  work_->now_ns = now_ns;
  tend_held(*work_);
  flush_counts(*work_);
}

void Pipeline::age(const Snapshot& snapshot, std::uint32_t lines, std::uint64_t now_ns) {
  work_->snapshot = &snapshot;
  work_->now_ns = now_ns;
  work_->tick = now_ns / kTickNs & kTickMask;
  take_news(*work_);
  tend_translations(*work_, slots_to_look_at(*work_, lines));
  tend_rates(*work_, lines);
  kernel_->sweep(*work_, lines);
}

}  // namespace lb
