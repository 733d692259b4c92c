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
    std::uint64_t round = 0;  // of the set_probes() that last named it
    bool gone = false;        // removed while in flight: deleted when the probe ends
    CURL* easy = nullptr;     // while in flight
    curl_slist* headers = nullptr;
    curl_slist* connect_to = nullptr;
    std::unique_ptr<DatagramProbe> datagram;  // while in flight
    [[nodiscard]] bool in_flight() const { return easy != nullptr || datagram != nullptr; }
    Clock::time_point started;
    Clock::time_point due;
  };
  struct Due {
    Clock::time_point at;
    Entry* entry;
    bool operator>(const Due& other) const { return at > other.at; }
  };

  explicit Impl(OnResult callback) : on_result(std::move(callback)) {
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
        if (const auto probe = datagrams.find(event.data.fd); probe != datagrams.end()) {
          Entry& entry = *probe->second;
          if (auto result = entry.datagram->read(entry.spec)) finish(entry, std::move(*result));
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
      end_late_datagrams();
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
    {
      const std::lock_guard lock(mutex);
      if (stopping) return false;
      specs.swap(ordered);
    }
    if (!specs) return true;
    ++round;
    const auto now = Clock::now();
    for (ProbeSpec& spec : *specs) {
      auto [at, added] = entries.try_emplace(spec);
      if (added) {
        at->second = std::make_unique<Entry>();
        at->second->spec = std::move(spec);
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
    return true;
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
      Entry& entry = *queue.top().entry;
      queue.pop();
      start(entry, now);
    }
  }

  void start(Entry& entry, Clock::time_point now) {
    entry.started = now;
    const ProbeProtocol protocol = entry.spec.protocol;
    if (protocol == ProbeProtocol::udp || protocol == ProbeProtocol::icmp) return start_datagram(entry);
    CURL* easy = nullptr;
    if (spare.empty()) {
      easy = curl_easy_init();
    } else {
      easy = spare.back();
      spare.pop_back();
      curl_easy_reset(easy);
    }
    if (easy == nullptr) return not_started(entry, "out of memory");
    const ProbeSpec& spec = entry.spec;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, &entry);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(spec.timeout.count()));
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(spec.timeout.count()));
    if (protocol == ProbeProtocol::tcp) {
      curl_easy_setopt(easy, CURLOPT_URL, ("http://" + format_address_port(spec.address, spec.port) + "/").c_str());
      curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
    } else {
      set_up_request(entry, easy);
    }
    entry.easy = easy;
    ++in_flight;
    curl_multi_add_handle(multi, easy);
  }

  static void set_up_request(Entry& entry, CURL* easy) {
    const ProbeSpec& spec = entry.spec;
    const bool https = spec.protocol == ProbeProtocol::https;
    const std::string authority = format_address_port(spec.address, spec.port);
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

  void start_datagram(Entry& entry) {
    auto probe = DatagramProbe::open(entry.spec, random());
    if (!probe) return not_started(entry, probe.error());
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = (*probe)->fd();
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event.data.fd, &event) != 0) return not_started(entry, std::strerror(errno));
    entry.datagram = std::move(*probe);
    datagrams[event.data.fd] = &entry;
    deadlines.emplace(entry.started + entry.spec.timeout, &entry);
    ++in_flight;
  }

  void not_started(Entry& entry, std::string text) {
    report(entry, {ProbeVerdict::failed, std::move(text), {}});
    schedule(entry, entry.started + entry.spec.interval);
  }

  void end_late_datagrams() {
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

  // Closes the connection (FIN) or socket; a handle is kept for the next probe.
  void release(Entry& entry) {
    --in_flight;
    if (entry.datagram != nullptr) {
      datagrams.erase(entry.datagram->fd());
      const auto [first, last] = deadlines.equal_range(entry.started + entry.spec.timeout);
      deadlines.erase(std::find_if(first, last, [&](const auto& item) { return item.second == &entry; }));
      entry.datagram.reset();  // epoll forgets it with its close
      return;
    }
    curl_multi_remove_handle(multi, entry.easy);
    spare.push_back(entry.easy);
    curl_slist_free_all(std::exchange(entry.headers, nullptr));
    curl_slist_free_all(std::exchange(entry.connect_to, nullptr));
    entry.easy = nullptr;
  }

  static ProbeResult judge(const Entry& entry, CURLcode code) {
    const ProbeSpec& spec = entry.spec;
    long status = 0;
    curl_easy_getinfo(entry.easy, CURLINFO_RESPONSE_CODE, &status);
    // A status line is the answer, whatever becomes of the body.
    const bool http = spec.protocol != ProbeProtocol::tcp;
    long version = 0;
    curl_easy_getinfo(entry.easy, CURLINFO_HTTP_VERSION, &version);
    if (http && spec.http2 && status != 0 && version != CURL_HTTP_VERSION_2_0)
      return {ProbeVerdict::failed, "the answer is not HTTP/2", {}};
    if (http && status != 0 && code != CURLE_OPERATION_TIMEDOUT) {
      const std::string said = "HTTP " + std::to_string(status);
      if (status_matches(spec.matcher, status)) return {ProbeVerdict::ok, said, {}};
      return {ProbeVerdict::response_code_mismatch, said + " not in " + spec.matcher, {}};
    }
    if (code == CURLE_OK) {
      if (spec.protocol == ProbeProtocol::tcp) return {ProbeVerdict::ok, "connected", {}};
      return {ProbeVerdict::failed, "no HTTP status in the answer", {}};
    }
    if (code == CURLE_OPERATION_TIMEDOUT) return no_answer(spec);
    long os_error = 0;
    curl_easy_getinfo(entry.easy, CURLINFO_OS_ERRNO, &os_error);
    if (os_error == ETIMEDOUT) return {ProbeVerdict::timeout, "connect: " + std::string(std::strerror(ETIMEDOUT)), {}};
    if (code == CURLE_COULDNT_CONNECT && os_error != 0)  // of anything else it is what connect() left behind
      return {ProbeVerdict::failed, "connect: " + std::string(std::strerror(static_cast<int>(os_error))), {}};
    return {ProbeVerdict::failed, curl_easy_strerror(code), {}};
  }

  void report(const Entry& entry, ProbeResult result) const {
    result.took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - entry.started);
    on_result(entry.spec, result);
  }

  OnResult on_result;
  int epoll_fd = -1;
  int wake_fd = -1;
  CURLM* multi = nullptr;
  std::map<ProbeSpec, std::unique_ptr<Entry>> entries;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> queue;
  std::vector<CURL*> spare;
  std::unordered_map<int, Entry*> datagrams;           // in flight, by descriptor
  std::multimap<Clock::time_point, Entry*> deadlines;  // of `datagrams`
  std::size_t in_flight = 0;
  std::uint64_t round = 0;
  std::optional<Clock::time_point> curl_due;
  std::mt19937_64 random{std::random_device{}()};

  std::mutex mutex;  // guards the two below
  std::optional<std::vector<ProbeSpec>> ordered;
  bool stopping = false;
  std::thread thread;  // last: starts when all above is ready
};

Prober::Prober(OnResult on_result) : impl_(std::make_unique<Impl>(std::move(on_result))) {}
Prober::~Prober() = default;

void Prober::set_probes(std::vector<ProbeSpec> specs) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->ordered = std::move(specs);
  }
  impl_->wake();
}

}  // namespace lb::cp
