#include "cp/control/history.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cp/control/durable.h"
#include "cp/control/state_file.h"

namespace lb::cp {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kHead = "# lb history ";
constexpr std::string_view kSuffix = ".yaml";

}  // namespace

std::string encode_history(const ConfigRecord& record, std::string_view text) {
  Json head = to_json(record);
  head["checksum"] = checksum(text);
  std::string bytes(kHead);
  bytes += head.dump(-1, ' ', true, Json::error_handler_t::replace);
  return bytes.append("\n").append(text);
}

tl::expected<HistoryEntry, std::string> decode_history(std::string_view bytes) {
  const std::size_t end = bytes.find('\n');
  if (!bytes.starts_with(kHead) || end == std::string_view::npos) return tl::unexpected<std::string>("it is cut short");
  const std::string_view text = bytes.substr(end + 1);
  try {
    const Json head = Json::parse(bytes.substr(kHead.size(), end - kHead.size()));
    if (head.at("checksum").get<std::string>() != checksum(text))
      return tl::unexpected<std::string>("its checksum is wrong");
    return HistoryEntry{record_of(head), std::string(text)};
  } catch (const std::exception& error) {
    return tl::unexpected<std::string>("its first line: " + std::string(error.what()));
  }
}

std::string HistoryFolder::path(std::uint64_t number) const {
  return directory_ + "/" + std::to_string(number) + std::string(kSuffix);
}

std::vector<std::uint64_t> HistoryFolder::numbers() const {
  std::vector<std::uint64_t> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, error)) {
    const std::string name = entry.path().filename();
    std::uint64_t number = 0;
    const auto [end, wrong] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (wrong == std::errc{} && std::string_view(end) == kSuffix) found.push_back(number);
  }
  std::ranges::sort(found);
  return found;
}

HistoryFolder::Loaded HistoryFolder::load() const {
  Loaded loaded;
  std::error_code error;
  const bool made = std::filesystem::create_directories(directory_, error);
  if (error) loaded.errors.push_back("history " + directory_ + ": " + error.message());
  if (made) std::filesystem::permissions(directory_, std::filesystem::perms::owner_all, error);
  for (const std::uint64_t number : numbers()) {
    auto entry = read(number);
    if (entry) {
      loaded.records.push_back(std::move(entry->record));
      continue;
    }
    const std::string aside = path(number) + ".corrupt";
    const bool moved = std::rename(path(number).c_str(), aside.c_str()) == 0;
    loaded.errors.push_back(entry.error() + (moved ? "; it is now " + aside : ""));
  }
  return loaded;
}

tl::expected<HistoryEntry, std::string> HistoryFolder::read(std::uint64_t number) const {
  const std::string file = path(number);
  const auto bytes = read_file(file);
  if (!bytes) return tl::unexpected("history file " + file + " cannot be read: " + std::strerror(errno));
  auto entry = decode_history(*bytes);
  if (!entry) return tl::unexpected("history file " + file + " is corrupt: " + entry.error());
  if (entry->record.number != number)
    return tl::unexpected("history file " + file + " is corrupt: it says that it is number " +
                          std::to_string(entry->record.number));
  return entry;
}

tl::expected<void, std::string> HistoryFolder::save(const ConfigRecord& record, std::string_view text) const {
  const std::string fresh = directory_ + "/new";
  if (auto written = write_synced(fresh, encode_history(record, text)); !written) return written;
  if (std::rename(fresh.c_str(), path(record.number).c_str()) != 0)
    return tl::unexpected(path(record.number) + ": " + std::strerror(errno));
  std::vector<std::uint64_t> kept = numbers();
  for (std::size_t i = 0; i + kMaxHistory < kept.size(); ++i) std::remove(path(kept[i]).c_str());
  return sync_directory(directory_);
}

}  // namespace lb::cp
