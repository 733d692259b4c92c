// lb-dp's side of the control socket against a lb-cp made here, which also sends what no lb-cp would.
#include "dp/worker/snapshot_reader.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "tests/unit/io/snapshot_fixture.h"

namespace lb::worker {
namespace {

using test::Bytes;
using test::make_memfd;
using test::make_root;
using test::make_segment;
using test::SnapshotSpec;

// Stands for the workers: they move when the test says so.
class FakeSink final : public GenerationSink {
 public:
  void describe(abi::Hello& hello) const override { hello.worker_count = 3; }
  [[nodiscard]] std::array<int, 3> region_fds() const override { return {0, 1, 2}; }
  void trace(const abi::TraceOrder& order) override { traced = order; }
  tl::expected<void, SnapshotError> accept(std::shared_ptr<const Snapshot> snapshot) override {
    if (refuse) return tl::unexpected(SnapshotError{abi::Refusal::unknown_port, "there is no port 'x' here"});
    in_force = std::move(snapshot);
    ++accepted;
    return {};
  }
  bool settled() override { return moved; }

  abi::TraceOrder traced;
  std::shared_ptr<const Snapshot> in_force;
  int accepted = 0;
  bool refuse = false;
  bool moved = true;
};

class SnapshotReaderTest : public testing::Test {
 protected:
  SnapshotReaderTest() {
    std::string pattern = testing::TempDir() + "/reader.XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
    socket_ = directory_ + "/dp.sock";
    start();
  }
  ~SnapshotReaderTest() override {
    reader_.reset();
    store_.reset();
    std::filesystem::remove_all(directory_);
  }

  void start() {
    auto store = SnapshotStore::open(directory_ + "/state");
    EXPECT_TRUE(store) << (store ? "" : store.error());
    store_ = std::move(*store);
    reader_ = std::make_unique<SnapshotReader>(sink_, store_.get());
    reader_->restore();
    const auto listening = reader_->listen(socket_);
    EXPECT_TRUE(listening) << (listening ? "" : listening.error());
    turn();
  }
  void restart() {
    store_->flush();
    reader_.reset();
    store_.reset();
    sink_ = FakeSink{};
    start();
  }

  // The main loop, as often as anything is ready.
  void turn() {
    for (int i = 0; i < 16; ++i) {
      auto fds = reader_->poll_fds();
      ::poll(fds.data(), fds.size(), 0);
      reader_->on_ready(fds);
      reader_->on_tick();
    }
  }

  io::Fd connect() {
    io::Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    turn();
    return fd;
  }

  template <typename T>
  static T receive(const io::Fd& fd) {
    T message;
    const ssize_t n = ::recv(fd.get(), &message, sizeof(message), MSG_DONTWAIT | MSG_TRUNC);
    EXPECT_EQ(n, static_cast<ssize_t>(sizeof(message)));
    return message;
  }
  static bool silent(const io::Fd& fd) {
    char byte = 0;
    return ::recv(fd.get(), &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
  }
  static bool closed(const io::Fd& fd) {
    char byte = 0;
    return ::recv(fd.get(), &byte, 1, MSG_DONTWAIT) <= 0 && errno != EAGAIN;
  }

  void send(const io::Fd& fd, const void* message, std::size_t size, const std::vector<int>& fds = {}) {
    iovec vector{.iov_base = const_cast<void*>(message), .iov_len = size};
    std::vector<char> control(CMSG_SPACE(sizeof(int) * 253));
    msghdr header{};
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    if (!fds.empty()) {
      header.msg_control = control.data();
      header.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
      cmsghdr* c = CMSG_FIRSTHDR(&header);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
      std::memcpy(CMSG_DATA(c), fds.data(), sizeof(int) * fds.size());
    }
    ::sendmsg(fd.get(), &header, MSG_NOSIGNAL);
    turn();
  }

  void send_segment(const io::Fd& fd, const SnapshotSpec& spec, const Bytes& bytes, int seals = test::kAllSeals) {
    abi::Segments message;
    message.header = {.kind = abi::MessageKind::segments, .size_bytes = sizeof(message)};
    message.count = 1;
    message.ids[0] = spec.segment_id;
    const io::Fd memfd = make_memfd(bytes, seals);
    send(fd, &message, sizeof(message), {memfd.get()});
  }
  void send_root(const io::Fd& fd, abi::Generation generation, const Bytes& bytes, int seals = test::kAllSeals) {
    abi::Publish message;
    message.header = {.kind = abi::MessageKind::publish, .size_bytes = sizeof(message)};
    message.generation = generation;
    const io::Fd memfd = make_memfd(bytes, seals);
    send(fd, &message, sizeof(message), {memfd.get()});
  }
  void publish(const io::Fd& fd, const SnapshotSpec& spec) {
    const Bytes segment = make_segment(spec);
    send_segment(fd, spec, segment);
    send_root(fd, spec.generation, make_root(spec, segment));
  }
  abi::Refusal verdict(const io::Fd& fd) { return receive<abi::Verdict>(fd).refusal; }

  std::string directory_;
  std::string socket_;
  FakeSink sink_;
  std::unique_ptr<SnapshotStore> store_;
  std::unique_ptr<SnapshotReader> reader_;
};

TEST_F(SnapshotReaderTest, TheSocketIsForItsOwnerAlone) {
  struct stat info {};
  ASSERT_EQ(::stat(socket_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
}

TEST_F(SnapshotReaderTest, HelloTellsWhoIsThereAndCarriesTheRegions) {
  const io::Fd cp = connect();
  const auto hello = receive<abi::Hello>(cp);
  EXPECT_EQ(hello.header.magic, abi::kControlMagic);
  EXPECT_EQ(hello.header.kind, abi::MessageKind::hello);
  EXPECT_EQ(hello.header.size_bytes, sizeof(hello));
  EXPECT_EQ(hello.snapshot_fingerprint, abi::snapshot_fingerprint());
  EXPECT_EQ(hello.worker_count, 3U);
  EXPECT_EQ(hello.generation, abi::Generation{});
  EXPECT_NE(hello.instance, 0U);
}

TEST_F(SnapshotReaderTest, ASecondConnectionIsToldBusyAndTheFirstStays) {
  const io::Fd first = connect();
  receive<abi::Hello>(first);
  const io::Fd second = connect();
  EXPECT_EQ(receive<abi::MessageHeader>(second).kind, abi::MessageKind::busy);
  EXPECT_TRUE(closed(second));
  publish(first, {});
  EXPECT_EQ(verdict(first), abi::Refusal::none);
}

TEST_F(SnapshotReaderTest, AfterLbCpHasGoneTheNextOneIsServed) {
  { const io::Fd first = connect(); }
  const io::Fd second = connect();
  EXPECT_EQ(receive<abi::Hello>(second).header.kind, abi::MessageKind::hello);
}

// lb-cp sends nothing that is not sealed, and messages arrive whole or not at all: wherever it is killed, what lb-dp has of
// a publication is its first messages. After each of them: the generation in force is a whole one, and the next lb-cp is
// served.
TEST_F(SnapshotReaderTest, LbCpKilledAfterAnyStepOfPublishingLeavesAWholeGeneration) {
  constexpr int kSteps = 6;
  for (std::uint64_t step = 0; step <= kSteps; ++step) {
    SCOPED_TRACE(step);
    const abi::Generation good{2 * step + 1, 1};
    const abi::Generation next{2 * step + 1, 2};
    {
      const io::Fd cp = connect();
      if (step > 0) receive<abi::Hello>(cp);
      publish(cp, {.generation = good, .segment_id = 100 + step});
      sink_.moved = step > 4;
      const SnapshotSpec spec{.generation = next, .segment_id = 200 + step, .target_id = 1};
      const Bytes segment = make_segment(spec);
      const Bytes root = make_root(spec, segment);
      if (step > 0) send_segment(cp, spec, segment);
      if (step > 1) send_segment(cp, {.segment_id = 300}, make_segment({.segment_id = 300}));
      if (step > 2) send_root(cp, next, root);
      if (step > 3) receive<abi::Verdict>(cp);  // of the good one
      if (step > 5) receive<abi::Active>(cp);
    }
    turn();
    sink_.moved = true;
    turn();
    EXPECT_EQ(sink_.in_force->generation(), step > 2 ? next : good);
    EXPECT_EQ(sink_.in_force->targets().size(), step > 2 ? 2U : 1U);

    const io::Fd successor = connect();
    EXPECT_EQ(receive<abi::Hello>(successor).generation, sink_.in_force->generation());
    const SnapshotSpec after{.generation = {2 * step + 2, 1}, .segment_id = 200 + step};
    publish(successor, after);  // the same number for other bytes: what was left behind is not taken for them
    EXPECT_EQ(verdict(successor), abi::Refusal::none);
    EXPECT_EQ(receive<abi::Active>(successor).generation, after.generation);
  }
  const abi::Generation last = sink_.in_force->generation();
  restart();
  EXPECT_EQ(sink_.in_force->generation(), last);
}

TEST_F(SnapshotReaderTest, AcceptedThenActiveOnceEveryWorkerHasMoved) {
  const io::Fd cp = connect();
  receive<abi::Hello>(cp);
  sink_.moved = false;
  publish(cp, {});
  EXPECT_EQ(verdict(cp), abi::Refusal::none);
  EXPECT_TRUE(silent(cp));
  EXPECT_TRUE(reader_->moving());
  sink_.moved = true;
  turn();
  EXPECT_EQ(receive<abi::Active>(cp).generation, (abi::Generation{1, 1}));
  EXPECT_FALSE(reader_->moving());
}

TEST_F(SnapshotReaderTest, WhatComesWhileAGenerationMovesWaits) {
  const io::Fd cp = connect();
  receive<abi::Hello>(cp);
  sink_.moved = false;
  publish(cp, {});
  verdict(cp);
  publish(cp, {.generation = {1, 2}});
  EXPECT_TRUE(silent(cp));
  EXPECT_EQ(sink_.accepted, 1);
  sink_.moved = true;
  turn();
  EXPECT_EQ(receive<abi::Active>(cp).generation, (abi::Generation{1, 1}));
  EXPECT_EQ(receive<abi::Verdict>(cp).generation, (abi::Generation{1, 2}));
  EXPECT_EQ(receive<abi::Active>(cp).generation, (abi::Generation{1, 2}));
}

TEST_F(SnapshotReaderTest, ASegmentIsSentOnceAndSharedByLaterGenerations) {
  const io::Fd cp = connect();
  receive<abi::Hello>(cp);
  publish(cp, {});
  verdict(cp);
  receive<abi::Active>(cp);
  const SnapshotSpec next{.generation = {1, 2}};
  send_root(cp, next.generation, make_root(next, make_segment(next)));
  EXPECT_EQ(verdict(cp), abi::Refusal::none);
}

TEST_F(SnapshotReaderTest, AnUnusedSegmentIsDroppedWhenAGenerationBecomesActive) {
  const io::Fd cp = connect();
  receive<abi::Hello>(cp);
  publish(cp, {});
  verdict(cp);
  receive<abi::Active>(cp);
  publish(cp, {.generation = {1, 2}, .segment_id = 7});
  verdict(cp);
  receive<abi::Active>(cp);
  const SnapshotSpec back{.generation = {1, 3}};
  send_root(cp, back.generation, make_root(back, make_segment(back)));
  EXPECT_EQ(verdict(cp), abi::Refusal::missing_segment);
}

TEST_F(SnapshotReaderTest, BadSnapshotsAreRefusedByNameAndTheLastGoodOneStays) {
  const io::Fd cp = connect();
  receive<abi::Hello>(cp);
  publish(cp, {.generation = {1, 5}});
  verdict(cp);
  receive<abi::Active>(cp);
  const auto good = sink_.in_force;

  const SnapshotSpec spec{.generation = {1, 6}};
  const Bytes segment = make_segment(spec);
  const Bytes root = make_root(spec, segment);
  const auto refusal_of = [&](Bytes bytes, int seals = test::kAllSeals) {
    send_root(cp, spec.generation, bytes, seals);
    return verdict(cp);
  };
  Bytes damaged = root;
  damaged.back() ^= std::byte{1};
  EXPECT_EQ(refusal_of(damaged), abi::Refusal::checksum);
  EXPECT_EQ(refusal_of(Bytes(root.begin(), root.end() - 64)), abi::Refusal::size);
  EXPECT_EQ(refusal_of(Bytes(10)), abi::Refusal::size);
  EXPECT_EQ(refusal_of(Bytes(4096)), abi::Refusal::magic);
  for (const int seal : {F_SEAL_WRITE, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL}) {
    EXPECT_EQ(refusal_of(root, test::kAllSeals & ~seal), abi::Refusal::not_sealed);
  }
  Bytes other = root;
  other[offsetof(abi::SegmentHeader, version)] ^= std::byte{99};
  EXPECT_EQ(refusal_of(other), abi::Refusal::version);
  other = root;
  other[offsetof(abi::SegmentHeader, layout_fingerprint)] ^= std::byte{1};
  EXPECT_EQ(refusal_of(other), abi::Refusal::fingerprint);
  const SnapshotSpec old{.generation = {1, 5}};
  send_root(cp, old.generation, make_root(old, segment));
  EXPECT_EQ(verdict(cp), abi::Refusal::stale);
  send_root(cp, {1, 7}, root);
  EXPECT_EQ(verdict(cp), abi::Refusal::bounds);
  sink_.refuse = true;
  EXPECT_EQ(refusal_of(root), abi::Refusal::unknown_port);
  sink_.refuse = false;

  EXPECT_EQ(sink_.in_force, good);
  EXPECT_EQ(reader_->generation(), (abi::Generation{1, 5}));
  EXPECT_EQ(refusal_of(root), abi::Refusal::none);
}

TEST_F(SnapshotReaderTest, ASegmentThatIsNotSealedRefusesTheGeneration) {
  const io::Fd cp = connect();
  receive<abi::Hello>(cp);
  const SnapshotSpec spec;
  const Bytes segment = make_segment(spec);
  send_segment(cp, spec, segment, F_SEAL_SHRINK | F_SEAL_GROW);
  send_root(cp, spec.generation, make_root(spec, segment));
  EXPECT_EQ(verdict(cp), abi::Refusal::not_sealed);
  EXPECT_EQ(sink_.accepted, 0);
}

TEST_F(SnapshotReaderTest, AnFdThatIsNoMemfdIsRefused) {
  const io::Fd cp = connect();
  receive<abi::Hello>(cp);
  abi::Publish message;
  message.header = {.kind = abi::MessageKind::publish, .size_bytes = sizeof(message)};
  const io::Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  send(cp, &message, sizeof(message), {null.get()});
  EXPECT_EQ(verdict(cp), abi::Refusal::not_sealed);
}

TEST_F(SnapshotReaderTest, MalformedMessagesEndTheConnectionAndNothingElse) {
  const auto refused = [&](const void* message, std::size_t size, const std::vector<int>& fds) {
    const io::Fd cp = connect();
    receive<abi::Hello>(cp);
    send(cp, message, size, fds);
    return closed(cp);
  };
  const io::Fd memfd = make_memfd(Bytes(64));
  abi::Publish publish;
  publish.header = {.kind = abi::MessageKind::publish, .size_bytes = sizeof(publish)};
  EXPECT_TRUE(refused(&publish, sizeof(publish), {}));                          // no fd
  EXPECT_TRUE(refused(&publish, sizeof(publish), {memfd.get(), memfd.get()}));  // two fds
  EXPECT_TRUE(refused(&publish, sizeof(publish) - 4, {memfd.get()}));           // cut off
  EXPECT_TRUE(refused(&publish, 3, {}));                                        // no header
  auto wrong = publish;
  wrong.header.magic ^= 1;
  EXPECT_TRUE(refused(&wrong, sizeof(wrong), {memfd.get()}));
  wrong = publish;
  wrong.header.version = 2;
  EXPECT_TRUE(refused(&wrong, sizeof(wrong), {memfd.get()}));
  wrong = publish;
  wrong.header.kind = abi::MessageKind::hello;
  EXPECT_TRUE(refused(&wrong, sizeof(wrong), {memfd.get()}));
  wrong = publish;
  wrong.header.kind = static_cast<abi::MessageKind>(77);
  EXPECT_TRUE(refused(&wrong, sizeof(wrong), {memfd.get()}));
  abi::Segments segments;
  segments.header = {.kind = abi::MessageKind::segments, .size_bytes = sizeof(segments)};
  segments.count = 2;
  EXPECT_TRUE(refused(&segments, sizeof(segments), {memfd.get()}));  // announces two, carries one
  segments.count = 0xffffffff;
  EXPECT_TRUE(refused(&segments, sizeof(segments), {memfd.get()}));
  segments.count = 220;
  EXPECT_TRUE(refused(&segments, sizeof(segments), std::vector<int>(220, memfd.get())));
  const std::vector<char> long_message(sizeof(segments) + 1);
  EXPECT_TRUE(refused(long_message.data(), long_message.size(), {}));

  const io::Fd cp = connect();
  receive<abi::Hello>(cp);
  this->publish(cp, {});
  EXPECT_EQ(verdict(cp), abi::Refusal::none);
}

TEST_F(SnapshotReaderTest, RandomMessagesNeverBringASnapshotIntoForce) {
  std::mt19937 random(1);
  const io::Fd memfd = make_memfd(Bytes(4096));
  for (int i = 0; i < 500; ++i) {
    const io::Fd cp = connect();
    receive<abi::Hello>(cp);
    std::vector<std::uint32_t> words(1 + random() % 500);
    for (std::uint32_t& word : words) word = static_cast<std::uint32_t>(random()) >> (random() % 32);
    const std::size_t size = words.size() * 4;
    if (words.size() > 4 && random() % 8 != 0) {
      words[0] = abi::kControlMagic;
      words[1] = abi::kControlVersion;
      words[2] = 2 + random() % 2;
      words[3] = static_cast<std::uint32_t>(size);
    }
    send(cp, words.data(), size, std::vector<int>(random() % 5, memfd.get()));
  }
  EXPECT_EQ(sink_.accepted, 0);
}

TEST_F(SnapshotReaderTest, AfterARestartTheStoredGenerationIsInForceWithoutLbCp) {
  {
    const io::Fd cp = connect();
    receive<abi::Hello>(cp);
    publish(cp, {.generation = {3, 4}});
    verdict(cp);
    receive<abi::Active>(cp);
  }
  restart();
  ASSERT_EQ(sink_.accepted, 1);
  EXPECT_EQ(sink_.in_force->generation(), (abi::Generation{3, 4}));
  const io::Fd cp = connect();
  EXPECT_EQ(receive<abi::Hello>(cp).generation, (abi::Generation{3, 4}));
  // Its segments are held: a root alone is enough.
  const SnapshotSpec next{.generation = {3, 5}};
  send_root(cp, next.generation, make_root(next, make_segment(next)));
  EXPECT_EQ(verdict(cp), abi::Refusal::none);
}

TEST_F(SnapshotReaderTest, AnotherEpochMayReuseASegmentIdForOtherBytes) {
  const io::Fd cp = connect();
  receive<abi::Hello>(cp);
  publish(cp, {});
  verdict(cp);
  receive<abi::Active>(cp);
  publish(cp, {.generation = {2, 1}, .slot_count = 11});
  EXPECT_EQ(verdict(cp), abi::Refusal::none);
  EXPECT_EQ(sink_.in_force->groups()[0].slot_count, 11U);
}

class TornStoreTest : public SnapshotReaderTest {
 protected:
  TornStoreTest() {
    const io::Fd cp = connect();
    receive<abi::Hello>(cp);
    publish(cp, {});
    verdict(cp);
    receive<abi::Active>(cp);
    store_->flush();
  }
  [[nodiscard]] std::string file(const std::string& prefix) const {
    for (const auto& entry : std::filesystem::directory_iterator(directory_ + "/state")) {
      if (entry.path().filename().string().starts_with(prefix)) return entry.path();
    }
    ADD_FAILURE() << "no file " << prefix;
    return {};
  }
};

TEST_F(TornStoreTest, FilesAreForTheirOwnerAlone) {
  struct stat info {};
  ASSERT_EQ(::stat(file("root").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  ASSERT_EQ(::stat((directory_ + "/state").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0700U);
}

TEST_F(TornStoreTest, ATruncatedRootIsNotUsed) {
  std::filesystem::resize_file(file("root"), 100);
  restart();
  EXPECT_EQ(sink_.accepted, 0);
}

TEST_F(TornStoreTest, AnEmptyRootIsNotUsed) {
  std::filesystem::resize_file(file("root"), 0);
  restart();
  EXPECT_EQ(sink_.accepted, 0);
}

TEST_F(TornStoreTest, AMissingSegmentIsNotUsed) {
  std::filesystem::remove(file("segment-"));
  restart();
  EXPECT_EQ(sink_.accepted, 0);
}

TEST_F(TornStoreTest, AFlippedBitInASegmentIsNotUsed) {
  std::fstream segment(file("segment-"), std::ios::in | std::ios::out | std::ios::binary);
  segment.seekp(70);
  segment.put('\x01');
  segment.close();
  restart();
  EXPECT_EQ(sink_.accepted, 0);
}

TEST_F(TornStoreTest, AHalfWrittenNewRootDoesNotDisturbTheOldOne) {
  std::ofstream(directory_ + "/state/root.new") << "torn";
  restart();
  EXPECT_EQ(sink_.accepted, 1);
}

TEST_F(TornStoreTest, SegmentsNoLongerNamedAreRemovedFromDisk) {
  const std::string before = file("segment-");
  const io::Fd cp = connect();
  receive<abi::Hello>(cp);
  publish(cp, {.generation = {1, 2}, .segment_id = 9});
  store_->flush();
  EXPECT_FALSE(std::filesystem::exists(before));
  EXPECT_TRUE(std::filesystem::exists(file("segment-0000000000000009")));
}

}  // namespace
}  // namespace lb::worker
