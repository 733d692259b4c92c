// `doctor`: what an operator would look at first, looked at at once.
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "cli/session.h"
#include "cli/table.h"
#include "proto/api.pb.h"

namespace lb::cli {

namespace {

enum class Grade : unsigned char { good, warning, bad };

struct Finding {
  Grade grade = Grade::good;
  std::string check;
  std::string words;
};

class Doctor {
 public:
  explicit Doctor(Client& client) : client_(client) {}

  void socket(const std::string& path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) return add(Grade::bad, "socket", path + ": " + std::strerror(errno));
    if (!S_ISSOCK(status.st_mode)) return add(Grade::bad, "socket", path + " is not a socket");
    if ((status.st_mode & 0007U) != 0)
      return add(Grade::bad, "socket", path + " is open to everybody: its mode should be 0660");
    add(Grade::good, "socket", path);
  }

  // False: there is nobody to ask further.
  bool versions() {
    const auto reply = client_.version();
    if (!reply) {
      add(Grade::bad, "lb-cp", reply.error());
      return false;
    }
    const std::string difference = compare_versions(LB_VERSION, reply->version());
    add(difference.empty() ? Grade::good : Grade::warning, "lb-cp",
        difference.empty() ? "version " + reply->version() : difference);
    connected_ = reply->data_plane_connected();
    const std::string& note = reply->data_plane_note();
    if (!connected_) {
      add(Grade::bad, "lb-dp", "not connected" + (note.empty() ? "" : ": " + note));
    } else {
      add(note.empty() ? Grade::good : Grade::bad, "lb-dp", note.empty() ? "connected" : note);
    }
    if (reply->has_freeze()) {
      add(Grade::warning, "health",
          "frozen since " + utc_time(reply->freeze().since_unix_ms()) +
              (reply->freeze().note().empty() ? "" : " (" + reply->freeze().note() + ")") +
              ": it changes no weight until lbctl unfreeze");
    }
    epoch_ = reply->epoch();
    generation_ = reply->generation();
    return true;
  }

  void workers() {
    const auto reply = client_.workers("");
    if (!reply) return add(Grade::bad, "workers", reply.error());
    if (!connected_) return;
    for (const api::WorkerRow& row : reply->workers()) {
      const std::string name = "worker " + std::to_string(row.worker());
      if (row.epoch() != epoch_ || row.generation() != generation_) {
        add(Grade::warning, name,
            "forwards by generation " + std::to_string(row.epoch()) + "." + std::to_string(row.generation()) +
                ", not yet by " + std::to_string(epoch_) + "." + std::to_string(generation_));
      }
      if (row.flow_capacity() != 0 && row.flows() > row.flow_capacity() / 10 * 9)
        add(Grade::warning, name, "its flow table is more than 90 % full: " + std::to_string(row.flows()) + " flows");
      if (row.busy() > 0.95) add(Grade::warning, name, "busy with packets for more than 95 % of its time");
    }
    add(Grade::good, "workers", std::to_string(reply->workers_size()) + " looked at");
  }

  void targets() {
    const auto groups = client_.target_groups("");
    if (!groups) return add(Grade::bad, "target groups", groups.error());
    for (const api::TargetGroupRow& row : groups->target_groups()) {
      if (row.fail_open())
        add(Grade::bad, "target group " + row.name(), "fail-open: too few healthy targets, all get traffic");
      if (row.targets() == 0) add(Grade::warning, "target group " + row.name(), "has no target");
    }
    add(Grade::good, "target groups", std::to_string(groups->target_groups_size()) + " looked at");
    const auto targets = client_.targets("");
    if (!targets) return add(Grade::bad, "targets", targets.error());
    for (const api::TargetRow& row : targets->targets()) {
      const std::string name = row.target_group() + " " + row.address();
      if (row.next_hop() == "unresolved")
        add(Grade::bad, name, "no next hop: the kernel knows no neighbour on the way to it (ip neigh)");
      if (row.state() == "unhealthy") add(Grade::warning, name, "unhealthy, " + row.reason() + ": " + row.detail());
      if (row.reason() == "InvalidTarget") add(Grade::bad, name, "its address is a VIP or this host's own");
    }
    add(Grade::good, "targets", std::to_string(targets->targets_size()) + " looked at");
  }

  void drops() {
    const auto reply = client_.drops();
    if (!reply) return add(Grade::bad, "drops", reply.error());
    for (const api::DropRow& row : reply->drops()) {
      const bool own = row.reason() == "no_snapshot" || row.reason() == "next_hop_unresolved" || row.reason() == "tx_full" ||
                       row.reason() == "punt_failed" || row.reason() == "no_target" || row.reason() == "no_tunnel_source";
      if (own && row.packets() != 0)
        add(Grade::warning, "drops", std::to_string(row.packets()) + " as " + row.reason() + ": " + row.help());
    }
    add(Grade::good, "drops", "looked at");
  }

  void configuration() {
    const auto reply = client_.history();
    if (!reply) return add(Grade::bad, "configuration", reply.error());
    if (reply->configurations_size() == 0) return add(Grade::bad, "configuration", "nothing was ever applied: lbctl apply");
    const api::HistoryRow& row = reply->configurations(0);
    add(Grade::good, "configuration",
        "number " + std::to_string(row.number()) + ", " + row.cause() + ", " + utc_time(row.unix_ms()));
  }

  // Of this host: lbctl runs beside lb-dp.
  void hugepages() {
    std::ifstream file("/proc/meminfo");
    std::string line;
    while (std::getline(file, line)) {
      std::istringstream words(line);
      std::string name;
      std::uint64_t count = 0;
      if (!(words >> name >> count) || name != "HugePages_Total:") continue;
      return add(count == 0 ? Grade::warning : Grade::good, "hugepages",
                 count == 0 ? "none reserved on this host: the flow table is in small pages, which costs speed"
                            : std::to_string(count) + " reserved");
    }
    add(Grade::warning, "hugepages", "/proc/meminfo does not tell");
  }

  [[nodiscard]] const std::vector<Finding>& findings() const { return findings_; }

 private:
  void add(Grade grade, std::string check, std::string words) {
    findings_.push_back({grade, std::move(check), std::move(words)});
  }

  Client& client_;
  std::vector<Finding> findings_;
  bool connected_ = false;
  std::uint64_t epoch_ = 0;
  std::uint64_t generation_ = 0;
};

const char* word(Grade grade) {
  switch (grade) {
    case Grade::good: return "ok";
    case Grade::warning: return "look";
    case Grade::bad: return "bad";
  }
  return "?";
}

Colour colour(Grade grade) {
  switch (grade) {
    case Grade::good: return Colour::good;
    case Grade::warning: return Colour::warning;
    case Grade::bad: return Colour::bad;
  }
  return Colour::none;
}

}  // namespace

// Exit code: 1 if anything is bad.
int Session::doctor() {
  Doctor doctor(client_);
  doctor.socket(options_.socket);
  if (doctor.versions()) {
    doctor.configuration();
    doctor.workers();
    doctor.targets();
    doctor.drops();
  }
  doctor.hugepages();
  bool bad = false;
  Table table({{""}, {"CHECK", false, true}, {"FINDING", false, true}});
  nlohmann::ordered_json document = {{"findings", nlohmann::ordered_json::array()}};
  for (const Finding& finding : doctor.findings()) {
    bad |= finding.grade == Grade::bad;
    table.add({Cell(word(finding.grade), colour(finding.grade)), finding.check, finding.words});
    document["findings"].push_back({{"grade", word(finding.grade)}, {"check", finding.check}, {"finding", finding.words}});
  }
  io_.out << (for_people() ? table.render(options_.output == "wide" ? kUnlimited : kTableColumns, view_options().colours)
                           : machine_text(document));
  return bad ? kExitError : kExitOk;
}

}  // namespace lb::cli
