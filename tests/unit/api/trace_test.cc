// The call that shows packets: who may ask, what for, and what comes.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "cp/api/server.h"
#include "proto/api.grpc.pb.h"
#include "tests/unit/api/fake_operations.h"
#include "tests/unit/net/frames.h"

namespace lb::cp::api_test {
namespace {

using grpc::StatusCode;

class ApiTraceTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto started = server_.start();
    ASSERT_TRUE(started) << started.error();
  }

  grpc::Status trace(const api::TraceRequest& request, bool view = false) {
    grpc::ChannelArguments arguments;
    arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "lb-cp");
    const auto stub = api::LoadBalancer::NewStub(
        grpc::CreateCustomChannel("unix:" + (view ? view_ : path_), grpc::InsecureChannelCredentials(), arguments));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    const auto reader = stub->Trace(&context, request);
    api::TraceBatch batch;
    while (reader->Read(&batch)) batches_.push_back(batch);
    return reader->Finish();
  }

  TemporaryDirectory directory_;
  std::string path_ = directory_.path() + "/cp.sock";
  std::string view_ = directory_.path() + "/view.sock";
  FakeOperations operations_;
  ApiServer server_{operations_, {.socket_path = path_, .group = "", .view_socket_path = view_, .view_group = ""}};
  std::vector<api::TraceBatch> batches_;
};

TEST_F(ApiTraceTest, PacketsAreShownOnTheAdminSocketAlone) {
  const grpc::Status refused = trace({}, true);
  EXPECT_EQ(refused.error_code(), StatusCode::PERMISSION_DENIED);
  EXPECT_NE(refused.error_message().find("admin socket only"), std::string::npos);
  EXPECT_EQ(operations_.trace_order.packets_per_second, 0U) << "not asked for";
}

TEST_F(ApiTraceTest, WhatIsAskedForReachesTheWorkersAndTheirRecordsTheClient) {
  explain::TracedPacket packet{.worker = 1, .number = 40};
  packet.record.in_length = 1000;
  packet.record.in_bytes = 300;
  packet.record.verdict = 3;
  packet.record.reason = static_cast<std::uint16_t>(abi::DropReason::no_target);
  packet.record.listener = packet.record.target = packet.record.slot = abi::kNoIndex;
  operations_.traced.packets = {packet};
  operations_.traced.limited = 12;
  api::TraceRequest request;
  request.set_protocol("TCP");
  request.set_client("198.51.100.0/24");
  request.set_vip("2001:db8::10");
  request.set_port(443);
  request.set_verdict("drop");
  request.set_reason("no_target");
  request.set_snap_bytes(200);
  EXPECT_EQ(trace(request).error_message(), "lb-dp has gone");
  const abi::TraceOrder& order = operations_.trace_order;
  EXPECT_EQ(order.protocol, 6);
  EXPECT_EQ(order.client_length, 120U);
  EXPECT_EQ(order.vip_length, 128U);
  EXPECT_EQ(order.port, 443);
  EXPECT_EQ(order.verdict, 3);
  EXPECT_EQ(static_cast<abi::DropReason>(order.reason), abi::DropReason::no_target);
  EXPECT_EQ(order.packets_per_second, 100U);
  ASSERT_EQ(batches_.size(), 1U);
  EXPECT_EQ(batches_[0].limited(), 12U);
  ASSERT_EQ(batches_[0].records_size(), 1);
  EXPECT_EQ(batches_[0].records(0).in_frame().size(), 200U);
  EXPECT_EQ(batches_[0].records(0).path(), "dropped as no_target");
}

explain::TracedPacket packet_of(std::uint8_t client, std::uint16_t port, std::uint32_t bytes) {
  net::test::FrameSpec spec;
  spec.source = abi::IpAddress::v4(198, 51, 100, client);
  spec.source_port = port;
  spec.destination = abi::IpAddress::v4(192, 0, 2, 10);
  spec.destination_port = 80;
  const net::test::Bytes frame = make_frame(spec);
  explain::TracedPacket packet;
  std::ranges::copy(frame, packet.record.bytes.begin());
  packet.record.in_bytes = static_cast<std::uint16_t>(frame.size());
  packet.record.in_length = bytes;
  packet.record.group = packet.record.target = packet.record.slot = abi::kNoIndex;
  return packet;
}

TEST_F(ApiTraceTest, TalkersAreFlowsOrClientsThatSendMostAndNumbersAreScaledUp) {
  operations_.traced.packets = {packet_of(7, 1000, 100), packet_of(7, 1001, 100), packet_of(8, 1000, 1500),
                                packet_of(7, 1000, 60)};
  operations_.traced.packets.push_back(packet_of(9, 1, 9000));
  operations_.traced.packets.back().record.listener = abi::kNoIndex;  // no listener took it
  operations_.traced.limited = 15;
  operations_.trace_goes_on = true;
  api::TalkersRequest request;
  request.set_sample_ms(100);
  request.set_max_rows(2);
  const auto ask = [&] {
    grpc::ChannelArguments arguments;
    arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "lb-cp");
    const auto stub = api::LoadBalancer::NewStub(
        grpc::CreateCustomChannel("unix:" + path_, grpc::InsecureChannelCredentials(), arguments));
    grpc::ClientContext context;
    api::TalkerList reply;
    EXPECT_TRUE(stub->ListTalkers(&context, request, &reply).ok());
    return reply;
  };
  const api::TalkerList flows = ask();
  EXPECT_EQ(flows.packets(), 20U);
  EXPECT_EQ(flows.packets_read(), 5U);
  EXPECT_EQ(flows.rows(), 3U);
  ASSERT_EQ(flows.talkers_size(), 2);
  EXPECT_EQ(flows.talkers(0).client(), "198.51.100.8:1000");
  EXPECT_EQ(flows.talkers(0).bytes(), 4 * 1500U);
  EXPECT_EQ(flows.talkers(1).client(), "198.51.100.7:1000");
  EXPECT_EQ(flows.talkers(1).packets(), 4 * 2U);
  EXPECT_EQ(flows.talkers(1).state(), "") << "no worker has an entry";
  request.set_by_client(true);
  const api::TalkerList clients = ask();
  ASSERT_EQ(clients.talkers_size(), 2);
  EXPECT_EQ(clients.talkers(1).client(), "198.51.100.7");
  EXPECT_EQ(clients.talkers(1).flows(), 2U);
  EXPECT_EQ(clients.talkers(1).bytes(), 4 * 260U);
  request.set_state("assumed");
  EXPECT_EQ(ask().talkers_size(), 0);
}

TEST_F(ApiTraceTest, BadRequestsNameTheField) {
  const auto expect = [&](const auto& change, const std::string& field) {
    api::TraceRequest request;
    change(request);
    const grpc::Status status = trace(request);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << field;
    EXPECT_EQ(status.error_message().substr(0, field.size() + 2), field + ": ") << status.error_message();
  };
  using Request = api::TraceRequest;
  expect([](Request& r) { r.set_protocol("sctp"); }, "protocol");
  expect([](Request& r) { r.set_client("10.0.0.0/33"); }, "client");
  expect([](Request& r) { r.set_vip("web"); }, "vip");
  expect([](Request& r) { r.set_port(65536); }, "port");
  expect([](Request& r) { r.set_verdict("held"); }, "verdict");
  expect([](Request& r) { r.set_reason("none"); }, "reason");
  expect([](Request& r) { r.set_packets_per_second(10'001); }, "packets_per_second");
  expect([](Request& r) { r.set_snap_bytes(1985); }, "snap_bytes");
  operations_.trace_error = "another trace is going on";
  EXPECT_EQ(trace({}).error_code(), StatusCode::FAILED_PRECONDITION);
}

}  // namespace
}  // namespace lb::cp::api_test
