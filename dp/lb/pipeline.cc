#include "dp/lb/pipeline.h"

#include "dp/lb/dispatch.h"
#include "dp/lb/fragments.h"
#include "dp/lb/rare.h"
#include "dp/lb/sweep_ops.h"
#include "dp/lb/work.h"

namespace lb {
namespace {

// lb-dp has reported a wrong LB_MARCH by now (chosen_kernel()); whoever has not looked gets the best there is.
const Kernel& kernel_or_best() {
  const auto& chosen = chosen_kernel();
  return chosen ? **chosen : **choose_kernel("");
}

}  // namespace

Pipeline::Pipeline(const PipelineOptions& options) : Pipeline(options, kernel_or_best()) {}

Pipeline::Pipeline(const PipelineOptions& options, const Kernel& kernel)
    : kernel_(&kernel), work_(std::make_unique<Work>(options)) {
  work_->hash_of = kernel.hash;
  options.stats->flow_capacity = options.flows->capacity();
}

Pipeline::~Pipeline() = default;

void Pipeline::process(const Snapshot& snapshot, Burst& burst, std::uint64_t now_ns) {
  work_->snapshot = &snapshot;
  work_->burst = &burst;
  work_->now_ns = now_ns;
  work_->tick = now_ns / kTickNs & kTickMask;
  work_->peer_looks = kPeerLooksPerBurst;
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
  work_->tick = now_ns / kTickNs & kTickMask;
  kernel_->sweep(*work_, lines);
}

}  // namespace lb
