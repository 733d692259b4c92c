// Checks the tables that read servers from QUIC connection IDs (dp/abi/quic.h), and expands their keys.
#pragma once

#include <cstddef>
#include <span>
#include <tl/expected.hpp>

#include "dp/lb/snapshot.h"

namespace lb {

// Every index that a lookup can reach is in range, lengths are those that the draft allows, servers are in order.
// `snapshot`: its root, listeners, groups and targets are checked. Fills `view`.
tl::expected<void, SnapshotError> verify_quic(std::span<const std::byte> root, const Snapshot& snapshot, QuicView& view);

}  // namespace lb
