#include "cp/control/state_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "cp/control/durable.h"

namespace lb::cp {
namespace {

constexpr const char* kName = "state.json";
constexpr const char* kBefore = "state.json.1";
constexpr const char* kNew = "state.json.new";
constexpr const char* kBeforeNew = "state.json.1.new";
constexpr const char* kJournal = "state.journal";

tl::unexpected<std::string> fail(const std::string& what) {
  return tl::unexpected(what + ": " + std::strerror(errno));
}

// Up to the first line that is not whole.
void replay_journal(std::string_view journal, std::string_view state, RosterMemory& roster) {
  bool first = true;
  for (std::size_t at = 0, end = 0; (end = journal.find('\n', at)) != std::string_view::npos; at = end + 1) {
    const std::string_view line = journal.substr(at, end - at);
    if (first ? line != state : !apply_change(line, roster)) return;
    first = false;
  }
}

}  // namespace

StateFile::StateFile(std::string directory, int lock_fd, int directory_fd)
    : directory_(std::move(directory)), lock_fd_(lock_fd), directory_fd_(directory_fd) {}

StateFile::StateFile(StateFile&& other) noexcept
    : directory_(std::move(other.directory_)),
      lock_fd_(std::exchange(other.lock_fd_, -1)),
      directory_fd_(std::exchange(other.directory_fd_, -1)),
      saved_(std::move(other.saved_)),
      journal_fd_(std::exchange(other.journal_fd_, -1)) {}

StateFile::~StateFile() {
  if (journal_fd_ >= 0) close(journal_fd_);
  if (directory_fd_ >= 0) close(directory_fd_);
  if (lock_fd_ >= 0) close(lock_fd_);  // and with it the lock
}

std::string StateFile::path(const char* name) const {
  return directory_ + "/" + name;
}

tl::expected<StateFile, std::string> StateFile::open(const std::string& directory) {
  std::error_code error;
  const bool made = std::filesystem::create_directories(directory, error);
  if (error) return tl::unexpected("state directory " + directory + ": " + error.message());
  if (made) std::filesystem::permissions(directory, std::filesystem::perms::owner_all, error);
  const int directory_fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory_fd < 0) return fail("state directory " + directory);
  const std::string lock = directory + "/lock";
  const int lock_fd = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  StateFile file(directory, lock_fd, directory_fd);
  if (lock_fd < 0) return fail(lock);
  if (flock(lock_fd, LOCK_EX | LOCK_NB) == 0) return file;
  if (errno == EWOULDBLOCK) return tl::unexpected("another lb-cp runs on the state directory " + directory);
  return fail(lock);
}

StateFile::Loaded StateFile::load() {
  Loaded loaded;
  for (const char* name : {kName, kBefore}) {
    const std::string file = path(name);
    const auto bytes = read_file(file);
    if (!bytes) {
      if (errno != ENOENT) loaded.errors.push_back("state file " + file + " cannot be read: " + std::strerror(errno));
      continue;
    }
    auto state = decode_state(*bytes);
    if (state) {
      loaded.state = std::move(*state);
      if (const auto journal = read_file(path(kJournal)); journal)
        replay_journal(*journal, checksum_of(*bytes), loaded.state->roster);
      return loaded;
    }
    const std::string aside = file + ".corrupt";
    const bool moved = rename(file.c_str(), aside.c_str()) == 0;
    loaded.errors.push_back("state file " + file + " is corrupt: " + state.error() + (moved ? "; it is now " + aside : ""));
  }
  return loaded;
}

tl::expected<void, std::string> StateFile::save(const std::string& encoded) {
  saved_.clear();
  if (journal_fd_ >= 0) close(std::exchange(journal_fd_, -1));
  const std::string fresh = path(kNew);
  if (auto written = write_synced(fresh, encoded); !written) return written;
  // The present one is kept under its second name before the new one takes its place: there is always a whole one.
  unlink(path(kBeforeNew).c_str());
  if (link(path(kName).c_str(), path(kBeforeNew).c_str()) == 0) {
    if (rename(path(kBeforeNew).c_str(), path(kBefore).c_str()) != 0) return fail(path(kBefore));
  } else if (errno != ENOENT) {
    return fail(path(kBeforeNew));
  }
  if (rename(fresh.c_str(), path(kName).c_str()) != 0) return fail(path(kName));
  if (fsync(directory_fd_) != 0) return fail(directory_);
  saved_ = checksum_of(encoded);
  return {};
}

tl::expected<void, std::string> StateFile::append(const std::string& change) {
  const auto failed = [this] {  // what is there of the line would hide those behind it
    const int error = errno;
    saved_.clear();
    errno = error;
    return fail(path(kJournal));
  };
  if (!can_append()) return tl::unexpected(path(kJournal) + ": there is no state that it goes on from");
  const bool begins = journal_fd_ < 0;
  if (begins) {
    journal_fd_ = ::open(path(kJournal).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (journal_fd_ < 0) return failed();
  }
  if (!write_all(journal_fd_, begins ? saved_ + "\n" + change : change) || fdatasync(journal_fd_) != 0) return failed();
  if (begins && fsync(directory_fd_) != 0) return failed();
  return {};
}

}  // namespace lb::cp
