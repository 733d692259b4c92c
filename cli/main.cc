#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string_view>

#include "cli/lbctl.h"

namespace {

int g_stop_pipe[2] = {-1, -1};

// Any thread may get the signal (gRPC has some), so the waiting one is woken through a pipe.
void stop(int) {
  const char byte = 0;
  if (::write(g_stop_pipe[1], &byte, 1) < 0) ::_exit(lb::cli::kExitError);
}

void set_handler(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

// Ends early, and with false, at Ctrl-C; outside of it Ctrl-C ends the process as ever.
bool wait_for(std::chrono::milliseconds time) {
  if (g_stop_pipe[0] < 0 && ::pipe2(g_stop_pipe, O_CLOEXEC) != 0) return false;
  set_handler(stop);
  pollfd stopped{.fd = g_stop_pipe[0], .events = POLLIN, .revents = 0};
  while (::poll(&stopped, 1, static_cast<int>(time.count())) < 0 && errno == EINTR) {
  }
  set_handler(SIG_DFL);
  return stopped.revents == 0;
}

bool is_colourful_terminal() {
  const char* term = std::getenv("TERM");
  return ::isatty(STDOUT_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb";
}

}  // namespace

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  const lb::cli::Io io{
      .in = std::cin, .out = std::cout, .err = std::cerr, .terminal = is_colourful_terminal(), .wait = wait_for};
  const int code = lb::cli::run({argv + 1, argv + argc}, io);
  std::cout.flush();
  return std::cout.good() ? code : lb::cli::kExitError;
}
