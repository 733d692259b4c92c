// What lb-cp must not forget, on disk: the configuration in force, the epoch, ids, states and drains with their deadlines.
//
//   DIR/lock            held while an lb-cp runs: a second one on the same directory is refused
//   DIR/state.json      {"lb_state":1,"checksum":"…","body":{…}}, replaced as a whole (write, fsync, rename, fsync of DIR)
//   DIR/state.json.1    the one before it
//   DIR/state.journal   what has changed since state.json: targets, one line each time, appended (write, fsync)
//
// The journal begins with the checksum of the state.json that it goes on from; with any other it counts for nothing. So a
// new state.json ends it, and nothing has to happen at one moment. A line has a checksum of its own: one that the power was
// lost on, the last, is no line yet.
//
// A file that is torn or whose checksum is wrong is moved aside as NAME.corrupt and named; the one before it is used.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "cp/snapshot/roster.h"

namespace lb::cp {

struct SavedState {
  std::string config_text;  // as it was applied; empty: none yet
  std::string config_file;  // its name, for messages
  std::uint64_t epoch = 0;  // of the last lb-cp that ran
  RosterMemory roster;
  std::uint64_t stats_instance = 0;               // lb-dp that listener_starts is about
  std::vector<ListenerCounters> listener_starts;  // by counter index: what was counted when its listener came
  ConfigRecord record;                            // of the configuration in force
  HealthFreeze freeze;
};

// The bytes of a state file, and back. The error says what is wrong: "cut short", "checksum", "body: …".
std::string encode_state(const SavedState& state);
std::string checksum_of(std::string_view encoded);  // as it says itself
tl::expected<SavedState, std::string> decode_state(std::string_view bytes);

// A line of the journal: these targets as they are now. Applying it to a state that does not know one of them leaves that
// one out. False: it is torn or no line; then nothing was changed.
std::string encode_change(std::span<const TargetRecord* const> targets);
bool apply_change(std::string_view line, RosterMemory& roster);

// For the history as well.
nlohmann::json to_json(const ConfigRecord& record);
ConfigRecord record_of(const nlohmann::json& json);  // throws what nlohmann's parser throws

class StateFile {
 public:
  // Makes the directory (0700) if need be and locks it. Errors: the system's, or that another lb-cp holds the lock.
  static tl::expected<StateFile, std::string> open(const std::string& directory);
  StateFile(StateFile&& other) noexcept;
  StateFile& operator=(StateFile&&) = delete;
  ~StateFile();

  struct Loaded {
    std::optional<SavedState> state;  // nullopt: there is none
    std::vector<std::string> errors;  // what was found broken and where it is now
  };
  Loaded load();
  // Durable when it returns without error. Any one thread at a time.
  tl::expected<void, std::string> save(const std::string& encoded);
  // As save(), but of what has changed since (encode_change). Costs the same however large the state is. After an error, and
  // before the first save(), there is none: save() is wanted (can_append).
  tl::expected<void, std::string> append(const std::string& change);
  [[nodiscard]] bool can_append() const { return !saved_.empty(); }

 private:
  StateFile(std::string directory, int lock_fd, int directory_fd);
  [[nodiscard]] std::string path(const char* name) const;

  std::string directory_;
  int lock_fd_ = -1;
  int directory_fd_ = -1;
  std::string saved_;    // checksum of state.json as this process saved it; empty: it has not, or cannot tell
  int journal_fd_ = -1;  // -1: not begun since
};

}  // namespace lb::cp
