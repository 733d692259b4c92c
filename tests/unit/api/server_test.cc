#include "cp/api/server.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "cp/api/rows.h"
#include "proto/api.grpc.pb.h"
#include "tests/unit/api/fake_operations.h"

namespace lb::cp::api_test {
namespace {

using grpc::StatusCode;

class ApiServerTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto started = server_.start();
    ASSERT_TRUE(started) << started.error();
    grpc::ChannelArguments arguments;
    arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "lb-cp");
    stub_ = api::LoadBalancer::NewStub(
        grpc::CreateCustomChannel("unix:" + path_, grpc::InsecureChannelCredentials(), arguments));
  }

  template <typename Reply, typename Request>
  grpc::Status call(grpc::Status (api::LoadBalancer::Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
                    const Request& request, Reply& reply, const std::string& client_api = "1") {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    context.AddMetadata("lb-version", "9.8.7");
    if (!client_api.empty()) context.AddMetadata("lb-api", client_api);
    return (stub_.get()->*method)(&context, request, &reply);
  }

  static api::ListRequest named(const std::string& name) {
    api::ListRequest request;
    request.set_name(name);
    return request;
  }

  api::DescribeReply describe(const std::string& kind, const std::string& name) {
    api::DescribeRequest request;
    request.set_kind(kind);
    request.set_name(name);
    api::DescribeReply reply;
    status_ = call(&Stub::Describe, request, reply);
    return reply;
  }

  using Stub = api::LoadBalancer::Stub;
  TemporaryDirectory directory_;
  std::string path_ = directory_.path() + "/cp.sock";
  FakeOperations operations_;
  ApiServer server_{operations_, {.socket_path = path_, .group = "root"}};
  std::unique_ptr<Stub> stub_;
  grpc::Status status_;
};

TEST_F(ApiServerTest, SocketIsForOwnerAndGroupOnlyAndGoesWithTheServer) {
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_TRUE(S_ISSOCK(status.st_mode));
  EXPECT_EQ(status.st_mode & 0777U, 0660U);
  server_.stop();
  EXPECT_NE(::lstat(path_.c_str(), &status), 0);
  server_.stop();
}

TEST_F(ApiServerTest, SocketThatSomebodyServesIsNotTaken) {
  FakeOperations other;
  ApiServer second(other, {.socket_path = path_, .group = ""});
  const auto started = second.start();
  ASSERT_FALSE(started);
  EXPECT_NE(started.error().find("another lb-cp is listening"), std::string::npos) << started.error();
  second.stop();
  api::VersionReply reply;
  EXPECT_TRUE(call(&Stub::GetVersion, api::VersionRequest(), reply).ok());
}

TEST(ApiServerStart, StaleSocketIsReplaced) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/cp.sock";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  ::close(fd);  // nobody listens, the file stays
  FakeOperations operations;
  ApiServer server(operations, {.socket_path = path, .group = ""});
  const auto started = server.start();
  EXPECT_TRUE(started) << started.error();
}

TEST(ApiServerStart, WhatIsNoSocketIsLeftAlone) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/file";
  std::ofstream(path) << "precious";
  FakeOperations operations;
  EXPECT_FALSE(ApiServer(operations, {.socket_path = path, .group = ""}).start());
  std::string content;
  std::ifstream(path) >> content;
  EXPECT_EQ(content, "precious");
}

TEST(ApiServerStart, ErrorsNameThePathOrTheGroup) {
  const TemporaryDirectory directory;
  FakeOperations operations;
  const auto error = [&](const std::string& path, const std::string& group) {
    const auto started = ApiServer(operations, {.socket_path = path, .group = group}).start();
    return started ? std::string() : started.error();
  };
  EXPECT_NE(error(directory.path() + "/none/cp.sock", "").find("directory " + directory.path() + "/none"),
            std::string::npos);
  EXPECT_NE(error("relative.sock", "").find("not an absolute path"), std::string::npos);
  EXPECT_NE(error("/tmp/" + std::string(200, 'x'), "").find("107"), std::string::npos);
  EXPECT_NE(error(directory.path() + "/cp.sock", "no-such-group-here").find("no such group"), std::string::npos);
}

TEST(ApiServerStart, ViewSocketShowsEverythingAndChangesNothing) {
  const TemporaryDirectory directory;
  FakeOperations operations;
  const std::string view = directory.path() + "/view.sock";
  ApiServer server(
      operations,
      {.socket_path = directory.path() + "/cp.sock", .group = "", .view_socket_path = view, .view_group = "root"});
  const auto started = server.start();
  ASSERT_TRUE(started) << started.error();
  struct stat status {};
  ASSERT_EQ(::stat(view.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0660U);
  grpc::ChannelArguments arguments;
  arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "lb-cp");
  const auto stub =
      api::LoadBalancer::NewStub(grpc::CreateCustomChannel("unix:" + view, grpc::InsecureChannelCredentials(), arguments));
  using Stub = api::LoadBalancer::Stub;
  const auto code = [&](auto method, const auto& request, auto reply) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    return (stub.get()->*method)(&context, request, &reply).error_code();
  };
  EXPECT_EQ(code(&Stub::ListVips, api::ListRequest(), api::VipList()), StatusCode::OK);
  EXPECT_EQ(code(&Stub::Diff, api::DiffRequest(), api::DiffReply()), StatusCode::OK);
  EXPECT_EQ(code(&Stub::History, api::HistoryRequest(), api::HistoryReply()), StatusCode::OK);
  EXPECT_EQ(code(&Stub::Apply, api::ApplyRequest(), api::ApplyReply()), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(code(&Stub::Edit, api::EditRequest(), api::ApplyReply()), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(code(&Stub::Rollback, api::RollbackRequest(), api::ApplyReply()), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(code(&Stub::Drain, api::DrainRequest(), api::DrainReply()), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(code(&Stub::Undrain, api::DrainRequest(), api::DrainReply()), StatusCode::PERMISSION_DENIED);
  server.stop();
  EXPECT_NE(::lstat(view.c_str(), &status), 0);
}

TEST_F(ApiServerTest, VersionTellsGenerationAndDataPlane) {
  api::VersionReply reply;
  ASSERT_TRUE(call(&Stub::GetVersion, api::VersionRequest(), reply).ok());
  EXPECT_EQ(reply.version(), LB_VERSION);
  EXPECT_EQ(reply.api(), static_cast<std::uint32_t>(api::API_CURRENT));
  EXPECT_EQ(reply.epoch(), 3U);
  EXPECT_EQ(reply.generation(), 7U);
  EXPECT_TRUE(reply.data_plane_connected());
}

TEST_F(ApiServerTest, ClientOfAnotherApiIsToldWhichSideIsOlder) {
  api::VipList reply;
  const auto older = call(&Stub::ListVips, named(""), reply, "0");
  EXPECT_EQ(older.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_NE(older.error_message().find("upgrade the client"), std::string::npos) << older.error_message();
  EXPECT_NE(older.error_message().find("9.8.7"), std::string::npos);
  const auto newer = call(&Stub::ListVips, named(""), reply, "2");
  EXPECT_EQ(newer.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_NE(newer.error_message().find("upgrade lb-cp"), std::string::npos) << newer.error_message();
  EXPECT_EQ(call(&Stub::ListVips, named(""), reply, "one").error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(call(&Stub::ListVips, named(""), reply, "").ok());
}

TEST_F(ApiServerTest, VipSumsItsListeners) {
  api::VipList reply;
  ASSERT_TRUE(call(&Stub::ListVips, named(""), reply).ok());
  ASSERT_EQ(reply.vips_size(), 2);
  EXPECT_EQ(reply.vips(0).address(), "192.0.2.10");
  EXPECT_EQ(reply.vips(0).packets(), 123'456'789'012ULL);
  EXPECT_EQ(reply.vips(1).address(), "2001:db8::10");
  EXPECT_EQ(reply.vips(1).listeners(), 1U);
}

TEST_F(ApiServerTest, ListenerRowsShowPortsAndWeights) {
  api::ListenerList reply;
  ASSERT_TRUE(call(&Stub::ListListeners, named(""), reply).ok());
  ASSERT_EQ(reply.listeners_size(), 2);
  EXPECT_EQ(reply.listeners(0).port(), "80");
  EXPECT_EQ(reply.listeners(0).target_groups(), "blue:1,green:3");
  EXPECT_EQ(reply.listeners(1).port(), "any");
  EXPECT_EQ(reply.listeners(1).protocol(), "TCP_UDP");
  EXPECT_TRUE(reply.listeners(1).draining());
}

TEST_F(ApiServerTest, TargetGroupCountsStates) {
  api::TargetGroupList reply;
  ASSERT_TRUE(call(&Stub::ListTargetGroups, named("blue"), reply).ok());
  ASSERT_EQ(reply.target_groups_size(), 1);
  const api::TargetGroupRow& blue = reply.target_groups(0);
  EXPECT_EQ(blue.targets(), 3U);
  EXPECT_EQ(blue.healthy(), 1U);
  EXPECT_EQ(blue.unhealthy(), 1U);
  EXPECT_EQ(blue.draining(), 1U);
  EXPECT_EQ(blue.flows(), 41U);
  EXPECT_EQ(blue.table_hash(), "0000000000abcdef");
}

TEST_F(ApiServerTest, TargetRowsShowStateReasonAndNextHop) {
  api::TargetList reply;
  ASSERT_TRUE(call(&Stub::ListTargets, named("blue"), reply).ok());
  ASSERT_EQ(reply.targets_size(), 3);
  EXPECT_EQ(reply.targets(0).next_hop(), "02:00:00:00:00:70 via lb1");
  EXPECT_EQ(reply.targets(0).drain_remaining_ms(), -1);
  EXPECT_EQ(reply.targets(0).reason(), "");
  EXPECT_EQ(reply.targets(1).next_hop(), "unresolved");
  EXPECT_EQ(reply.targets(1).reason(), "Timeout");
  EXPECT_EQ(reply.targets(1).detail(), "connect: timed \x1b[2Jout \xef\xbf\xbd after 2 s");
  EXPECT_EQ(reply.targets(2).state(), "draining");
  EXPECT_EQ(reply.targets(2).drain_remaining_ms(), 0);
}

TEST_F(ApiServerTest, WorkersAddUpTheirDrops) {
  api::WorkerList reply;
  ASSERT_TRUE(call(&Stub::ListWorkers, named("0"), reply).ok());
  ASSERT_EQ(reply.workers_size(), 1);
  EXPECT_EQ(reply.workers(0).dropped_packets(), 15U);
  EXPECT_EQ(reply.workers(0).rx_packets(), 18'446'744'073'709'551'615ULL);
}

TEST_F(ApiServerTest, DropsListEveryReasonWithItsMeaning) {
  api::DropList reply;
  ASSERT_TRUE(call(&Stub::ListDrops, named(""), reply).ok());
  EXPECT_EQ(static_cast<std::size_t>(reply.drops_size()), abi::kDropReasonCount - 1);
  for (const api::DropRow& row : reply.drops()) {
    EXPECT_FALSE(row.help().empty());
    EXPECT_EQ(row.packets(), row.reason() == "no_listener" ? 12U : row.reason() == "truncated" ? 3U : 0U) << row.reason();
  }
}

TEST_F(ApiServerTest, UnknownNamesListWhatExists) {
  const auto expect = [](const grpc::Status& status, const std::string& text) {
    EXPECT_EQ(status.error_code(), StatusCode::NOT_FOUND);
    EXPECT_NE(status.error_message().find(text), std::string::npos) << status.error_message();
  };
  api::VipList vips;
  expect(call(&Stub::ListVips, named("wep"), vips), "no VIP `wep`; there are: web, web6");
  api::ListenerList listeners;
  expect(call(&Stub::ListListeners, named("x"), listeners), "there are: web-80, web6-any");
  api::TargetGroupList groups;
  expect(call(&Stub::ListTargetGroups, named("x"), groups), "there are: blue, green");
  api::TargetList targets;
  expect(call(&Stub::ListTargets, named("x"), targets), "there are: blue, green");
  api::WorkerList workers;
  expect(call(&Stub::ListWorkers, named("7"), workers), "no worker `7`; there are: 0");
  describe("target", "10.0.0.1:80");
  expect(status_, "no target `10.0.0.1:80`; there are: 10.77.2.2:80, 10.77.2.3:80, 10.77.2.4:80, [2001:db8:77::2]:80");
  operations_.state.groups.clear();
  expect(call(&Stub::ListTargetGroups, named("x"), groups), "there are none");
  for (int i = 0; i < 12; ++i) operations_.state.groups.push_back({.name = "g" + std::to_string(i)});
  expect(call(&Stub::ListTargetGroups, named("x"), groups), "g9 and 2 more");
}

TEST_F(ApiServerTest, DescribeShowsTheObjectItsPartsEventsAndConfiguration) {
  auto reply = describe("vip", "web");
  ASSERT_TRUE(status_.ok()) << status_.error_message();
  EXPECT_EQ(reply.vip().name(), "web");
  EXPECT_EQ(reply.listeners_size(), 1);
  EXPECT_EQ(reply.config(), "vip web\n");

  reply = describe("listener", "web-80");
  EXPECT_EQ(reply.listener().name(), "web-80");
  EXPECT_EQ(reply.target_groups_size(), 2);
  EXPECT_EQ(reply.events_size(), 1);
  EXPECT_EQ(reply.config(), "listener web-80\n");

  reply = describe("target-group", "blue");
  EXPECT_EQ(reply.target_group().name(), "blue");
  EXPECT_EQ(reply.listeners_size(), 1);
  EXPECT_EQ(reply.targets_size(), 3);
  ASSERT_EQ(reply.events_size(), 1);
  EXPECT_EQ(reply.events(0).new_state(), "unhealthy");
  EXPECT_EQ(reply.config(), "target-group blue with 3\n");

  reply = describe("target", "10.77.2.3:80");
  ASSERT_EQ(reply.targets_size(), 1);
  EXPECT_EQ(reply.targets(0).reason(), "Timeout");
  EXPECT_EQ(reply.events_size(), 1);
  EXPECT_EQ(reply.config(), "target-group blue with 1\n");

  describe("target", "[2001:db8:77::2]:80");
  EXPECT_TRUE(status_.ok());
}

TEST_F(ApiServerTest, BadRequestsNameTheField) {
  const auto expect = [](const grpc::Status& status, const std::string& field) {
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(status.error_message().substr(0, field.size() + 2), field + ": ") << status.error_message();
  };
  describe("pool", "blue");
  expect(status_, "kind");
  describe("target", "10.0.0.1");
  expect(status_, "name");
  describe("target", "2001:db8::1:80");
  expect(status_, "name");
  describe("vip", "");
  expect(status_, "name");

  api::DrainRequest drain;
  api::DrainReply drained;
  drain.set_target("10.77.2.2:99999");
  expect(call(&Stub::Drain, drain, drained), "target");

  api::WhyReply answer;
  const auto why = [&](const auto& change) {
    api::WhyRequest request;
    request.set_protocol("tcp");
    request.set_source("10.0.0.1");
    request.set_source_port(1);
    request.set_destination("192.0.2.10");
    request.set_destination_port(80);
    change(request);
    return call(&Stub::Why, request, answer);
  };
  EXPECT_TRUE(why([](api::WhyRequest&) {}).ok());
  expect(why([](api::WhyRequest& r) { r.set_protocol("sctp"); }), "protocol");
  expect(why([](api::WhyRequest& r) { r.set_source("10.0.0"); }), "source");
  expect(why([](api::WhyRequest& r) { r.set_source_port(65536); }), "source_port");
  expect(why([](api::WhyRequest& r) { r.set_destination(""); }), "destination");
  expect(why([](api::WhyRequest& r) { r.set_destination("2001:db8::1"); }), "destination");
  expect(why([](api::WhyRequest& r) { r.set_destination_port(65536); }), "destination_port");

  api::ApplyRequest apply;
  api::ApplyReply applied;
  apply.mutable_terms()->set_timeout_ms(3'600'001);
  expect(call(&Stub::Apply, apply, applied), "terms.timeout_ms");
}

TEST_F(ApiServerTest, ApplyPassesTheFileOnAndReturnsTheOutcome) {
  operations_.outcome = {.violations = {},
                         .warnings = {{"lb.yaml", 4, "seed", "is \xff odd"}},
                         .changes = {{"change", "target blue 10.77.2.2:80", "weight", "1", "5"}},
                         .generation = {3, 8},
                         .active = true,
                         .note = "fine"};
  api::ApplyRequest request;
  request.set_file("lb.yaml");
  request.set_text("version: 1 \xff");
  request.mutable_terms()->set_timeout_ms(1234);
  api::ApplyReply reply;
  ASSERT_TRUE(call(&Stub::Apply, request, reply).ok());
  EXPECT_EQ(operations_.applied_text, "version: 1 \xff");
  EXPECT_EQ(operations_.applied_file, "lb.yaml");
  EXPECT_EQ(operations_.applied_options.timeout, std::chrono::milliseconds(1234));
  EXPECT_EQ(reply.warnings(0).text(), "is \xef\xbf\xbd odd");
  EXPECT_EQ(reply.changes(0).new_value(), "5");
  EXPECT_EQ(reply.generation(), 8U);
  EXPECT_TRUE(reply.active());
  EXPECT_EQ(reply.note(), "fine");
}

TEST_F(ApiServerTest, ApplyAnswersBeforeTheClientsDeadline) {
  api::ApplyRequest request;
  request.mutable_terms()->set_timeout_ms(3'000'000);
  api::ApplyReply reply;
  ASSERT_TRUE(call(&Stub::Apply, request, reply).ok());
  EXPECT_LT(operations_.applied_options.timeout, std::chrono::seconds(60));
}

TEST_F(ApiServerTest, FiveMegabytesOfConfigurationAreTakenAndMoreThan64AreNot) {
  api::DiffRequest request;
  api::DiffReply reply;
  request.set_text(std::string(5'000'000, '#'));
  EXPECT_TRUE(call(&Stub::Diff, request, reply).ok());
  EXPECT_EQ(operations_.applied_text.size(), 5'000'000U);
  request.set_text(std::string(65U << 20U, '#'));
  EXPECT_EQ(call(&Stub::Diff, request, reply).error_code(), StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(ApiServerTest, DrainShowsTheTargetsAsTheyAreNow) {
  api::DrainRequest request;
  request.set_target("10.77.2.2:80");
  api::DrainReply reply;
  ASSERT_TRUE(call(&Stub::Drain, request, reply).ok());
  ASSERT_EQ(reply.targets_size(), 1);
  EXPECT_EQ(reply.targets(0).state(), "draining");
  request.set_target_group("blue");
  ASSERT_TRUE(call(&Stub::Undrain, request, reply).ok());
  EXPECT_EQ(reply.targets(0).state(), "initial");
  request.set_target_group("green");
  EXPECT_EQ(call(&Stub::Drain, request, reply).error_code(), StatusCode::NOT_FOUND);
  request.set_target_group("gren");
  const auto unknown = call(&Stub::Drain, request, reply);
  EXPECT_NE(unknown.error_message().find("no target group `gren`; there are: blue, green"), std::string::npos);
}

TEST_F(ApiServerTest, DrainPassesItsTermsOn) {
  api::DrainRequest request;
  request.set_target("10.77.2.2:80");
  request.set_deadline_s(600);
  request.set_then("reset");
  api::DrainReply reply;
  ASSERT_TRUE(call(&Stub::Drain, request, reply).ok());
  EXPECT_EQ(operations_.drain_terms.deadline, std::chrono::seconds(600));
  EXPECT_EQ(operations_.drain_terms.then, abi::TrackedFlows::reset);
  request.set_deadline_s(86'401);
  EXPECT_EQ(call(&Stub::Drain, request, reply).error_message().substr(0, 12), "deadline_s: ");
  request.set_deadline_s(1);
  request.set_then("explode");
  EXPECT_EQ(call(&Stub::Drain, request, reply).error_message(), "then: `explode` is none of leave, reset, rehash");
}

TEST_F(ApiServerTest, FreezeIsShownWhereverHealthIs) {
  api::FreezeRequest request;
  request.set_frozen(true);
  request.set_note("switch replaced");
  api::FreezeReply reply;
  ASSERT_TRUE(call(&Stub::Freeze, request, reply).ok());
  EXPECT_FALSE(reply.was_frozen());
  EXPECT_EQ(reply.freeze().note(), "switch replaced");
  api::TargetList targets;
  ASSERT_TRUE(call(&Stub::ListTargets, named(""), targets).ok());
  EXPECT_EQ(targets.freeze().note(), "switch replaced");
  api::TargetGroupList groups;
  ASSERT_TRUE(call(&Stub::ListTargetGroups, named(""), groups).ok());
  EXPECT_TRUE(groups.has_freeze());
  request.set_frozen(false);
  ASSERT_TRUE(call(&Stub::Freeze, request, reply).ok());
  EXPECT_TRUE(reply.was_frozen());
  EXPECT_FALSE(reply.has_freeze());
  request.set_note(std::string(201, 'n'));
  EXPECT_EQ(call(&Stub::Freeze, request, reply).error_message().substr(0, 6), "note: ");
}

TEST_F(ApiServerTest, FieldThatThisServerDoesNotKnowIsRefusedAndNamesWhoIsOlder) {
  api::DrainRequest request;
  request.set_target("10.77.2.2:80");
  request.GetReflection()->MutableUnknownFields(&request)->AddVarint(900, 1);
  api::DrainReply reply;
  const auto refused = call(&Stub::Drain, request, reply);
  EXPECT_EQ(refused.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_NE(refused.error_message().find("DrainRequest has field number 900"), std::string::npos) << refused.error_message();
  EXPECT_NE(refused.error_message().find("it is older than this client"), std::string::npos) << refused.error_message();
  EXPECT_EQ(operations_.state.groups[0].targets[0].status.state, abi::TargetState::healthy) << "nothing was done";
  api::ApplyRequest nested;
  nested.mutable_terms()->GetReflection()->MutableUnknownFields(nested.mutable_terms())->AddVarint(900, 1);
  api::ApplyReply applied;
  EXPECT_EQ(call(&Stub::Apply, nested, applied).error_code(), StatusCode::FAILED_PRECONDITION);
}

TEST_F(ApiServerTest, FailureInsideBecomesAnErrorAndTheServerLives) {
  operations_.broken = true;
  api::VipList reply;
  const auto status = call(&Stub::ListVips, named(""), reply);
  EXPECT_EQ(status.error_code(), StatusCode::INTERNAL);
  EXPECT_NE(status.error_message().find("state is broken"), std::string::npos);
  operations_.broken = false;
  EXPECT_TRUE(call(&Stub::ListVips, named(""), reply).ok());
}

TEST(ApiText, BytesThatAreNotUtf8AreReplacedOneByOne) {
  EXPECT_EQ(to_utf8("päß 漢 😀"), "päß 漢 😀");
  EXPECT_EQ(to_utf8("\xc0\x80"), "\xef\xbf\xbd\xef\xbf\xbd");                  // overlong NUL
  EXPECT_EQ(to_utf8("\xed\xa0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");  // surrogate
  EXPECT_EQ(to_utf8("\xf4\x90\x80\x80").size(), 12U);                          // above U+10FFFF
  EXPECT_EQ(to_utf8("a\xe2\x82"), "a\xef\xbf\xbd\xef\xbf\xbd");                // cut short
}

}  // namespace
}  // namespace lb::cp::api_test
