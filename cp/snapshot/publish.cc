#include "cp/snapshot/publish.h"

#include <algorithm>
#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <cerrno>
#include <cstring>
#include <deque>
#include <optional>
#include <set>
#include <utility>

#include "cp/snapshot/control_socket.h"
#include "dp/abi/fingerprint.h"

namespace lb::cp {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kDescriptorRetry{5};  // after ETOOMANYREFS: the peer has not taken the descriptors in flight yet

struct Outgoing {
  std::vector<std::byte> bytes;
  std::vector<std::shared_ptr<const SegmentMemory>> memories;  // whose fds travel; kept until sent
};

template <typename Message>
std::vector<std::byte> bytes_of(const Message& message) {
  const auto* first = reinterpret_cast<const std::byte*>(&message);
  return {first, first + sizeof message};
}

std::set<std::uint64_t> ids_of(const CompiledSnapshot& snapshot) {
  std::set<std::uint64_t> ids;
  for (const auto& memory : snapshot.segments) ids.insert(memory->id());
  return ids;
}

// lb-dp's introduction, checked.
tl::expected<DataPlane, std::string> introduce(const abi::Hello& hello, const std::vector<OwnedFd>& fds) {
  if (hello.snapshot_fingerprint != abi::snapshot_fingerprint()) {
    return tl::unexpected(std::string("fingerprint: lb-dp is of a build with another snapshot layout"));
  }
  if (hello.region_fingerprint != abi::region_fingerprint()) {
    return tl::unexpected(std::string("fingerprint: lb-dp is of a build with another layout of its regions"));
  }
  if (fds.size() != 3 || hello.port_count > hello.ports.size()) return tl::unexpected(std::string("Hello is malformed"));
  DataPlane peer;
  peer.instance = hello.instance;
  peer.pid = hello.pid;
  peer.generation = hello.generation;
  peer.worker_count = hello.worker_count;
  peer.target_capacity = hello.target_capacity;
  peer.listener_capacity = hello.listener_capacity;
  peer.ports.assign(hello.ports.begin(), hello.ports.begin() + hello.port_count);
  for (abi::PortInfo& port : peer.ports) port.name[sizeof port.name - 1] = '\0';
  auto stats = StatsRegion::map(fds[0].get());
  if (!stats) return tl::unexpected(stats.error());
  auto flows = FlowRegion::map(fds[1].get());
  if (!flows) return tl::unexpected(flows.error());
  auto trace = TraceRegion::map(fds[2].get());
  if (!trace) return tl::unexpected(trace.error());
  peer.trace = std::move(*trace);
  peer.stats = std::move(*stats);
  peer.flows = std::move(*flows);
  return peer;
}

}  // namespace

class Publisher::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& io, PublisherOptions options, PublisherCallbacks callbacks)
      : io_(io),
        options_(std::move(options)),
        callbacks_(std::move(callbacks)),
        socket_(io),
        retry_(io),
        deadline_(io),
        resend_(io),
        wait_(options_.first_retry) {}

  void start() {
    asio::post(io_, [self = shared_from_this()] { self->connect(); });
  }

  void close() {
    closed_ = true;
    callbacks_ = {};
    drop_connection();
    retry_.cancel();
  }

  void publish(CompiledSnapshot snapshot) {
    newest_ = std::move(snapshot);
    asio::post(io_, [self = shared_from_this()] { self->pump(); });
  }

  void trace(const abi::TraceOrder& order) {
    if (!connected_) return;
    abi::Trace message;
    message.header.size_bytes = sizeof message;
    message.order = order;
    outgoing_.push_back({bytes_of(message), {}});
    flush();
  }

  [[nodiscard]] bool connected() const { return connected_; }

 private:
  struct InFlight {
    CompiledSnapshot snapshot;
    bool sent_all = false;  // no segment was held back as known
    bool accepted = false;
    steady_clock::time_point since;
  };

  // --- connection ---

  void connect() {
    if (closed_) return;
    auto fd = connect_control(options_.socket_path);
    if (!fd) return disconnected(options_.socket_path + ": " + std::strerror(fd.error()));
    ++connection_;
    asio::error_code error;
    socket_.assign(fd->release(), error);
    if (error) return disconnected(error.message());
    wait_readable();
  }

  void drop_connection() {
    ++connection_;  // handlers of the old one find that they are late
    asio::error_code ignored;
    socket_.close(ignored);
    deadline_.cancel();
    resend_.cancel();
    outgoing_.clear();
    in_flight_.reset();
    held_.clear();
    connected_ = false;
    writable_wait_ = false;
  }

  void disconnected(const std::string& reason) {
    const bool tell = connected_ || reason != last_reason_;
    last_reason_ = reason;
    drop_connection();
    retry_.expires_after(wait_);
    wait_ = std::min(2 * wait_, options_.longest_retry);
    retry_.async_wait([self = shared_from_this()](const asio::error_code& error) {
      if (!error) self->connect();
    });
    if (tell && callbacks_.on_disconnected) callbacks_.on_disconnected(reason);
  }

  // A handler of this connection: dropped when the connection has ended meanwhile.
  template <typename Handler>
  auto on_this_connection(Handler handler) {
    return [self = shared_from_this(), connection = connection_,
            handler = std::move(handler)](const asio::error_code& error) mutable {
      if (!error && !self->closed_ && connection == self->connection_) handler(*self);
    };
  }

  // --- receiving ---

  void wait_readable() {
    socket_.async_wait(asio::posix::stream_descriptor::wait_read, on_this_connection([](Impl& self) { self.receive(); }));
  }

  // One message a turn, so that a talkative peer does not keep the thread.
  void receive() {
    auto message = receive_message(socket_.native_handle());
    if (!message && message.error() != EAGAIN) return disconnected(std::string("lb-dp: ") + std::strerror(message.error()));
    if (message) {
      if (message->bytes.empty())
        return disconnected(busy_ ? "lb-dp is busy with another lb-cp" : "lb-dp closed the connection");
      const std::uint64_t connection = connection_;
      handle(*message);
      if (closed_ || connection != connection_) return;
    }
    wait_readable();
  }

  void handle(const ReceivedMessage& message) {
    abi::Hello hello;
    abi::Verdict verdict;
    abi::Active active;
    busy_ = false;
    if (message.as(hello, abi::MessageKind::hello) && !connected_) return on_hello(hello, message.fds);
    if (message.as(verdict, abi::MessageKind::verdict) && connected_) return on_verdict(verdict);
    if (message.as(active, abi::MessageKind::active) && connected_) return on_active(active);
    const abi::MessageHeader header = message.header();
    if (header.magic == abi::kControlMagic && header.kind == abi::MessageKind::busy) {
      busy_ = true;  // the end of the connection follows
      return;
    }
    if (header.magic == abi::kControlMagic && header.version != abi::kControlVersion) {
      return disconnected("lb-dp speaks version " + std::to_string(header.version) + " of the control protocol, lb-cp " +
                          std::to_string(abi::kControlVersion));
    }
    disconnected("lb-dp sent what does not belong here");
  }

  void on_hello(const abi::Hello& hello, const std::vector<OwnedFd>& fds) {
    auto peer = introduce(hello, fds);
    if (!peer) return disconnected(peer.error());
    connected_ = true;
    last_reason_.clear();
    wait_ = options_.first_retry;
    floor_ = hello.generation;
    const std::uint64_t connection = connection_;
    if (callbacks_.on_hello) callbacks_.on_hello(*peer);
    if (closed_ || connection != connection_) return;
    if (newest_ && newest_->generation == hello.generation) {
      held_ = ids_of(*newest_);
      if (callbacks_.on_active) callbacks_.on_active(hello.generation);
    }
    pump();
  }

  void on_verdict(const abi::Verdict& verdict) {
    if (!in_flight_ || in_flight_->accepted || verdict.generation != in_flight_->snapshot.generation) {
      return disconnected("lb-dp judged a generation that is not in flight");
    }
    const bool accepted = verdict.refusal == abi::Refusal::none;
    if (verdict.refusal == abi::Refusal::missing_segment && !in_flight_->sent_all) {
      // It holds less than we thought: send this one again, whole.
      CompiledSnapshot again = std::move(in_flight_->snapshot);
      held_.clear();
      return send(std::move(again));
    }
    floor_ = verdict.generation;
    if (accepted) {
      in_flight_->accepted = true;
      held_ = ids_of(in_flight_->snapshot);
    } else {
      in_flight_.reset();
      deadline_.cancel();
    }
    const std::string text(verdict.text, strnlen(verdict.text, sizeof verdict.text));
    if (callbacks_.on_verdict) callbacks_.on_verdict(verdict.generation, verdict.refusal, text);
    pump();
  }

  void on_active(const abi::Active& active) {
    // An Active for another generation is of one that was moving when we connected.
    if (!in_flight_ || !in_flight_->accepted || active.generation != in_flight_->snapshot.generation) return;
    in_flight_.reset();
    deadline_.cancel();
    if (callbacks_.on_active) callbacks_.on_active(active.generation);
    pump();
  }

  // --- sending ---

  void pump() {
    if (closed_ || !connected_ || in_flight_ || !newest_ || newest_->generation <= floor_) return;
    send(*newest_);
  }

  void send(CompiledSnapshot snapshot) {
    std::vector<std::shared_ptr<const SegmentMemory>> missing;
    for (const auto& memory : snapshot.segments) {
      if (!held_.contains(memory->id())) missing.push_back(memory);
    }
    for (std::size_t at = 0; at < missing.size(); at += abi::kMaxFdsPerMessage) {
      const std::size_t count = std::min<std::size_t>(missing.size() - at, abi::kMaxFdsPerMessage);
      abi::Segments message;
      message.header.size_bytes = sizeof message;
      message.count = static_cast<std::uint32_t>(count);
      for (std::size_t i = 0; i < count; ++i) message.ids[i] = missing[at + i]->id();
      const auto first = missing.begin() + static_cast<std::ptrdiff_t>(at);
      outgoing_.push_back({bytes_of(message), {first, first + static_cast<std::ptrdiff_t>(count)}});
    }
    abi::Publish message;
    message.header.size_bytes = sizeof message;
    message.generation = snapshot.generation;
    outgoing_.push_back({bytes_of(message), {snapshot.root}});

    const bool sent_all = missing.size() == snapshot.segments.size();
    in_flight_ = InFlight{std::move(snapshot), sent_all, false, steady_clock::now()};
    watch();
    flush();
  }

  void flush() {
    while (!outgoing_.empty()) {
      std::vector<int> fds;
      for (const auto& memory : outgoing_.front().memories) fds.push_back(memory->fd());
      const int error = send_message(socket_.native_handle(), outgoing_.front().bytes, fds);
      if (error == EAGAIN) return wait_writable();
      if (error == ETOOMANYREFS) return wait_for_descriptors();
      // The reason for which lb-dp hung up may still be there to be read.
      if (error == EPIPE || error == ECONNRESET) return outgoing_.clear();
      if (error != 0) return disconnected(std::string("lb-dp: ") + std::strerror(error));
      outgoing_.pop_front();
    }
  }

  void wait_writable() {
    if (writable_wait_) return;
    writable_wait_ = true;
    socket_.async_wait(asio::posix::stream_descriptor::wait_write, on_this_connection([](Impl& self) {
                         self.writable_wait_ = false;
                         self.flush();
                       }));
  }

  void wait_for_descriptors() {
    resend_.expires_after(kDescriptorRetry);
    resend_.async_wait(on_this_connection([](Impl& self) { self.flush(); }));
  }

  void watch() {
    deadline_.expires_after(options_.deadline);
    deadline_.async_wait(on_this_connection([](Impl& self) {
      if (!self.in_flight_) return;
      const abi::Generation generation = self.in_flight_->snapshot.generation;
      const auto waited = std::chrono::duration_cast<milliseconds>(steady_clock::now() - self.in_flight_->since);
      self.watch();
      if (self.callbacks_.on_late) self.callbacks_.on_late(generation, waited);
    }));
  }

  asio::io_context& io_;
  PublisherOptions options_;
  PublisherCallbacks callbacks_;
  asio::posix::stream_descriptor socket_;
  asio::steady_timer retry_;
  asio::steady_timer deadline_;
  asio::steady_timer resend_;
  milliseconds wait_;  // before the next attempt to connect
  std::string last_reason_;
  std::uint64_t connection_ = 0;  // counts connections, so that late handlers are known
  bool closed_ = false;
  bool connected_ = false;
  bool busy_ = false;
  bool writable_wait_ = false;

  std::optional<CompiledSnapshot> newest_;  // last published; kept to be sent again
  std::optional<InFlight> in_flight_;
  abi::Generation floor_;         // lb-dp has judged this one; only higher ones are sent
  std::set<std::uint64_t> held_;  // segments lb-dp holds: those of the generation it accepted last
  std::deque<Outgoing> outgoing_;
};

Publisher::Publisher(asio::io_context& io, PublisherOptions options, PublisherCallbacks callbacks)
    : impl_(std::make_shared<Impl>(io, std::move(options), std::move(callbacks))) {
  impl_->start();
}

Publisher::~Publisher() {
  impl_->close();
}

void Publisher::publish(CompiledSnapshot snapshot) {
  impl_->publish(std::move(snapshot));
}

void Publisher::trace(const abi::TraceOrder& order) {
  impl_->trace(order);
}

bool Publisher::connected() const {
  return impl_->connected();
}

}  // namespace lb::cp
