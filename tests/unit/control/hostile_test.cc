// Files and calls that nobody would write: whatever comes, it is taken as a whole or not at all, and what is refused says
// which field. 2,000 of them; LB_HOSTILE asks for another number (100,000 in a release).
#include <fcntl.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <regex>
#include <string>
#include <vector>

#include "cp/api/server.h"
#include "cp/config/load.h"
#include "cp/control/controller.h"
#include "proto/api.grpc.pb.h"

namespace lb::cp {
namespace {

using namespace std::chrono_literals;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr const char* kConfig = R"(version: 1
seed: 1
tunnel_source: {ipv4: 10.0.0.1}
packet_hygiene: {l4_checksums: true}
vips:
  - {name: web, address: 192.0.2.10}
  - {name: six, address: "2001:db8::/64", icmp_echo: false}
security_groups:
  - {name: office, default: deny, rules: [{action: allow, source: 203.0.113.0/24, protocol: TCP, port: 80-90}]}
listeners:
  - {name: web-80, vip: web, protocol: TCP, port: 80, security_group: office, target_groups: [{name: blue, weight: 3}, {name: green}]}
  - {name: six-any, vip: six, protocol: TCP_UDP, port: any, target_groups: [{name: green}]}
target_groups:
  - name: blue
    protocol: TCP
    port: 80
    forwarding_mode: ipip
    table_size: 251
    attributes: {deregistration_delay.timeout_seconds: 30, stickiness.enabled: true, stickiness.type: source_ip}
    health_check: {protocol: HTTP, path: /up, interval: 5, timeout: 2, matcher: "200-204"}
    targets: [{address: 10.9.9.1, port: 80, weight: 2}, {address: 10.9.9.2}]
  - {name: green, protocol: TCP_UDP, port: 80, forwarding_mode: gue, table_size: 251, health_check: {protocol: NONE}, targets: [{address: 10.9.9.3}]}
)";

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : random_(seed) {}
  std::size_t below(std::size_t limit) { return random_() % limit; }
  bool one_in(std::size_t n) { return below(n) == 0; }
  std::string word() {
    static const std::vector<std::string> kWords = {"",
                                                    "web",
                                                    "blue",
                                                    "green",
                                                    "web-80",
                                                    "office",
                                                    "10.9.9.1:80",
                                                    "10.9.9.2:80",
                                                    "[2001:db8::1]:80",
                                                    "192.0.2.10",
                                                    "TCP",
                                                    "UDP",
                                                    "tcp",
                                                    "80",
                                                    "0",
                                                    "-1",
                                                    "65536",
                                                    "99999999999999999999",
                                                    "any",
                                                    "80-90",
                                                    "90-80",
                                                    "true",
                                                    "null",
                                                    "~",
                                                    "{}",
                                                    "[]",
                                                    "reset",
                                                    "leave",
                                                    "vips",
                                                    "targets",
                                                    "target",
                                                    "listener",
                                                    "blue:1,green:3",
                                                    "blue:-1",
                                                    "*a",
                                                    "&a b",
                                                    "!!binary x",
                                                    std::string(1, '\0') + "z",
                                                    "\xff\xfe",
                                                    "é",
                                                    "name",
                                                    "::",
                                                    "0x10",
                                                    "1e9",
                                                    "1.9",
                                                    "12",
                                                    "2001:db8::/129",
                                                    "10.0.0.0/33",
                                                    "no_listener",
                                                    "%s%n",
                                                    "../../etc/passwd",
                                                    "'",
                                                    "\"",
                                                    "#",
                                                    "- ",
                                                    ": "};
    return one_in(20) ? std::string(below(5000), 'x') : kWords[below(kWords.size())];
  }
  std::uint64_t number() {
    static constexpr std::uint64_t kNumbers[] = {0,     1,      2,      79,         80,         65535,
                                                 65536, 86'400, 86'401, 0x7fffffff, 0xffffffff, ~0ULL};
    return kNumbers[below(std::size(kNumbers))];
  }

 private:
  std::mt19937_64 random_;
};

std::string mutated(std::string text, Dice& dice) {
  for (std::size_t n = 1 + dice.below(3); n > 0; --n) {
    if (text.empty()) return text;
    const std::size_t at = dice.below(text.size());
    switch (dice.below(7)) {
      case 0: text[at] = static_cast<char>(dice.below(256)); break;
      case 1: text.resize(at); break;
      case 2: text.erase(at, 1 + dice.below(30)); break;
      case 3: text.insert(at, dice.word()); break;
      case 4: text.insert(at, text.substr(dice.below(text.size()), dice.below(200))); break;
      default: {  // another word or number in the place of one
        const std::size_t from = text.find_first_of(" [{,:", at);
        if (from == std::string::npos) break;
        const std::size_t to = std::min(text.find_first_of(",}]\n", from + 1), text.size());
        text.replace(from + 1, to - from - 1, " " + (dice.one_in(2) ? dice.word() : std::to_string(dice.number())));
      }
    }
  }
  return text;
}

void fill(Message& message, Dice& dice, int depth = 0) {
  const auto& reflection = *message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    if (field.is_repeated() || dice.one_in(3)) continue;
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_UINT32:
        reflection.SetUInt32(&message, &field, static_cast<std::uint32_t>(dice.number()));
        break;
      case FieldDescriptor::CPPTYPE_UINT64: reflection.SetUInt64(&message, &field, dice.number()); break;
      case FieldDescriptor::CPPTYPE_BOOL: reflection.SetBool(&message, &field, dice.one_in(2)); break;
      case FieldDescriptor::CPPTYPE_STRING: {
        std::string word = dice.word();
        if (field.type() == FieldDescriptor::TYPE_STRING && word.find('\xff') != std::string::npos) word = "?";
        reflection.SetString(&message, &field, std::move(word));
        break;
      }
      case FieldDescriptor::CPPTYPE_MESSAGE:
        if (depth < 3) fill(*reflection.MutableMessage(&message, &field), dice, depth + 1);
        break;
      default: break;
    }
  }
}

class HostileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "lb-hostile-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    home_ = ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    ASSERT_EQ(unshare(CLONE_NEWNET), 0) << "needs root";  // lb-cp would keep the host's neighbours
    auto opened = Controller::open({"", directory_ / "state", directory_ / "dp.sock"});
    ASSERT_TRUE(opened) << opened.error();
    controller_ = std::move(*opened);
    controller_->start();
    server_ = std::make_unique<ApiServer>(*controller_, ApiOptions{.socket_path = directory_ / "cp.sock", .group = ""});
    ASSERT_TRUE(server_->start());
    grpc::ChannelArguments arguments;
    arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "lb-cp");
    stub_ = api::LoadBalancer::NewStub(grpc::CreateCustomChannel("unix:" + (directory_ / "cp.sock").string(),
                                                                 grpc::InsecureChannelCredentials(), arguments));
    ASSERT_TRUE(controller_->apply(kConfig, "good.yaml", {.timeout = 0ms, .force = true}).violations.empty());
    in_force_ = kConfig;
  }
  void TearDown() override {
    if (server_) server_->stop();
    server_.reset();
    controller_.reset();
    EXPECT_EQ(setns(home_, CLONE_NEWNET), 0);
    close(home_);
    std::filesystem::remove_all(directory_);
  }

  static std::size_t rounds() {
    const char* asked = std::getenv("LB_HOSTILE");
    return asked != nullptr ? std::strtoull(asked, nullptr, 10) : 2'000;
  }

  // What is in force is what was, or the whole of the new.
  void expect_in_force(const std::string& text) {
    in_force_ = text;
    const auto shown = controller_->config_text(0);
    ASSERT_TRUE(shown);
    ASSERT_EQ(shown->text, in_force_);
    ASSERT_TRUE(controller_->diff(in_force_, "x").changes.empty());
  }

  template <typename Request, typename Reply>
  void call(grpc::Status (api::LoadBalancer::Stub::*method)(grpc::ClientContext*, const Request&, Reply*), Dice& dice) {
    Request request;
    fill(request, dice);
    if constexpr (requires { request.mutable_terms(); }) request.mutable_terms()->set_timeout_ms(1);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 60s);
    Reply reply;
    const grpc::Status status = (stub_.get()->*method)(&context, request, &reply);
    ++outcomes_[status.error_code()];
    const std::string told =
        request.GetDescriptor()->name() + " {" + request.ShortDebugString().substr(0, 300) + "}: " + status.error_message();
    switch (status.error_code()) {
      case grpc::StatusCode::OK:
      case grpc::StatusCode::NOT_FOUND:
      case grpc::StatusCode::FAILED_PRECONDITION: break;
      case grpc::StatusCode::INVALID_ARGUMENT: {
        static const std::regex kField("([a-z][a-z0-9_.\\[\\]]*: |exactly one of add_target, set_target,).*");
        ASSERT_TRUE(std::regex_match(status.error_message().substr(0, status.error_message().find('\n')), kField)) << told;
        break;
      }
      default: FAIL() << told;
    }
    ASSERT_TRUE(status.ok() || !status.error_message().empty()) << told;
  }

  using Stub = api::LoadBalancer::Stub;
  int home_ = -1;
  std::filesystem::path directory_;
  std::unique_ptr<Controller> controller_;
  std::unique_ptr<ApiServer> server_;
  std::unique_ptr<Stub> stub_;
  std::string in_force_;
  std::map<grpc::StatusCode, std::size_t> outcomes_;
};

TEST_F(HostileTest, MutatedConfigurationsAreTakenWholeOrRefusedByField) {
  Dice dice(7);
  std::size_t taken = 0;
  std::size_t refused = 0;
  for (std::size_t n = 0; n < rounds(); ++n) {
    const std::string text = mutated(dice.one_in(4) ? in_force_ : kConfig, dice);
    const ApplyOutcome outcome = controller_->apply(text, "m.yaml", {.timeout = 0ms, .force = dice.one_in(2)});
    if (outcome.violations.empty() && outcome.refused.empty()) {
      ++taken;
      expect_in_force(text);
    } else {
      ++refused;
      for (const Violation& violation : outcome.violations) {
        EXPECT_EQ(violation.file, "m.yaml");
        EXPECT_TRUE(violation.line != 0 || !violation.field.empty()) << violation.text << "\n" << text;
        EXPECT_FALSE(violation.text.empty()) << text;
      }
      expect_in_force(in_force_);
    }
    if (HasFailure()) FAIL() << n << ":\n" << text;
  }
  EXPECT_GT(taken, rounds() / 200);
  EXPECT_GT(refused, rounds() / 10);
}

TEST_F(HostileTest, CallsWithAnythingInThemAreAnsweredAndNameTheField) {
  Dice dice(8);
  for (std::size_t n = 0; n < rounds(); ++n) {
    const auto before = controller_->config_text(0)->text;
    const std::size_t kind = dice.below(18);
    switch (kind) {
      case 0: call(&Stub::GetVersion, dice); break;
      case 1: call(&Stub::Diff, dice); break;
      case 2: call(&Stub::History, dice); break;
      case 3: call(&Stub::Export, dice); break;
      case 4: call(&Stub::Plan, dice); break;
      case 5: call(&Stub::ListVips, dice); break;
      case 6: call(&Stub::ListListeners, dice); break;
      case 7: call(&Stub::ListTargetGroups, dice); break;
      case 8: call(&Stub::ListTargets, dice); break;
      case 9: call(&Stub::ListWorkers, dice); break;
      case 10: call(&Stub::Describe, dice); break;
      case 11: call(&Stub::Why, dice); break;
      case 12: call(&Stub::ListFlows, dice); break;
      case 13: call(&Stub::Drain, dice); break;
      case 14: call(&Stub::Undrain, dice); break;
      case 15: call(&Stub::Freeze, dice); break;
      case 16: call(&Stub::Edit, dice); break;
      case 17: call(&Stub::Rollback, dice); break;
    }
    if (HasFailure()) FAIL() << n;
    if (kind < 16) {
      ASSERT_EQ(controller_->config_text(0)->text, before) << "only Edit and Rollback change it here";
    }
    ASSERT_TRUE(load(controller_->config_text(0)->text, "x").config);
  }
  EXPECT_GT(outcomes_[grpc::StatusCode::OK], rounds() / 20);
  EXPECT_GT(outcomes_[grpc::StatusCode::INVALID_ARGUMENT], rounds() / 20);
}

}  // namespace
}  // namespace lb::cp
