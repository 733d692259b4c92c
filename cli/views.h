// Replies as text for people. `wide` lifts the limit of 80 columns and shows every column; numbers are then exact.
#pragma once

#include <cstdint>
#include <string>

#include "cli/messages.h"

namespace lb::cli {

struct ViewOptions {
  bool wide = false;
  bool colours = false;
  std::int64_t now_unix_ms = 0;  // for ages
};

std::string view(const api::VipList& list, const ViewOptions& options);
std::string view(const api::ListenerList& list, const ViewOptions& options);
std::string view(const api::TargetGroupList& list, const ViewOptions& options);
std::string view(const api::TargetList& list, const ViewOptions& options);
std::string view(const api::WorkerList& list, const ViewOptions& options);
std::string view(const api::DropList& list, const ViewOptions& options);
std::string view(const api::FreezeReply& reply, const ViewOptions& options);
std::string view(const api::DrainReply& reply, const ViewOptions& options);
std::string view(const api::DescribeReply& reply, const ViewOptions& options);
std::string view(const api::WhyReply& reply, const ViewOptions& options);
std::string view(const api::VersionReply& reply, const ViewOptions& options);
std::string view(const api::HistoryReply& reply, const ViewOptions& options);
std::string view(const api::PlanReply& reply, const ViewOptions& options);
std::string view(const api::TalkerList& list, const ViewOptions& options);
std::string view(const api::FlowList& list, const ViewOptions& options);
std::string view(const api::OffenderList& list, const ViewOptions& options);
std::string view(const api::Event& event, const ViewOptions& options);  // a line; wrapped unless wide
// One line per change: "+ vip web", "- listener old", "~ target blue 10.77.2.2:80  weight: 1 → 5"; the first 100 unless
// wide.
inline constexpr int kMaxChanges = 100;  // shown unless wide; a first apply may bring a hundred thousand
std::string view_changes(const api::ApplyReply& reply, const ViewOptions& options);
std::string view_changes(const api::DiffReply& reply, const ViewOptions& options);
std::string view_changes(const api::PlanReply& reply, const ViewOptions& options);

// One per line: FILE:LINE: FIELD: TEXT; warnings have "warning: " before TEXT. Line and field only where they are set.
std::string violations_text(const api::ApplyReply& reply);
std::string warnings_text(const api::ApplyReply& reply);
std::string violations_text(const api::DiffReply& reply);
std::string warnings_text(const api::DiffReply& reply);
std::string violations_text(const api::PlanReply& reply);
std::string warnings_text(const api::PlanReply& reply);

std::string compact_number(std::uint64_t value);  // 99999, 1.23M: five digits, then three and K M G T P E
std::string age(std::int64_t milliseconds);       // 5s, 3m12s, 2h05m, 3d04h
std::string utc_time(std::uint64_t unix_ms);      // 2026-11-21 02:10:11Z

}  // namespace lb::cli
