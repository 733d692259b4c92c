// Files that survive a loss of power at any write, and what finds those that did not.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

namespace lb::cp {

// The whole file. nullopt: there is none (errno ENOENT) or it cannot be read (errno).
std::optional<std::string> read_file(const std::string& path);
bool write_all(int fd, std::string_view bytes);  // false: errno
// Makes `path` (0600) with these bytes on disk; not yet its name in the folder.
tl::expected<void, std::string> write_synced(const std::string& path, std::string_view bytes);
tl::expected<void, std::string> sync_directory(const std::string& path);
// FNV-1a, 64 bits, 16 hexadecimal digits: finds torn and flipped bytes, keeps nobody out.
std::string checksum(std::string_view bytes);

}  // namespace lb::cp
