#include "cli/waiting.h"

#include <condition_variable>
#include <mutex>
#include <ostream>

namespace lb::cli {

Waiting::Waiting(const Io& io, std::chrono::milliseconds every) {
  if (!io.terminal) return;
  thread_ = std::jthread([&io, every](const std::stop_token& end) {
    std::mutex mutex;
    std::condition_variable_any ends;
    std::unique_lock lock(mutex);
    bool told = false;
    for (auto time = every; !ends.wait_for(lock, end, every, [&] { return end.stop_requested(); }); time += every) {
      io.err << "\rlb-cp is at work: " << std::chrono::duration_cast<std::chrono::seconds>(time).count() << " s"
             << std::flush;
      told = true;
    }
    if (told) io.err << "\r\x1b[K" << std::flush;
  });
}

}  // namespace lb::cli
