// `trace` and `capture`: packets as workers see them, shown in words or written to a file.
#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <map>
#include <utility>

#include "cli/session.h"
#include "cli/table.h"
#include "proto/api.pb.h"

namespace lb::cli {

namespace {

constexpr std::uint32_t kMostBytes = 1984;

std::string clock_time(std::uint64_t unix_ns) {
  const auto seconds = static_cast<std::time_t>(unix_ns / 1'000'000'000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%02d:%02d:%02d.%06u", parts.tm_hour, parts.tm_min, parts.tm_sec,
                static_cast<unsigned>(unix_ns % 1'000'000'000 / 1000));
  return text.data();
}

// Two lines or more: who, and which way.
std::string trace_text(const api::TraceRecord& record, bool wide) {
  std::string head = clock_time(record.unix_ns()) + " worker " + std::to_string(record.worker()) + ": ";
  head +=
      record.protocol().empty() ? "no IP packet" : record.protocol() + " " + record.source() + " → " + record.destination();
  head += ", " + std::to_string(record.in_length()) + " bytes";
  if (!record.in_port().empty()) head += " on " + record.in_port();
  if (wide) return printable(head + ": " + record.path()) + "\n";
  return wrap(head, kTableColumns, 0) + wrap(record.path(), kTableColumns, 2);
}

// The pcapng format (IETF draft-ietf-opsawg-pcapng): blocks of 4-byte words in this machine's byte order.
class Pcapng {
 public:
  explicit Pcapng(std::ostream& out) : out_(out) {
    begin(0x0a0d0d0a);  // section header
    put32(0x1a2b3c4d);
    put16(1);
    put16(0);
    put32(0xffffffff);
    put32(0xffffffff);
    option(4, "lbctl " LB_VERSION);
    end();
  }

  // inbound: as it came; else as it left.
  void frame(const std::string& port, bool inbound, std::uint64_t unix_ns, const std::string& bytes, std::uint32_t length,
             const std::string& comment) {
    const std::uint32_t number = interface(port);
    begin(6);  // enhanced packet
    put32(number);
    put32(static_cast<std::uint32_t>(unix_ns >> 32));
    put32(static_cast<std::uint32_t>(unix_ns));
    put32(static_cast<std::uint32_t>(bytes.size()));
    put32(length);
    body_ += bytes;
    pad();
    option(1, comment);
    const std::uint32_t flags = inbound ? 1 : 2;
    option(2, {reinterpret_cast<const char*>(&flags), sizeof flags});
    end();
  }

 private:
  std::uint32_t interface(const std::string& port) {
    const auto [at, fresh] = interfaces_.try_emplace(port, static_cast<std::uint32_t>(interfaces_.size()));
    if (!fresh) return at->second;
    begin(1);  // interface description
    put16(1);  // Ethernet
    put16(0);
    put32(kMostBytes);
    option(2, port.empty() ? "lb" : port);
    option(9, std::string(1, '\x09'));  // nanoseconds
    end();
    return at->second;
  }

  void begin(std::uint32_t type) {
    type_ = type;
    body_.clear();
  }
  void put16(std::uint16_t value) { body_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void put32(std::uint32_t value) { body_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void pad() { body_.resize((body_.size() + 3) / 4 * 4); }
  void option(std::uint16_t code, const std::string& value) {
    put16(code);
    put16(static_cast<std::uint16_t>(value.size()));
    body_ += value;
    pad();
    options_ = true;
  }
  void end() {
    if (options_) put32(0);  // end of options
    options_ = false;
    const auto length = static_cast<std::uint32_t>(body_.size() + 12);
    for (const std::uint32_t word : {type_, length}) out_.write(reinterpret_cast<const char*>(&word), sizeof word);
    out_ << body_;
    out_.write(reinterpret_cast<const char*>(&length), sizeof length);
  }

  std::ostream& out_;
  std::uint32_t type_ = 0;
  bool options_ = false;
  std::string body_;
  std::map<std::string, std::uint32_t> interfaces_;
};

}  // namespace

tl::expected<void, std::string> Session::fill(api::TraceRequest& request) const {
  request.set_protocol(options_.protocol);
  request.set_client(options_.client);
  request.set_vip(options_.vip);
  request.set_verdict(options_.verdict);
  request.set_reason(options_.reason);
  request.set_packets_per_second(options_.rate);
  if (options_.port.empty()) return {};
  std::uint32_t port = 0;
  const char* const end = options_.port.data() + options_.port.size();
  const auto [at, error] = std::from_chars(options_.port.data(), end, port);
  if (error != std::errc{} || at != end || port == 0 || port > 65535)
    return tl::unexpected("--port: `" + options_.port + "` is not a port (1-65535)");
  request.set_port(port);
  return {};
}

// Hands records to `take` until there are as many as were asked for, or somebody has had enough; tells what was left out.
template <typename Take>
int Session::follow_trace(const api::TraceRequest& request, const Take& take) {
  bool armed = false;
  std::uint64_t records = 0;
  std::uint64_t lost = 0;
  std::uint64_t limited = 0;
  const auto ended = client_.trace(request, [&](const api::TraceBatch& batch) {
    if (!std::exchange(armed, true)) io_.err << "the workers write packets down; Ctrl-C ends it\n" << std::flush;
    lost += batch.lost();
    limited = batch.limited();
    for (const api::TraceRecord& record : batch.records()) {
      if (options_.count != 0 && records == options_.count) break;
      ++records;
      take(record);
    }
    io_.out.flush();
    return io_.out.good() && (options_.count == 0 || records < options_.count) && io_.wait(std::chrono::milliseconds(0));
  });
  if (lost != 0) io_.err << "lbctl: " << lost << " records were lost: written over before they were read\n";
  if (limited != 0) io_.err << "lbctl: " << limited << " more packets matched, above --rate\n";
  if (!ended) return fail(ended.error());
  return kExitOk;
}

int Session::trace() {
  api::TraceRequest request;
  if (auto filled = fill(request); !filled) return fail(filled.error());
  return follow_trace(request, [&](const api::TraceRecord& record) {
    if (for_people()) {
      io_.out << trace_text(record, options_.output == "wide");
      return;
    }
    auto document = to_document(record);
    document.erase("in_frame");  // bytes are for `capture`
    document.erase("out_frame");
    io_.out << (options_.output == "yaml" ? "---\n" + to_yaml(document) : to_json(document, JsonLayout::line));
  });
}

int Session::capture() {
  api::TraceRequest request;
  if (auto filled = fill(request); !filled) return fail(filled.error());
  request.set_snap_bytes(options_.bytes == 0 ? kMostBytes : options_.bytes);
  const bool to_output = options_.file == "-";
  std::ofstream file;
  if (!to_output) {
    file.open(options_.file, std::ios::binary | std::ios::trunc);
    if (!file) return fail("cannot write " + options_.file + ": " + std::strerror(errno));
  }
  std::ostream& out = to_output ? io_.out : file;
  Pcapng writer(out);
  std::uint64_t packets = 0;
  const int code = follow_trace(request, [&](const api::TraceRecord& record) {
    const std::string name = "packet " + std::to_string(record.worker()) + "/" + std::to_string(record.number());
    writer.frame(record.in_port(), true, record.unix_ns(), record.in_frame(), record.in_length(),
                 name + " came: " + record.path());
    if (record.out_length() != 0) {
      writer.frame(record.out_port(), false, record.unix_ns(), record.out_frame(), record.out_length(), name + " left");
    }
    ++packets;
    if (io_.terminal) io_.err << '\r' << packets << " packets" << std::flush;
  });
  if (io_.terminal && packets > 0) io_.err << '\n';
  if (!out.flush()) return fail("cannot write " + options_.file + ": " + std::strerror(errno));
  if (!io_.terminal) io_.err << packets << " packets\n";
  return code;
}

}  // namespace lb::cli
