// Bytes of segments: sealed memfds from lb-cp, or files of the state directory, mapped read-only.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tl/expected.hpp>

#include "dp/io/fd.h"
#include "dp/lb/snapshot.h"

namespace lb::worker {

// Maps a memfd that nobody can change any more. Refuses not_sealed, size (below a header, above kMaxSegmentBytes) and
// system.
tl::expected<SegmentBytes, SnapshotError> map_sealed(const io::Fd& fd);

// Reads a file into memory of our own. Errors in words.
tl::expected<SegmentBytes, std::string> read_segment_file(const std::string& path);

// The segment's own header; nullptr if there are fewer bytes than that. Unverified.
const abi::SegmentHeader* header_of(const SegmentBytes& segment);

// The root's own segment table, after Snapshot::segment_ids or Snapshot::open has accepted the root.
std::span<const abi::SegmentEntry> segment_entries(std::span<const std::byte> root);

using SegmentsById = std::map<std::uint64_t, SegmentBytes>;

}  // namespace lb::worker
