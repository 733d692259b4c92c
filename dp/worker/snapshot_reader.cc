#include "dp/worker/snapshot_reader.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "dp/abi/fingerprint.h"

namespace lb::worker {
namespace {

constexpr std::string_view kGone = "lb-cp has gone";
constexpr std::size_t kMaxMessageBytes = sizeof(abi::Segments);
static_assert(sizeof(abi::Publish) <= kMaxMessageBytes);

// A segment sent again is the same segment if its header says so; ours has then been verified already.
bool same_segment(const SegmentBytes& held, const SegmentBytes& sent) {
  const abi::SegmentHeader* one = header_of(held);
  const abi::SegmentHeader* two = header_of(sent);
  return held.verified && held.bytes.size() == sent.bytes.size() && one->checksum == two->checksum &&
         one->layout_fingerprint == two->layout_fingerprint && one->segment_id == two->segment_id;
}

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  return address;
}

bool somebody_listens(const sockaddr_un& address) {
  const io::Fd probe(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 || errno == EAGAIN;
}

}  // namespace

// One message with the fds that came along.
struct SnapshotReader::Message {
  alignas(8) std::array<std::byte, kMaxMessageBytes> bytes{};
  std::size_t size = 0;
  std::vector<io::Fd> fds;

  template <typename T>
  [[nodiscard]] const T* as() const {
    return size == sizeof(T) ? reinterpret_cast<const T*>(bytes.data()) : nullptr;
  }
};

SnapshotReader::~SnapshotReader() {
  if (listener_) ::unlink(path_.c_str());
}

tl::expected<void, std::string> SnapshotReader::listen(const std::string& path) {
  const auto failed = [&](const char* what) {
    return tl::unexpected(fmt::format("{}: {}: {}", path, what, std::strerror(errno)));
  };
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  const sockaddr_un address = address_of(path);
  if (somebody_listens(address)) return tl::unexpected(path + ": another lb-dp listens here");
  ::unlink(path.c_str());
  io::Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return failed("socket");
  ::fchmod(fd.get(), 0600);  // bind creates the file with the socket's mode
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return failed("bind");
  if (::chmod(path.c_str(), 0600) != 0 || ::listen(fd.get(), 8) != 0) return failed("listen");
  path_ = path;
  listener_ = std::move(fd);
  if (::getrandom(&instance_, sizeof(instance_), 0) != sizeof(instance_)) return failed("getrandom");
  return {};
}

void SnapshotReader::restore() {
  if (store_ == nullptr) return;
  auto stored = store_->load();
  if (!stored) {
    spdlog::error("the stored snapshot cannot be used: {}", stored.error());
    return;
  }
  if (!*stored) return;
  held_ = std::move((*stored)->segments);
  const auto& root = reinterpret_cast<const abi::Root*>((*stored)->root.bytes.data())->generation;
  auto taken = take((*stored)->root, root);
  if (!taken) {
    spdlog::error("the stored snapshot cannot be used: {}: {}", abi::to_string(taken.error().refusal), taken.error().text);
    held_.clear();
    return;
  }
  spdlog::info("generation {}.{} restored from disk", generation_.epoch, generation_.n);
  moving_ = std::move(*taken);
}

std::array<pollfd, 2> SnapshotReader::poll_fds() const {
  // While a generation moves, what comes next waits in the socket: at most two generations are alive.
  return {pollfd{.fd = listener_.get(), .events = POLLIN, .revents = 0},
          pollfd{.fd = client_.get(), .events = static_cast<short>(moving_ ? 0 : POLLIN), .revents = 0}};
}

void SnapshotReader::on_ready(const std::array<pollfd, 2>& ready) {
  if (client_ && ready[1].fd == client_.get()) {
    if ((ready[1].revents & POLLIN) != 0 && !moving_) {
      receive();
    } else if ((ready[1].revents & (POLLHUP | POLLERR)) != 0) {
      disconnect(kGone);
    }
  }
  if ((ready[0].revents & POLLIN) != 0) accept_connection();
}

void SnapshotReader::on_tick() {
  if (!moving_ || !sink_.settled()) return;
  std::erase_if(held_, [&](const auto& held) { return !moving_->segments.contains(held.first); });
  if (client_) {
    abi::Active active;
    active.header.kind = abi::MessageKind::active;
    active.header.size_bytes = sizeof(active);
    active.generation = generation_;
    send(&active, sizeof(active));
  }
  spdlog::info("generation {}.{} is active", generation_.epoch, generation_.n);
  if (store_ != nullptr) store_->save(std::move(*moving_));
  moving_.reset();
}

void SnapshotReader::accept_connection() {
  io::Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return;
  if (client_) {
    // The connection before may have ended without our having read its end yet.
    pollfd probe{.fd = client_.get(), .events = 0, .revents = 0};
    if (::poll(&probe, 1, 0) == 1 && (probe.revents & (POLLHUP | POLLERR)) != 0) disconnect(kGone);
  }
  if (client_) {
    abi::MessageHeader busy{.kind = abi::MessageKind::busy, .size_bytes = sizeof(busy)};
    ::send(fd.get(), &busy, sizeof(busy), MSG_DONTWAIT | MSG_NOSIGNAL);
    spdlog::warn("control: a second connection was turned away: lb-cp is connected already");
    return;
  }
  client_ = std::move(fd);
  bad_segment_.reset();
  abi::Hello hello;
  hello.header.size_bytes = sizeof(hello);
  hello.snapshot_fingerprint = abi::snapshot_fingerprint();
  hello.region_fingerprint = abi::region_fingerprint();
  hello.generation = generation_;
  hello.instance = instance_;
  hello.pid = static_cast<std::uint32_t>(::getpid());
  sink_.describe(hello);
  if (send(&hello, sizeof(hello), sink_.region_fds())) spdlog::info("control: lb-cp has connected");
}

void SnapshotReader::receive() {
  Message message;
  iovec vector{.iov_base = message.bytes.data(), .iov_len = message.bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 256)> control{};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const ssize_t n = ::recvmsg(client_.get(), &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) return disconnect(n == 0 ? kGone : std::string_view(std::strerror(errno)));
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
      message.fds.emplace_back(fd);
    }
  }
  message.size = static_cast<std::size_t>(n);
  if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) return disconnect("message longer than any may be");
  if (message.size < sizeof(abi::MessageHeader)) return disconnect("message shorter than its header");
  const auto& start = *reinterpret_cast<const abi::MessageHeader*>(message.bytes.data());
  if (start.magic != abi::kControlMagic || start.version != abi::kControlVersion)
    return disconnect("wrong magic or version");
  if (start.size_bytes != message.size) return disconnect("message size differs from its header");
  if (start.kind == abi::kTraceMessage) return on_trace(message);
  switch (start.kind) {
    case abi::MessageKind::segments: return on_segments(message);
    case abi::MessageKind::publish: return on_publish(message);
    default: return disconnect("message of a kind that lb-cp does not send");
  }
}

void SnapshotReader::on_segments(Message& message) {
  const auto* segments = message.as<abi::Segments>();
  if (segments == nullptr) return disconnect("Segments has a wrong size");
  if (segments->count > abi::kMaxFdsPerMessage || segments->count != message.fds.size()) {
    return disconnect(fmt::format("Segments announces {} segments and carries {} fds", segments->count, message.fds.size()));
  }
  for (std::uint32_t i = 0; i < segments->count; ++i) {
    const std::uint64_t id = segments->ids[i];
    auto segment = map_sealed(message.fds[i]);
    if (!segment) {
      bad_segment_ = SnapshotError{segment.error().refusal, fmt::format("segment {}: {}", id, segment.error().text)};
      held_.erase(id);
      continue;
    }
    if (const auto held = held_.find(id); held != held_.end() && same_segment(held->second, *segment)) continue;
    if (held_.size() >= abi::kMaxSegments && !held_.contains(id))
      return disconnect("sends more segments than a snapshot can have");
    held_.insert_or_assign(id, std::move(*segment));
  }
}

void SnapshotReader::on_trace(Message& message) {
  const auto* trace = message.as<abi::Trace>();
  if (trace == nullptr || !message.fds.empty()) return disconnect("Trace has a wrong size");
  sink_.trace(trace->order);
}

void SnapshotReader::on_publish(Message& message) {
  const auto* publish = message.as<abi::Publish>();
  if (publish == nullptr || message.fds.size() != 1) return disconnect("Publish has a wrong size or not exactly one fd");
  const abi::Generation announced = publish->generation;
  std::optional<SnapshotError> error = std::exchange(bad_segment_, std::nullopt);
  if (!error) {
    auto root = map_sealed(message.fds[0]);
    auto taken =
        root ? take(*root, announced) : tl::unexpected(SnapshotError{root.error().refusal, "root: " + root.error().text});
    if (taken) {
      moving_ = std::move(*taken);
    } else {
      error = taken.error();
    }
  }
  if (!error) return send_verdict(announced, abi::Refusal::none, "");
  spdlog::error("generation {}.{} is refused: {}: {}", announced.epoch, announced.n, abi::to_string(error->refusal),
                error->text);
  send_verdict(announced, error->refusal, error->text);
}

// Verifies a root with the segments held and hands it to the data plane.
tl::expected<StoredGeneration, SnapshotError> SnapshotReader::take(const SegmentBytes& root, abi::Generation announced) {
  auto snapshot = Snapshot::open(root, [this](std::uint64_t id) {
    const auto found = held_.find(id);
    return found == held_.end() ? nullptr : &found->second;
  });
  if (!snapshot) return tl::unexpected(snapshot.error());
  const abi::Generation generation = (*snapshot)->generation();
  if (generation != announced) {
    return tl::unexpected(
        SnapshotError{abi::Refusal::bounds, fmt::format("announced as {}.{}, but the root says {}.{}", announced.epoch,
                                                        announced.n, generation.epoch, generation.n)});
  }
  if (generation <= generation_) {
    return tl::unexpected(SnapshotError{abi::Refusal::stale, fmt::format("{}.{} is not above {}.{}", generation.epoch,
                                                                         generation.n, generation_.epoch, generation_.n)});
  }
  StoredGeneration taken{.root = root, .segments = {}};
  for (const abi::SegmentEntry& entry : segment_entries(root.bytes))
    taken.segments.emplace(entry.segment_id, held_.at(entry.segment_id));
  if (auto r = sink_.accept(std::move(*snapshot)); !r) return tl::unexpected(r.error());
  generation_ = generation;
  return taken;
}

void SnapshotReader::send_verdict(abi::Generation generation, abi::Refusal refusal, std::string_view text) {
  abi::Verdict verdict;
  verdict.header.kind = abi::MessageKind::verdict;
  verdict.header.size_bytes = sizeof(verdict);
  verdict.generation = generation;
  verdict.refusal = refusal;
  text.copy(verdict.text, sizeof(verdict.text) - 1);
  send(&verdict, sizeof(verdict));
}

bool SnapshotReader::send(const void* message, std::size_t size, std::span<const int> fds) {
  iovec vector{.iov_base = const_cast<void*>(message), .iov_len = size};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 4)> control{};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
  }
  if (::sendmsg(client_.get(), &header, MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(size)) return true;
  disconnect(errno == EAGAIN ? "lb-cp does not read its messages" : std::strerror(errno));
  return false;
}

void SnapshotReader::disconnect(std::string_view why) {
  spdlog::log(why == kGone ? spdlog::level::info : spdlog::level::warn, "control: connection closed: {}", why);
  client_.reset();
  bad_segment_.reset();
  sink_.trace({});  // whoever asked has gone
}

}  // namespace lb::worker
