#include "cp/stats/metrics.h"

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>

#include <array>
#include <cstdio>
#include <utility>
#include <vector>

namespace lb::cp {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

class Page {
 public:
  MetricFamily& family(std::string name, std::string help, MetricType type) {
    return families_.emplace_back(MetricFamily{std::move(name), std::move(help), type, {}});
  }
  static void value(MetricFamily& family, Labels labels, double number) {
    ClientMetric metric;
    metric.label = std::move(labels);
    (family.type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = number;
    family.metric.push_back(std::move(metric));
  }
  void counter(std::string name, std::string help, std::uint64_t number) {
    value(family(std::move(name), std::move(help), MetricType::Counter), {}, static_cast<double>(number));
  }
  void gauge(std::string name, std::string help, double number) {
    value(family(std::move(name), std::move(help), MetricType::Gauge), {}, number);
  }
  std::vector<MetricFamily> take() { return std::move(families_); }

 private:
  std::vector<MetricFamily> families_;
};

void add_counters(Page& page, const CounterTotals& totals) {
  for (std::size_t i = 0; i < abi::kFirstDropCounter; ++i) {
    const abi::CounterInfo& info = abi::kCounters[i];
    page.counter("lb_" + std::string(info.name) + "_total", std::string(info.help), totals[i]);
  }
  MetricFamily& drops = page.family("lb_dropped_packets_total",
                                    "packets that ended in lb, by reason (lbctl drops explains them)", MetricType::Counter);
  for (std::size_t i = abi::kFirstDropCounter; i < abi::kCounterCount; ++i) {
    Page::value(drops, {{"reason", std::string(abi::kCounters[i].name)}}, static_cast<double>(totals[i]));
  }
}

void add_listeners(Page& page, const LiveState& live) {
  using Field = std::uint64_t ListenerCounters::*;
  struct Row {
    const char* name;
    const char* help;
    Field field;
  };
  static constexpr std::array kRows{
      Row{"lb_listener_packets_total", "packets taken by a listener", &ListenerCounters::packets},
      Row{"lb_listener_bytes_total", "bytes taken by a listener", &ListenerCounters::bytes},
      Row{"lb_listener_new_flows_total", "flows entered for a listener", &ListenerCounters::new_flows},
      Row{"lb_listener_dropped_packets_total", "packets of a listener that were dropped",
          &ListenerCounters::dropped_packets}};
  for (const Row& row : kRows) {
    MetricFamily& family = page.family(row.name, row.help, MetricType::Counter);
    for (const LiveListener& listener : live.listeners) {
      if (listener.draining) continue;  // its name may be another's by now
      Page::value(family, {{"listener", listener.name}}, static_cast<double>(listener.counters.*row.field));
    }
  }
}

void add_groups(Page& page, const LiveState& live) {
  MetricFamily targets{"lb_target_group_targets", "targets of a target group, by state", MetricType::Gauge, {}};
  MetricFamily states{"lb_target_state", "1 for the state a target is in", MetricType::Gauge, {}};
  MetricFamily flows{"lb_target_group_flows", "tracked flows of a target group", MetricType::Gauge, {}};
  MetricFamily fail_open{"lb_target_group_fail_open",
                         "1 while a target group sends to all targets for want of healthy ones",
                         MetricType::Gauge,
                         {}};
  MetricFamily tables{
      "lb_target_group_table_info", "hash of a target group's Maglev table: equal on every node", MetricType::Gauge, {}};
  for (const LiveGroup& group : live.groups) {
    std::array<std::uint64_t, abi::kTargetStateCount> count{};
    std::uint64_t group_flows = 0;
    for (const LiveTarget& target : group.targets) {
      ++count[static_cast<std::size_t>(target.status.state)];
      group_flows += target.status.flows;
      Page::value(states,
                  {{"target_group", group.name},
                   {"target", format_address_port(target.key.address, target.key.port)},
                   {"state", std::string(to_string(target.status.state))}},
                  1);
    }
    for (std::size_t state = 0; state < count.size(); ++state) {
      const auto name = to_string(static_cast<abi::TargetState>(state));
      Page::value(targets, {{"target_group", group.name}, {"state", std::string(name)}}, static_cast<double>(count[state]));
    }
    Page::value(flows, {{"target_group", group.name}}, static_cast<double>(group_flows));
    Page::value(fail_open, {{"target_group", group.name}}, group.fail_open ? 1 : 0);
    std::array<char, 17> hash{};
    std::snprintf(hash.data(), hash.size(), "%016llx", static_cast<unsigned long long>(group.table_hash));
    Page::value(tables, {{"target_group", group.name}, {"table_hash", hash.data()}}, 1);
  }
  for (MetricFamily* family : {&targets, &states, &flows, &fail_open, &tables}) {
    page.family(family->name, family->help, family->type).metric = std::move(family->metric);
  }
}

void add_workers(Page& page, const LiveState& live) {
  MetricFamily flows{"lb_worker_flows", "entries in a worker's flow table", MetricType::Gauge, {}};
  MetricFamily capacity{"lb_worker_flow_capacity", "entries a worker's flow table can hold", MetricType::Gauge, {}};
  MetricFamily in_flight{
      "lb_worker_in_flight", "packets a worker holds: fragments before their first one", MetricType::Gauge, {}};
  MetricFamily snat_ports{
      "lb_worker_snat_ports", "SNAT ports in use, those that wait to be given again included", MetricType::Gauge, {}};
  MetricFamily snat_capacity{
      "lb_worker_snat_capacity", "SNAT ports that a worker can have in use at once", MetricType::Gauge, {}};
  MetricFamily busy{
      "lb_worker_busy_ratio", "share of time a worker spent on packets since it started", MetricType::Gauge, {}};
  for (const LiveWorker& worker : live.workers) {
    const Labels labels{{"worker", std::to_string(worker.worker)}};
    Page::value(flows, labels, static_cast<double>(worker.flows));
    Page::value(capacity, labels, static_cast<double>(worker.flow_capacity));
    Page::value(in_flight, labels, static_cast<double>(worker.in_flight));
    Page::value(snat_ports, labels, static_cast<double>(worker.snat_ports));
    Page::value(snat_capacity, labels, static_cast<double>(worker.snat_capacity));
    Page::value(busy, labels, worker.busy);
  }
  for (MetricFamily* family : {&flows, &capacity, &in_flight, &snat_ports, &snat_capacity, &busy}) {
    page.family(family->name, family->help, family->type).metric = std::move(family->metric);
  }
}

std::vector<MetricFamily> render(const MetricsInput& input) {
  if (input.live == nullptr) return {};
  Page page;
  const LiveState& live = *input.live;
  Page::value(page.family("lb_build_info", "version of lb-cp", MetricType::Gauge), {{"version", LB_VERSION}}, 1);
  page.gauge("lb_data_plane_connected", "1 while lb-dp is connected", live.data_plane_connected ? 1 : 0);
  page.gauge("lb_generation_epoch", "epoch of the generation in force", static_cast<double>(live.generation.epoch));
  page.gauge("lb_generation", "number of the generation in force, within its epoch", static_cast<double>(live.generation.n));
  page.gauge("lb_last_apply_duration_seconds", "time from the last change to every worker forwarding by it",
             input.last_apply_seconds);
  MetricFamily& probes =
      page.family("lb_health_probes_total", "health probes that came back, by verdict", MetricType::Counter);
  for (const auto& [verdict, count] : input.probes) Page::value(probes, {{"verdict", verdict}}, static_cast<double>(count));
  add_counters(page, input.totals);
  add_listeners(page, live);
  MetricFamily& peaks = page.family("lb_listener_peak_packets_per_second",
                                    "most packets a listener had in a second, within the last minute", MetricType::Gauge);
  for (const auto& [listener, rate] : input.peak_rates) Page::value(peaks, {{"listener", listener}}, rate);
  add_groups(page, live);
  add_workers(page, live);
  return page.take();
}

class Scrape final : public prometheus::Collectable {
 public:
  explicit Scrape(MetricsServer::Source source) : source_(std::move(source)) {}
  [[nodiscard]] std::vector<MetricFamily> Collect() const override { return render(source_()); }

 private:
  MetricsServer::Source source_;
};

}  // namespace

struct MetricsServer::Impl {
  std::shared_ptr<Scrape> source;  // the exposer holds it weakly: outlives it
  std::unique_ptr<prometheus::Exposer> exposer;
};

MetricsServer::MetricsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MetricsServer::~MetricsServer() {
  impl_->exposer.reset();
}

std::uint16_t MetricsServer::port() const {
  return static_cast<std::uint16_t>(impl_->exposer->GetListeningPorts().at(0));
}

tl::expected<std::unique_ptr<MetricsServer>, std::string> MetricsServer::open(const std::string& address, Source source) {
  auto impl = std::make_unique<Impl>();
  impl->source = std::make_shared<Scrape>(std::move(source));
  try {
    impl->exposer = std::make_unique<prometheus::Exposer>(address, 2);
  } catch (const std::exception& error) {
    return tl::unexpected("metrics: cannot listen on " + address + ": " + error.what());
  }
  impl->exposer->RegisterCollectable(impl->source);
  return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(impl)));
}

}  // namespace lb::cp
