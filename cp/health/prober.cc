#include "cp/health/prober.h"

#include <curl/curl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <queue>
#include <random>
#include <stdexcept>
#include <thread>
#include <unordered_map>

#include "cp/health/datagram_probe.h"

namespace lb::cp {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kMostNumbers = 1U << 20;
const std::string kConnectTimedOut = "connect: Connection timed out";  // said by the kernel, after all its attempts

void curl_init_once() {
  static const bool done = [] {
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) throw std::runtime_error("libcurl: global initialisation failed");
    return true;
  }();
  (void)done;
}

std::size_t discard_body(char*, std::size_t size, std::size_t count, void*) {
  return size * count;
}

}  // namespace

bool status_matches(const std::string& matcher, long status) {
  const char* at = matcher.data();
  const char* const end = at + matcher.size();
  while (at < end) {
    long first = 0;
    at = std::from_chars(at, end, first).ptr;
    long last = first;
    if (at < end && *at == '-') at = std::from_chars(at + 1, end, last).ptr;
    if (status >= first && status <= last) return true;
    ++at;  // the comma
  }
  return false;
}

struct Prober::Impl {
  // One probe that is wanted. Owned by `entries`; touched by the prober's thread alone.
  struct Entry {
    ProbeSpec spec;
    std::uint64_t round = 0;          // of the set_probes() that last named it
    bool gone = false;                // removed while in flight: deleted when the probe ends
    std::uint32_t number = 0;         // of those through tunnels
    ProbeTunnels* tunnels = nullptr;  // if it is one
    int fd = -1;                      // while it is being connected
    CURL* easy = nullptr;             // while in flight, once connected
    curl_slist* headers = nullptr;
    curl_slist* connect_to = nullptr;
    std::unique_ptr<DatagramProbe> datagram;  // while in flight
    [[nodiscard]] bool in_flight() const { return fd >= 0 || easy != nullptr || datagram != nullptr; }
    Entry() = default;
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    ~Entry() {
      if (tunnels != nullptr) tunnels->forget(number);
    }
    Clock::time_point started;
    Clock::time_point due;
  };
  struct Due {
    Clock::time_point at;
    Entry* entry;
    bool operator>(const Due& other) const { return at > other.at; }
  };

  Impl(OnResult callback, ProbeTunnels* ways) : on_result(std::move(callback)), tunnels(ways) {
    curl_init_once();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    multi = curl_multi_init();
    if (epoll_fd < 0 || wake_fd < 0 || multi == nullptr)
      throw std::runtime_error("health prober: out of file descriptors or memory");
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = wake_fd;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, wake_fd, &event);
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, &Impl::on_socket);
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, this);
    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, &Impl::on_timer);
    curl_multi_setopt(multi, CURLMOPT_TIMERDATA, this);
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, 1L);
    thread = std::thread([this] { run(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    wake();
    thread.join();
    for (auto& [spec, entry] : entries) {
      if (entry->in_flight()) release(*entry);
    }
    for (CURL* easy : spare) curl_easy_cleanup(easy);
    curl_multi_cleanup(multi);
    close(wake_fd);
    close(epoll_fd);
  }

  void wake() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = write(wake_fd, &one, sizeof one);
  }

  static int on_socket(CURL*, curl_socket_t fd, int what, void* self, void* known) {
    auto& impl = *static_cast<Impl*>(self);
    if (what == CURL_POLL_REMOVE) {
      epoll_ctl(impl.epoll_fd, EPOLL_CTL_DEL, fd, nullptr);
      return 0;
    }
    epoll_event event{};
    event.events = ((what & CURL_POLL_IN) != 0 ? EPOLLIN : 0U) | ((what & CURL_POLL_OUT) != 0 ? EPOLLOUT : 0U);
    event.data.fd = fd;
    if (epoll_ctl(impl.epoll_fd, known == nullptr ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) != 0) {
      // libcurl may close a socket without telling and get the same number again.
      epoll_ctl(impl.epoll_fd, errno == EEXIST ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
    }
    curl_multi_assign(impl.multi, fd, self);
    return 0;
  }

  static int on_timer(CURLM*, long timeout_ms, void* self) {
    auto& impl = *static_cast<Impl*>(self);
    impl.curl_due = timeout_ms < 0 ? std::nullopt : std::optional(Clock::now() + std::chrono::milliseconds(timeout_ms));
    return 0;
  }

  void run() {
    std::array<epoll_event, 256> events{};
    for (;;) {
      const int n = epoll_wait(epoll_fd, events.data(), static_cast<int>(events.size()), wait_ms());
      int running = 0;
      for (int i = 0; i < n; ++i) {
        const epoll_event& event = events[static_cast<std::size_t>(i)];
        if (event.data.fd == wake_fd) {
          std::uint64_t ignored = 0;
          [[maybe_unused]] const ssize_t got = read(wake_fd, &ignored, sizeof ignored);
          continue;
        }
        if (const auto probe = sockets.find(event.data.fd); probe != sockets.end()) {
          on_own_socket(*probe->second);
          continue;
        }
        const int mask = ((event.events & EPOLLIN) != 0 ? CURL_CSELECT_IN : 0) |
                         ((event.events & EPOLLOUT) != 0 ? CURL_CSELECT_OUT : 0) |
                         ((event.events & (EPOLLERR | EPOLLHUP)) != 0 ? CURL_CSELECT_ERR : 0);
        curl_multi_socket_action(multi, event.data.fd, mask, &running);
      }
      if (curl_due && *curl_due <= Clock::now()) {
        curl_due.reset();
        curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
      }
      collect();
      end_late_sockets();
      if (!take_orders()) return;
      start_due();
    }
  }

  // Until the next probe is due or libcurl wants to be called.
  [[nodiscard]] int wait_ms() const {
    std::optional<Clock::time_point> next = curl_due;
    if (!queue.empty() && in_flight < kMaxProbesInFlight && (!next || queue.top().at < *next)) next = queue.top().at;
    if (!deadlines.empty() && (!next || deadlines.begin()->first < *next)) next = deadlines.begin()->first;
    if (!next) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - Clock::now()).count();
    return static_cast<int>(std::clamp<std::int64_t>(left, 0, 60'000));
  }

  // Takes over a new set of probes, if there is one. False: stop.
  bool take_orders() {
    std::optional<std::vector<ProbeSpec>> specs;
    std::vector<ProbeSpec> urgent;
    {
      const std::lock_guard lock(mutex);
      if (stopping) return false;
      specs.swap(ordered);
      urgent.swap(hastened);
    }
    if (specs) take_set(*specs);
    for (const ProbeSpec& spec : urgent) {
      const auto known = entries.find(spec);
      if (known != entries.end() && !known->second->in_flight()) schedule(*known->second, Clock::now());
    }
    return true;
  }

  void take_set(std::vector<ProbeSpec>& specs) {
    ++round;
    const auto now = Clock::now();
    for (ProbeSpec& spec : specs) {
      auto [at, added] = entries.try_emplace(spec);
      if (added) {
        at->second = std::make_unique<Entry>();
        at->second->spec = std::move(spec);
        if (at->second->spec.through && tunnels != nullptr) {
          at->second->tunnels = tunnels;
          at->second->number = next_number++ % kMostNumbers;
        }
        schedule(*at->second, now + random_share(at->second->spec.interval / 10));
      }
      at->second->round = round;
      at->second->gone = false;
    }
    std::erase_if(entries, [this](auto& item) {
      Entry& entry = *item.second;
      if (entry.round == round) return false;
      entry.gone = entry.in_flight();
      return !entry.gone;
    });
    // Entries that went leave dangling heap items behind: build the heap anew from those that wait.
    queue = {};
    for (auto& [spec, entry] : entries) {
      if (!entry->in_flight()) queue.push({entry->due, entry.get()});
    }
  }

  Clock::duration random_share(Clock::duration of) {
    return Clock::duration(std::uniform_int_distribution<Clock::rep>(0, std::max<Clock::rep>(of.count(), 1))(random));
  }

  void schedule(Entry& entry, Clock::time_point at) {
    entry.due = at;
    queue.push({at, &entry});
  }

  void start_due() {
    const auto now = Clock::now();
    while (!queue.empty() && queue.top().at <= now && in_flight < kMaxProbesInFlight) {
      const Due next = queue.top();
      queue.pop();
      if (next.at == next.entry->due && !next.entry->in_flight()) start(*next.entry, now);  // else it was hastened
    }
  }

  void start(Entry& entry, Clock::time_point now) {
    entry.started = now;
    const auto fd = open_probe_socket(entry.spec, entry.number, tunnels);
    if (!fd) return not_started(entry, fd.error());
    const ProbeProtocol protocol = entry.spec.protocol;
    const bool datagram = protocol == ProbeProtocol::udp || protocol == ProbeProtocol::icmp;
    if (datagram) {
      auto probe = DatagramProbe::open(*fd, entry.spec, random());
      if (!probe) return not_started(entry, probe.error());
      entry.datagram = std::move(*probe);
    } else {
      entry.fd = *fd;
    }
    ++in_flight;
    epoll_event event{};
    event.events = datagram ? EPOLLIN : EPOLLOUT;
    event.data.fd = *fd;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, *fd, &event);  // if it fails, the probe times out
    sockets[*fd] = &entry;
    deadlines.emplace(now + entry.spec.timeout, &entry);
  }

  void on_own_socket(Entry& entry) {
    if (entry.datagram != nullptr) {
      if (auto result = entry.datagram->read(entry.spec)) finish(entry, std::move(*result));
      return;
    }
    auto ready = connected(entry.fd);
    if (ready && entry.spec.proxy_v2) ready = send_proxy_header(entry.fd);
    if (!ready) return finish(entry, judge(ready.error()));
    if (entry.spec.protocol == ProbeProtocol::tcp) return finish(entry, {ProbeVerdict::ok, "connected", {}});
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, entry.fd, nullptr);
    forget_socket(entry, entry.fd);
    start_request(entry);
  }

  // On a connection that is made: what is left of the time is the request's.
  void start_request(Entry& entry) {
    CURL* easy = nullptr;
    if (spare.empty()) {
      easy = curl_easy_init();
    } else {
      easy = spare.back();
      spare.pop_back();
      curl_easy_reset(easy);
    }
    if (easy == nullptr) return finish(entry, {ProbeVerdict::not_asked, "out of memory", {}});
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(entry.started + entry.spec.timeout - Clock::now());
    curl_easy_setopt(easy, CURLOPT_PRIVATE, &entry);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(std::max<std::int64_t>(left.count(), 1)));
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, &Impl::hand_over_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, &entry);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, &Impl::already_connected);
    set_up_request(entry, easy);
    entry.easy = easy;
    curl_multi_add_handle(multi, easy);
  }

  static curl_socket_t hand_over_socket(void* entry, curlsocktype, curl_sockaddr*) {
    return std::exchange(static_cast<Entry*>(entry)->fd, -1);  // libcurl closes it
  }
  static int already_connected(void*, curl_socket_t, curlsocktype) { return CURL_SOCKOPT_ALREADY_CONNECTED; }

  static void set_up_request(Entry& entry, CURL* easy) {
    const ProbeSpec& spec = entry.spec;
    const bool https = spec.protocol == ProbeProtocol::https;
    const std::string authority = format_address_port(spec.address, spec.port);  // also of a probe to a VIP: its Host
    // https: the host names the server in the handshake; the connection goes to the target all the same.
    const std::string server =
        https && !spec.host.empty()
            ? spec.host.substr(0, spec.host.find(':', spec.host.find(']') + 1)) + ":" + std::to_string(spec.port)
            : authority;
    curl_easy_setopt(easy, CURLOPT_URL, ((https ? "https://" : "http://") + server + spec.path).c_str());
    entry.connect_to = curl_slist_append(nullptr, ("::" + authority).c_str());
    curl_easy_setopt(easy, CURLOPT_CONNECT_TO, entry.connect_to);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, spec.tls_verify ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, spec.tls_verify ? 2L : 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L);
    const long version = !spec.http2 ? static_cast<long>(CURL_HTTP_VERSION_1_1)
                         : https     ? static_cast<long>(CURL_HTTP_VERSION_2TLS)
                                     : static_cast<long>(CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, version);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "lb-health/" LB_VERSION);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &discard_body);
    if (!spec.host.empty()) entry.headers = curl_slist_append(entry.headers, ("Host: " + spec.host).c_str());
    if (!spec.http2) entry.headers = curl_slist_append(entry.headers, "Connection: close");
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, entry.headers);
  }

  void not_started(Entry& entry, const ProbeError& error) {
    report(entry, judge(error));
    schedule(entry, entry.started + entry.spec.interval);
  }

  static ProbeResult judge(const ProbeError& error) {
    if (error.text == kConnectTimedOut) return {ProbeVerdict::timeout, error.text, {}};
    return {error.own ? ProbeVerdict::not_asked : ProbeVerdict::failed, error.text, {}};
  }

  void end_late_sockets() {
    while (!deadlines.empty() && deadlines.begin()->first <= Clock::now())
      finish(*deadlines.begin()->second, no_answer(deadlines.begin()->second->spec));
  }

  static ProbeResult no_answer(const ProbeSpec& spec) {
    return {ProbeVerdict::timeout, "no answer within " + std::to_string(spec.timeout.count()) + " ms", {}};
  }

  void collect() {
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      Entry* entry = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &entry);
      finish(*entry, judge(*entry, message->data.result));
    }
  }

  void finish(Entry& entry, ProbeResult result) {
    release(entry);
    if (entry.gone) {
      entries.erase(entry.spec);
      return;
    }
    report(entry, std::move(result));
    // The next one a whole interval after this one began, ± 10 %, so that targets registered together drift apart.
    const auto interval = entry.spec.interval;
    schedule(entry, std::max(Clock::now(), entry.started + interval - interval / 10 + random_share(interval / 5)));
  }

  void forget_socket(Entry& entry, int fd) {
    sockets.erase(fd);
    const auto [first, last] = deadlines.equal_range(entry.started + entry.spec.timeout);
    deadlines.erase(std::find_if(first, last, [&](const auto& item) { return item.second == &entry; }));
  }

  // Closes the connection (FIN) or socket, which epoll forgets with that; libcurl's handle is kept for the next probe.
  void release(Entry& entry) {
    --in_flight;
    if (entry.datagram != nullptr) {
      forget_socket(entry, entry.datagram->fd());
      entry.datagram.reset();
    } else if (entry.easy != nullptr) {
      curl_multi_remove_handle(multi, entry.easy);
      spare.push_back(std::exchange(entry.easy, nullptr));
      curl_slist_free_all(std::exchange(entry.headers, nullptr));
      curl_slist_free_all(std::exchange(entry.connect_to, nullptr));
    } else {
      forget_socket(entry, entry.fd);
    }
    if (entry.fd >= 0) close(std::exchange(entry.fd, -1));
  }

  static ProbeResult judge(const Entry& entry, CURLcode code) {
    const ProbeSpec& spec = entry.spec;
    long status = 0;
    curl_easy_getinfo(entry.easy, CURLINFO_RESPONSE_CODE, &status);
    // A status line is the answer, whatever becomes of the body.
    long version = 0;
    curl_easy_getinfo(entry.easy, CURLINFO_HTTP_VERSION, &version);
    if (spec.http2 && status != 0 && version != CURL_HTTP_VERSION_2_0)
      return {ProbeVerdict::failed, "the answer is not HTTP/2", {}};
    if (status != 0 && code != CURLE_OPERATION_TIMEDOUT) {
      const std::string said = "HTTP " + std::to_string(status);
      if (status_matches(spec.matcher, status)) return {ProbeVerdict::ok, said, {}};
      return {ProbeVerdict::response_code_mismatch, said + " not in " + spec.matcher, {}};
    }
    if (code == CURLE_OK) return {ProbeVerdict::failed, "no HTTP status in the answer", {}};
    if (code == CURLE_OPERATION_TIMEDOUT) return no_answer(spec);
    const bool own = code == CURLE_OUT_OF_MEMORY || code == CURLE_FAILED_INIT;
    return {own ? ProbeVerdict::not_asked : ProbeVerdict::failed, curl_easy_strerror(code), {}};
  }

  void report(const Entry& entry, ProbeResult result) const {
    result.took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - entry.started);
    on_result(entry.spec, result);
  }

  OnResult on_result;
  ProbeTunnels* tunnels;
  int epoll_fd = -1;
  int wake_fd = -1;
  CURLM* multi = nullptr;
  std::map<ProbeSpec, std::unique_ptr<Entry>> entries;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> queue;
  std::vector<CURL*> spare;
  std::unordered_map<int, Entry*> sockets;             // in flight and not libcurl's, by descriptor
  std::multimap<Clock::time_point, Entry*> deadlines;  // of `sockets`
  std::uint32_t next_number = 0;
  std::size_t in_flight = 0;
  std::uint64_t round = 0;
  std::optional<Clock::time_point> curl_due;
  std::mt19937_64 random{std::random_device{}()};

  std::mutex mutex;  // guards the three below
  std::optional<std::vector<ProbeSpec>> ordered;
  std::vector<ProbeSpec> hastened;
  bool stopping = false;
  std::thread thread;  // last: starts when all above is ready
};

Prober::Prober(OnResult on_result, ProbeTunnels* tunnels) : impl_(std::make_unique<Impl>(std::move(on_result), tunnels)) {}
Prober::~Prober() = default;

void Prober::hasten(const std::vector<ProbeSpec>& specs) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->hastened.insert(impl_->hastened.end(), specs.begin(), specs.end());
  }
  impl_->wake();
}

void Prober::set_probes(std::vector<ProbeSpec> specs) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->ordered = std::move(specs);
  }
  impl_->wake();
}

}  // namespace lb::cp
