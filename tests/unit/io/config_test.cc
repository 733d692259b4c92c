#include "dp/io/config.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "dp/io/eal.h"

namespace lb::io {
namespace {

constexpr const char* kMinimal =
    "workers: [{lcore: 0}, {lcore: 1}]\n"
    "ports:\n"
    "  - {name: eth0, driver: af_xdp}\n";

std::vector<std::string> errors_of(const std::string& text) {
  const auto config = parse_config(text, "dp.yaml");
  return config ? std::vector<std::string>{} : config.error();
}

TEST(DpConfigTest, DefaultsFillWhatTheFileLeavesOut) {
  const auto config = parse_config(kMinimal, "dp.yaml");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->name, "lb-dp");
  EXPECT_EQ(config->bpf_dir, "/run/lb/bpf/lb-dp");
  EXPECT_EQ(config->control_socket, "/run/lb/dp.sock");
  EXPECT_EQ(config->workers.size(), 2U);
  EXPECT_EQ(config->ports[0].interface, "eth0");
  EXPECT_EQ(config->ports[0].twin, Twin::netdev);
  EXPECT_EQ(config->memory.mode, MemoryMode::automatic);
  EXPECT_EQ(config->flow_table.flows_per_worker, 1048576U);
  EXPECT_EQ(config->capacity.targets, 131072U);
  EXPECT_EQ(config->capacity.listeners, 16384U);
  EXPECT_EQ(config->idle.after_empty_polls, 0U);
  EXPECT_EQ(config->punt.tap, "lbtap0");
  EXPECT_EQ(config->sandbox.user, "lb");
  EXPECT_TRUE(config->sandbox.seccomp);
}

TEST(DpConfigTest, EveryMistakeIsReportedWithFileLineAndField) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"colour: red\n", "dp.yaml:4: colour: unknown key"},
      {"memory: {size: 1}\n", "dp.yaml:4: memory.size: unknown key"},
      {"memory: {size_mb: 1}\n", "dp.yaml:4: memory.size_mb: must be a number from 64 to 1048576"},
      {"memory: {size_mb: -1}\n", "dp.yaml:4: memory.size_mb: must be a number from 64 to 1048576"},
      {"memory: {size_mb: 99999999999999999999}\n", "dp.yaml:4: memory.size_mb: must be a number from 64 to 1048576"},
      {"memory: {mode: big}\n", "dp.yaml:4: memory.mode: unknown value 'big'; known: auto, hugepages, no_huge"},
      {"memory: {mbuf_bytes: 4000}\n", "dp.yaml:4: memory.mbuf_bytes: must be at most 3840 with an af_xdp port"},
      {"memory: 3\n", "dp.yaml:4: memory: must be a mapping"},
      {"idle:\n  sleep_us: 0\n", "dp.yaml:5: idle.sleep_us: must be a number from 1 to 1000"},
      {"control_socket: dp.sock\n", "dp.yaml:4: control_socket: must be an absolute path"},
      {"name: a/b\n", "dp.yaml:4: name: must be 1 to 32 bytes without '/' and blanks"},
      {"sandbox: {seccomp: maybe}\n", "dp.yaml:4: sandbox.seccomp: unknown value 'maybe'; known: on, off"},
      {"punt: {tap: a-name-that-is-too-long}\n",
       "dp.yaml:4: punt.tap: must be an interface name: 1 to 15 bytes without '/', ':' and blanks"},
      {"capacity: {targets: 2000000}\n", "dp.yaml:4: capacity.targets: must be a number from 1 to 1048576"},
      {"idle: {}\nidle: {}\n", "dp.yaml:5: idle: given twice"},
  };
  for (const auto& [more, error] : cases) EXPECT_EQ(errors_of(kMinimal + more), std::vector{error}) << more;
}

TEST(DpConfigTest, MistakesInWorkersAndPortsNameTheElement) {
  const auto errors = errors_of(
      "workers: [{lcore: 1}, {lcore: 1}, {cpu: 2}]\n"
      "ports:\n"
      "  - {name: eth0, driver: xdp}\n"
      "  - {name: eth0, driver: pci}\n"
      "  - {driver: memif, interface: eth1}\n"
      "  - {name: m0, driver: af_packet, kernel_twin: tap}\n");
  const std::vector<std::string> expected{
      "dp.yaml:1: workers[1].lcore: CPU 1 already has a worker, and only those that sleep (idle.after_empty_polls) can "
      "share one",
      "dp.yaml:1: workers[2].lcore: missing",
      "dp.yaml:1: workers[2].cpu: unknown key",
      "dp.yaml:3: ports[0].driver: unknown value 'xdp'; known: af_xdp, af_packet, memif, pcap, ring, null, tap, "
      "virtio_user, pci",
      "dp.yaml:4: ports[1].name: 'eth0' is the name of another port",
      "dp.yaml:4: ports[1].address: missing: the device's PCI address",
      "dp.yaml:5: ports[2].name: missing",
      "dp.yaml:5: ports[2].interface: only for af_xdp, af_packet and tap",
      "dp.yaml:6: ports[3].kernel_twin: not for af_xdp and af_packet: the interface itself is the twin",
  };
  EXPECT_EQ(errors, expected);
}

TEST(DpConfigTest, WorkersThatSleepMayShareACpu) {
  const auto config = parse_config(
      "workers: [{lcore: 1}, {lcore: 1}]\nports: [{name: eth0, driver: af_xdp}]\nidle: {after_empty_polls: 100}\n",
      "dp.yaml");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->workers.size(), 2U);
}

TEST(DpConfigTest, WhatIsNoYamlOrNoMappingIsRefused) {
  EXPECT_EQ(errors_of("[1, 2]\n"), std::vector<std::string>{"dp.yaml:1: must be a mapping"});
  EXPECT_EQ(errors_of(""), std::vector<std::string>{"dp.yaml:1: must be a mapping"});
  ASSERT_EQ(errors_of("a: [\n").size(), 1U);
  EXPECT_EQ(errors_of("a: [\n")[0].substr(0, 10), "dp.yaml:2:");
  EXPECT_EQ(load_config("/dev/null").error(), std::vector<std::string>{"/dev/null:1: must be a mapping"});
  EXPECT_EQ(load_config("/nonexistent/dp.yaml").error(),
            std::vector<std::string>{"/nonexistent/dp.yaml: No such file or directory"});
}

TEST(DpConfigTest, TheNullDriverNeedsNoQuotes) {
  const auto config = parse_config("workers: [{lcore: 0}]\nports: [{name: n0, driver: null}]\n", "dp.yaml");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->ports[0].driver, Driver::null);
}

TEST(DpConfigTest, MissingWorkersAndPortsAreErrors) {
  const std::vector<std::string> expected{"dp.yaml:1: workers: must be a list with at least one element",
                                          "dp.yaml:1: ports: must be a list with at least one element"};
  EXPECT_EQ(errors_of("name: x\n"), expected);
}

class ShippedConfigTest : public testing::TestWithParam<const char*> {};

TEST_P(ShippedConfigTest, Loads) {
  const auto config = load_config(std::string(LB_SOURCE_ROOT "/configs/") + GetParam());
  EXPECT_TRUE(config) << (config ? "" : config.error()[0]);
}
INSTANTIATE_TEST_SUITE_P(DpConfigTest, ShippedConfigTest, testing::Values("dp.yaml", "dp-veth.yaml"));

TEST(CheckMachineTest, MissingCpusAndInterfacesAreNamed) {
  const auto config = parse_config("workers: [{lcore: 1000}]\nports:\n  - {name: no-such-if, driver: af_xdp}\n", "dp.yaml");
  ASSERT_TRUE(config);
  const auto errors = check_machine(*config);
  ASSERT_EQ(errors.size(), 2U);
  EXPECT_EQ(errors[0].substr(0, 68), "dp.yaml:1: workers[0].lcore: there is no CPU 1000 for this process; ");
  EXPECT_EQ(errors[1], "dp.yaml:3: ports[0].interface: interface no-such-if does not exist in this network namespace");
}

TEST(CheckMachineTest, MissingHugepagesAreCountedAndTheCureIsNamed) {
  const auto config = parse_config(
      "workers: [{lcore: 0}]\nports: [{name: n0, driver: \"null\"}]\nmemory: {mode: hugepages, size_mb: 1048576}\n",
      "dp.yaml");
  ASSERT_TRUE(config);
  const auto errors = check_machine(*config);
  ASSERT_EQ(errors.size(), 1U);
  EXPECT_EQ(errors[0].substr(0, 59), "dp.yaml:3: memory.mode: 1048576 MiB of hugepages are wanted");
  EXPECT_NE(errors[0].find("echo 524288 > /proc/sys/vm/nr_hugepages"), std::string::npos);
}

TEST(EalArgumentsTest, AnAfXdpPortBecomesOneDevicePerWorker) {
  const auto config = parse_config(std::string(kMinimal) + "memory: {mode: no_huge}\n", "dp.yaml");
  ASSERT_TRUE(config);
  const auto devices = vdevs_of(*config, 0);
  ASSERT_EQ(devices.size(), 2U);
  EXPECT_EQ(devices[0].name, "net_af_xdp0_0");
  EXPECT_EQ(devices[0].arguments, "iface=eth0,start_queue=0");
  EXPECT_EQ(devices[1].arguments, "iface=eth0,start_queue=1");
}

}  // namespace
}  // namespace lb::io
