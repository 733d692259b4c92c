// Checks the tables of security groups in a segment whose header and checksum are in order.
#pragma once

#include <tl/expected.hpp>

#include "dp/lb/snapshot.h"

namespace lb {

// Every index that a lookup can reach is in range, and every chain of rules ends. A segment is checked once.
tl::expected<SecurityView, SnapshotError> verify_security(SegmentBytes& segment);

}  // namespace lb
