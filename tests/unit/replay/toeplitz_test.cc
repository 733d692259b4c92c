#include "replay/toeplitz.h"

#include <gtest/gtest.h>

#include <array>
#include <set>
#include <string>

#include "cp/model/model.h"

namespace lb::replay {
namespace {

struct Vector {
  const char* source;
  std::uint16_t source_port;
  const char* destination;
  std::uint16_t destination_port;
  std::uint32_t addresses_only;
  std::uint32_t with_ports;
};

// The verification suite every vendor of RSS tests its NICs by.
constexpr std::array kSuite = {
    Vector{"66.9.149.187", 2794, "161.142.100.80", 1766, 0x323e8fc2, 0x51ccc178},
    Vector{"199.92.111.2", 14230, "65.69.140.83", 4739, 0xd718262a, 0xc626b0ea},
    Vector{"24.19.198.95", 12898, "12.22.207.184", 38024, 0xd2d0a5de, 0x5c2b394a},
    Vector{"38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xafc7327f},
    Vector{"153.39.163.191", 44251, "202.188.127.2", 1303, 0x5d1809c5, 0x10e828a2},
    Vector{"3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2cc18cd5, 0x40207d3d},
    Vector{"3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0f0c461c, 0xdde51bbf},
    Vector{"3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024, 0x4b61e985, 0x02d1feef},
};

net::FlowKey key_of(const Vector& vector) {
  net::FlowKey key;
  key.source = *cp::parse_address(vector.source);
  key.destination = *cp::parse_address(vector.destination);
  key.source_port = vector.source_port;
  key.destination_port = vector.destination_port;
  key.is_v6 = key.source.is_v4() ? 0 : 1;
  return key;
}

TEST(Toeplitz, AgreesWithTheVerificationSuiteOfRss) {
  for (const Vector& vector : kSuite) {
    EXPECT_EQ(rss_hash(key_of(vector), false), vector.addresses_only) << vector.source;
    EXPECT_EQ(rss_hash(key_of(vector), true), vector.with_ports) << vector.source;
  }
}

TEST(Toeplitz, EveryWorkerGetsFlows) {
  net::FlowKey key = key_of(kSuite[0]);
  for (std::uint32_t workers = 1; workers <= kMaxWorkers; workers *= 2) {
    std::set<std::uint32_t> seen;
    for (std::uint32_t port = 1; port < 20000; ++port) {
      key.source_port = static_cast<std::uint16_t>(port);
      seen.insert(rss_worker(rss_hash(key, true), workers));
    }
    EXPECT_EQ(seen.size(), workers);
    EXPECT_LT(*seen.rbegin(), workers);
  }
}

}  // namespace
}  // namespace lb::replay
