#include "cp/stats/metrics.h"

#include <curl/curl.h>
#include <gtest/gtest.h>

namespace lb::cp {
namespace {

std::size_t append(char* data, std::size_t size, std::size_t count, void* to) {
  static_cast<std::string*>(to)->append(data, size * count);
  return size * count;
}

std::string scrape(std::uint16_t port) {
  std::string page;
  CURL* easy = curl_easy_init();
  curl_easy_setopt(easy, CURLOPT_URL, ("http://127.0.0.1:" + std::to_string(port) + "/metrics").c_str());
  curl_easy_setopt(easy, CURLOPT_PROXY, "");
  curl_easy_setopt(easy, CURLOPT_TIMEOUT, 20L);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &append);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &page);
  EXPECT_EQ(curl_easy_perform(easy), CURLE_OK);
  curl_easy_cleanup(easy);
  return page;
}

MetricsInput sample() {
  auto live = std::make_shared<LiveState>();
  live->generation = {2, 17};
  live->data_plane_connected = true;
  live->listeners.push_back({"web-80", false, {}, {.packets = 12, .bytes = 34, .new_flows = 5, .dropped_packets = 6}});
  LiveTarget up;
  up.key = {"blue", abi::IpAddress::v4(10, 0, 0, 1), 80};
  up.status.state = abi::TargetState::healthy;
  up.status.flows = 3;
  LiveTarget down = up;
  down.key.port = 81;
  down.status.state = abi::TargetState::unhealthy;
  live->groups.push_back({"blue", false, 0xabcdef, {up, down}});
  live->workers.push_back({.worker = 1, .flows = 9, .flow_capacity = 100, .busy = 0.5});
  MetricsInput input{.live = live, .last_apply_seconds = 0.25, .probes = {{"ok", 4}}};
  for (std::size_t i = 0; i < input.totals.size(); ++i) input.totals[i] = 1000 + i;
  input.peak_rates["web-80"] = 1234.5;
  return input;
}

class MetricsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto opened = MetricsServer::open("127.0.0.1:0", [] { return sample(); });
    ASSERT_TRUE(opened) << opened.error();
    server_ = std::move(*opened);
    page_ = scrape(server_->port());
  }
  void expect_line(const std::string& line) const {
    EXPECT_NE(("\n" + page_).find("\n" + line + "\n"), std::string::npos) << line << "\nis not in\n" << page_;
  }
  std::unique_ptr<MetricsServer> server_;
  std::string page_;
};

TEST_F(MetricsTest, EveryCounterOfTheListIsThere) {
  for (std::size_t i = 0; i < abi::kCounterCount; ++i) {
    const abi::CounterInfo& info = abi::kCounters[i];
    const std::string number = " " + std::to_string(1000 + i);
    expect_line(info.is_drop ? "lb_dropped_packets_total{reason=\"" + std::string(info.name) + "\"}" + number
                             : "lb_" + std::string(info.name) + "_total" + number);
  }
  expect_line("# HELP lb_rx_bytes_total bytes received, Ethernet header included");
  expect_line("# TYPE lb_rx_bytes_total counter");
}

TEST_F(MetricsTest, LiveStateIsThere) {
  expect_line("lb_data_plane_connected 1");
  expect_line("lb_generation_epoch 2");
  expect_line("lb_generation 17");
  expect_line("lb_last_apply_duration_seconds 0.25");
  expect_line("lb_health_probes_total{verdict=\"ok\"} 4");
  expect_line("lb_listener_packets_total{listener=\"web-80\"} 12");
  expect_line("lb_listener_bytes_total{listener=\"web-80\"} 34");
  expect_line("lb_listener_new_flows_total{listener=\"web-80\"} 5");
  expect_line("lb_listener_dropped_packets_total{listener=\"web-80\"} 6");
  expect_line("lb_listener_peak_packets_per_second{listener=\"web-80\"} 1234.5");
  expect_line("lb_target_group_targets{target_group=\"blue\",state=\"healthy\"} 1");
  expect_line("lb_target_group_targets{target_group=\"blue\",state=\"unhealthy\"} 1");
  expect_line("lb_target_group_targets{target_group=\"blue\",state=\"draining\"} 0");
  expect_line("lb_target_state{target_group=\"blue\",target=\"10.0.0.1:80\",state=\"healthy\"} 1");
  expect_line("lb_target_group_flows{target_group=\"blue\"} 6");
  expect_line("lb_target_group_fail_open{target_group=\"blue\"} 0");
  expect_line("lb_target_group_table_info{target_group=\"blue\",table_hash=\"0000000000abcdef\"} 1");
  expect_line("lb_worker_flows{worker=\"1\"} 9");
  expect_line("lb_worker_flow_capacity{worker=\"1\"} 100");
  expect_line("lb_worker_busy_ratio{worker=\"1\"} 0.5");
}

TEST_F(MetricsTest, AddressInUseIsAnErrorThatNamesIt) {
  const std::string address = "127.0.0.1:" + std::to_string(server_->port());
  const auto second = MetricsServer::open(address, [] { return sample(); });
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().find("cannot listen on " + address), std::string::npos) << second.error();
}

}  // namespace
}  // namespace lb::cp
