// `why`: where a flow would go, or each packet of a capture.
#include <pcap/pcap.h>

#include <array>
#include <charconv>
#include <map>
#include <memory>
#include <utility>

#include "cli/session.h"
#include "cli/table.h"
#include "proto/api.pb.h"

namespace lb::cli {

using nlohmann::ordered_json;

namespace {

tl::expected<std::uint32_t, std::string> parse_port(const std::string& text, const std::string& what) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value > 65535) {
    return tl::unexpected(what + ": `" + text + "` is not a port (0-65535)");
  }
  return value;
}

// An answer as a line of lb-replay; `n` and `out_len` belong to a packet and are empty for a flow, `out` always is.
ordered_json why_document(const api::WhyReply& reply) {
  const ordered_json answer = to_document(reply);
  ordered_json document = {{"n", answer["n"]}};
  for (const auto& [key, value] : answer.items()) {
    document[key] = value;
    if (key == "worker") {
      document["out_len"] = answer["out_len"];
      document["out"] = ordered_json::array();
    }
  }
  return document;
}

constexpr int kPacketsPerBatch = 500;

// A capture's frames, in batches for lb-cp.
class Capture {
 public:
  static tl::expected<Capture, std::string> open(const std::string& file) {
    std::array<char, PCAP_ERRBUF_SIZE> error{};
    Capture capture;
    capture.pcap_.reset(pcap_open_offline_with_tstamp_precision(file.c_str(), PCAP_TSTAMP_PRECISION_NANO, error.data()));
    if (!capture.pcap_) return tl::unexpected(std::string(error.data()));  // names the file
    if (pcap_datalink(capture.pcap_.get()) != DLT_EN10MB) return tl::unexpected(file + ": is not of Ethernet frames");
    return capture;
  }

  // False: there are no more, or error() says why not.
  bool next(api::PacketBatch& batch) {
    pcap_pkthdr* header = nullptr;
    const u_char* bytes = nullptr;
    int result = 1;
    while (batch.packets_size() < kPacketsPerBatch && (result = pcap_next_ex(pcap_.get(), &header, &bytes)) == 1) {
      api::Packet& packet = *batch.add_packets();
      packet.set_frame(bytes, header->caplen);
      packet.set_at_ns(static_cast<std::uint64_t>(header->ts.tv_sec) * 1'000'000'000 +
                       static_cast<std::uint64_t>(header->ts.tv_usec));
    }
    if (result == PCAP_ERROR) error_ = pcap_geterr(pcap_.get());
    return batch.packets_size() > 0;
  }
  [[nodiscard]] const std::string& error() const { return error_; }

 private:
  struct Close {
    void operator()(pcap_t* pcap) const { pcap_close(pcap); }
  };
  std::unique_ptr<pcap_t, Close> pcap_;
  std::string error_;
};

// "web-80 → 10.77.2.2:80, slot 17" or what became of it.
std::string fate_of(const api::WhyReply& answer) {
  std::string text = answer.has_listener() ? answer.listener() : "";
  if (answer.has_target()) text += (text.empty() ? "→ " : " → ") + answer.target();
  if (answer.pinned_elsewhere()) text += " (pinned: " + answer.pinned_because() + ")";
  return text;
}

}  // namespace

// One line a packet, for machines that of lb-replay.
int Session::why_capture() {
  auto capture = Capture::open(options_.file);
  if (!capture) return fail(capture.error());
  const bool progress = io_.terminal && !for_people();
  std::map<std::string, std::uint64_t> verdicts;
  std::uint64_t packets = 0;
  bool first = true;
  const auto next = [&](api::PacketBatch& batch) {
    if (std::exchange(first, false)) batch.set_generation(options_.generation);
    return capture->next(batch);
  };
  const auto take = [&](const api::WhyBatch& batch) {
    Table table({{"PACKET", true}, {"FROM"}, {"TO"}, {"VERDICT", false, true}, {"FLOW"}, {"WHERE", false, true}});
    for (const api::WhyReply& answer : batch.answers()) {
      const std::string verdict = answer.verdict() + (answer.has_reason() ? " " + answer.reason() : "");
      ++verdicts[verdict];
      ++packets;
      if (!for_people()) {
        io_.out << (options_.output == "yaml" ? "---\n" + to_yaml(why_document(answer))
                                              : to_json(why_document(answer), JsonLayout::line));
        continue;
      }
      table.add({std::to_string(answer.n()), answer.source().empty() ? "-" : answer.source(),
                 answer.destination().empty() ? "-" : answer.destination(),
                 Cell(verdict, answer.verdict() == "tx" ? Colour::good : Colour::warning), answer.flow(), fate_of(answer)});
    }
    if (for_people()) {
      io_.out << table.render(options_.output == "wide" ? kUnlimited : kTableColumns, view_options().colours);
    }
    if (progress) io_.err << "\r" << packets << " packets" << std::flush;
    return io_.out.good();
  };
  const auto asked = client_.why_packets(next, take);
  if (progress && packets > 0) io_.err << '\n';
  if (!asked) return fail(asked.error());
  if (!capture->error().empty())
    return fail(options_.file + ": packet " + std::to_string(packets) + ": " + capture->error());
  if (!for_people()) return kExitOk;
  std::string sum = std::to_string(packets) + " packets";
  for (const auto& [verdict, count] : verdicts)
    sum += (verdict == verdicts.begin()->first ? ": " : ", ") + std::to_string(count) + " " + verdict;
  io_.out << '\n' << wrap(sum, kTableColumns, 0);
  return kExitOk;
}

int Session::why() {
  if (!options_.file.empty()) return why_capture();
  if (options_.flow.empty()) return fail("why needs a flow, or a capture (--pcap)");
  const auto source_port = parse_port(options_.flow[2], "source port");
  if (!source_port) return fail(source_port.error());
  const auto destination_port = parse_port(options_.flow[4], "destination port");
  if (!destination_port) return fail(destination_port.error());
  api::WhyRequest request;
  request.set_protocol(options_.flow[0]);
  request.set_source(options_.flow[1]);
  request.set_source_port(*source_port);
  request.set_destination(options_.flow[3]);
  request.set_destination_port(*destination_port);
  request.set_generation(options_.generation);
  request.set_connection_id(options_.connection_id);
  const auto reply = client_.why(request);
  if (!reply) return fail(reply.error());
  io_.out << (for_people() ? view(*reply, view_options()) : machine_text(why_document(*reply)));
  return kExitOk;
}

}  // namespace lb::cli
