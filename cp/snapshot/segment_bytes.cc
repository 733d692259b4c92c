#include "cp/snapshot/segment_bytes.h"

#include <utility>

#include "dp/abi/fingerprint.h"
#include "dp/base/segment_checksum.h"

namespace lb::cp {

static_assert(kSegmentChecksumOffset == offsetof(abi::SegmentHeader, checksum));

void write_segment_header(std::span<std::byte> bytes, abi::SegmentKind kind, std::uint64_t id) {
  abi::SegmentHeader header;
  header.kind = kind;
  header.layout_fingerprint = abi::snapshot_fingerprint();
  header.size_bytes = bytes.size();
  header.segment_id = id;
  std::memcpy(bytes.data(), &header, sizeof header);
  header.checksum = segment_checksum(bytes);
  std::memcpy(bytes.data(), &header, sizeof header);
}

std::vector<std::byte> RootBytes::finish(const abi::Root& root) {
  std::memcpy(bytes_.data(), &root, sizeof root);
  write_segment_header(bytes_, abi::SegmentKind::root, 0);
  return std::move(bytes_);
}

}  // namespace lb::cp
