// The last configurations that were in force, on disk: what `lbctl history` lists and `lbctl rollback` brings back.
//
//   DIR/history/12.yaml    # lb history {"number":12,"checksum":"…",…}     first line
//                          the file as it was applied, byte for byte       the rest: can be applied by hand
//
// Written as a whole (write, fsync, rename, fsync of the folder), behind the state file: the configuration in force is in
// the state, so that one missing here after a crash is added at the next start.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "cp/model/live.h"

namespace lb::cp {

inline constexpr std::size_t kMaxHistory = 10;  // configurations kept, the one in force among them

// The bytes of a file of the history, and back. The error says what is wrong: "cut short", "checksum", "first line: …".
std::string encode_history(const ConfigRecord& record, std::string_view text);
struct HistoryEntry {
  ConfigRecord record;
  std::string text;
};
tl::expected<HistoryEntry, std::string> decode_history(std::string_view bytes);

// Its files. Any one thread at a time; after open() lb-cp's disk thread.
class HistoryFolder {
 public:
  explicit HistoryFolder(const std::string& state_directory) : directory_(state_directory + "/history") {}

  struct Loaded {
    std::vector<ConfigRecord> records;  // oldest first
    std::vector<std::string> errors;    // what was found broken and where it is now
  };
  // Makes the folder if need be. A broken file is moved aside as NAME.corrupt.
  Loaded load() const;
  // Durable when it returns without error; what is older than the last kMaxHistory is gone then.
  [[nodiscard]] tl::expected<void, std::string> save(const ConfigRecord& record, std::string_view text) const;
  [[nodiscard]] tl::expected<HistoryEntry, std::string> read(std::uint64_t number) const;

 private:
  [[nodiscard]] std::string path(std::uint64_t number) const;
  [[nodiscard]] std::vector<std::uint64_t> numbers() const;  // ascending

  std::string directory_;
};

}  // namespace lb::cp
