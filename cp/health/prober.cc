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

std::string matcher_text(const std::vector<StatusRange>& matcher) {
  std::string text;
  for (const StatusRange& range : matcher) {
    if (!text.empty()) text += ',';
    text += std::to_string(range.first);
    if (range.last != range.first) text += '-' + std::to_string(range.last);
  }
  return text;
}

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
      if (entry->easy != nullptr) release(*entry);
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
      if (!take_orders()) return;
      start_due();
    }
  }

  // Until the next probe is due or libcurl wants to be called.
  [[nodiscard]] int wait_ms() const {
    std::optional<Clock::time_point> next = curl_due;
    if (!queue.empty() && in_flight < kMaxProbesInFlight && (!next || queue.top().at < *next)) next = queue.top().at;
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
      entry.gone = entry.easy != nullptr;
      return !entry.gone;
    });
    // Entries that went leave dangling heap items behind: build the heap anew from those that wait.
    queue = {};
    for (auto& [spec, entry] : entries) {
      if (entry->easy == nullptr) queue.push({entry->due, entry.get()});
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
    CURL* easy = nullptr;
    if (spare.empty()) {
      easy = curl_easy_init();
    } else {
      easy = spare.back();
      spare.pop_back();
      curl_easy_reset(easy);
    }
    entry.started = now;
    if (easy == nullptr) {
      report(entry, {ProbeVerdict::failed, "out of memory", {}});
      schedule(entry, now + entry.spec.interval);
      return;
    }
    const ProbeSpec& spec = entry.spec;
    const std::string authority = format_address_port(spec.address, spec.port);
    const std::string url = "http://" + authority + (spec.protocol == ProbeProtocol::http ? spec.path : "/");
    curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
    curl_easy_setopt(easy, CURLOPT_PRIVATE, &entry);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(spec.timeout.count()));
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(spec.timeout.count()));
    if (spec.protocol == ProbeProtocol::tcp) {
      curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
    } else {
      curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
      curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
      curl_easy_setopt(easy, CURLOPT_USERAGENT, "lb-health/" LB_VERSION);
      curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &discard_body);
      if (!spec.host.empty()) entry.headers = curl_slist_append(entry.headers, ("Host: " + spec.host).c_str());
      entry.headers = curl_slist_append(entry.headers, "Connection: close");
      curl_easy_setopt(easy, CURLOPT_HTTPHEADER, entry.headers);
    }
    entry.easy = easy;
    ++in_flight;
    curl_multi_add_handle(multi, easy);
  }

  void collect() {
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      Entry* entry = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &entry);
      ProbeResult result = judge(*entry, message->data.result);
      release(*entry);
      if (entry->gone) {
        entries.erase(entry->spec);
        continue;
      }
      report(*entry, std::move(result));
      // The next one a whole interval after this one began, ± 10 %, so that targets registered together drift apart.
      const auto interval = entry->spec.interval;
      schedule(*entry, std::max(Clock::now(), entry->started + interval - interval / 10 + random_share(interval / 5)));
    }
  }

  // Closes the connection (FIN) and keeps the handle for the next probe.
  void release(Entry& entry) {
    curl_multi_remove_handle(multi, entry.easy);
    spare.push_back(entry.easy);
    curl_slist_free_all(entry.headers);
    entry.headers = nullptr;
    entry.easy = nullptr;
    --in_flight;
  }

  static ProbeResult judge(const Entry& entry, CURLcode code) {
    const ProbeSpec& spec = entry.spec;
    long status = 0;
    curl_easy_getinfo(entry.easy, CURLINFO_RESPONSE_CODE, &status);
    // A status line is the answer, whatever becomes of the body.
    if (spec.protocol == ProbeProtocol::http && status != 0 && code != CURLE_OPERATION_TIMEDOUT) {
      const std::string said = "HTTP " + std::to_string(status);
      if (status_matches(spec.matcher, status)) return {ProbeVerdict::ok, said, {}};
      return {ProbeVerdict::response_code_mismatch, said + " not in " + spec.matcher, {}};
    }
    if (code == CURLE_OK) {
      if (spec.protocol == ProbeProtocol::tcp) return {ProbeVerdict::ok, "connected", {}};
      return {ProbeVerdict::failed, "no HTTP status in the answer", {}};
    }
    if (code == CURLE_OPERATION_TIMEDOUT) {
      return {ProbeVerdict::timeout, "no answer within " + std::to_string(spec.timeout.count()) + " ms", {}};
    }
    long os_error = 0;
    curl_easy_getinfo(entry.easy, CURLINFO_OS_ERRNO, &os_error);
    if (os_error == ETIMEDOUT) return {ProbeVerdict::timeout, "connect: " + std::string(std::strerror(ETIMEDOUT)), {}};
    if (os_error != 0)
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
