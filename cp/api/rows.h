// LiveState → the rows of the API. One Index per request: it answers lookups by name in one pass over the state.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cp/model/live.h"

namespace lb::api {
class Change;
class Event;
class ListenerRow;
class TargetGroupRow;
class TargetRow;
class Violation;
class VipRow;
class WorkerRow;
}  // namespace lb::api

namespace lb::cp {

// Keeps references into `live`, which outlives it.
class Index {
 public:
  explicit Index(const LiveState& live);
  [[nodiscard]] const LiveState& live() const { return live_; }
  [[nodiscard]] const Config& config() const { return *config_; }
  [[nodiscard]] const Vip* vip(std::string_view name) const;                       // nullptr: none
  [[nodiscard]] const TargetGroup* configured_group(std::string_view name) const;  // nullptr: none, or removed
  [[nodiscard]] const LiveGroup* group(std::string_view name) const;
  [[nodiscard]] const std::vector<const LiveListener*>& listeners_of(std::string_view vip) const;

 private:
  const LiveState& live_;
  const Config* config_;
  std::map<std::string_view, const Vip*> vips_;
  std::map<std::string_view, const TargetGroup*> configured_;
  std::map<std::string_view, const LiveGroup*> groups_;
  std::map<std::string_view, std::vector<const LiveListener*>> listeners_of_;
};

void fill(api::VipRow& row, const Index& index, const Vip& vip);
void fill(api::ListenerRow& row, const Index& index, const LiveListener& listener);
void fill(api::TargetGroupRow& row, const Index& index, const LiveGroup& group);
void fill(api::TargetRow& row, const LiveTarget& target, std::int64_t now_unix_ms);
void fill(api::WorkerRow& row, const LiveWorker& worker);
void fill(api::Event& row, const Event& event);
void fill(api::Violation& row, const Violation& violation);
void fill(api::Change& row, const Change& change);

// Bytes that are not UTF-8 become U+FFFD: protobuf refuses to carry them, and a probe's detail may be anything.
std::string to_utf8(std::string_view bytes);

}  // namespace lb::cp
