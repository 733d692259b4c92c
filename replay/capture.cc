#include "replay/capture.h"

#include <pcap/pcap.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace lb::replay {
namespace {

constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
constexpr int kSnapLengthBytes = 262144;  // libpcap's own maximum

template <typename Close>
pcap_t* as_pcap(const std::unique_ptr<void, Close>& handle) {
  return static_cast<pcap_t*>(handle.get());
}

template <typename Close>
pcap_dumper_t* as_dump(const std::unique_ptr<void, Close>& handle) {
  return static_cast<pcap_dumper_t*>(handle.get());
}

// The magic number of nanosecond pcap in either byte order. pcapng says its resolution per interface; libpcap scales it.
bool has_nanosecond_magic(std::FILE* stream) {
  std::array<unsigned char, 4> magic{};
  const bool whole = std::fread(magic.data(), 1, magic.size(), stream) == magic.size();
  std::rewind(stream);
  constexpr std::array<unsigned char, 4> kBig = {0xa1, 0xb2, 0x3c, 0x4d};
  constexpr std::array<unsigned char, 4> kLittle = {0x4d, 0x3c, 0xb2, 0xa1};
  return whole && (magic == kBig || magic == kLittle);
}

}  // namespace

void CaptureReader::Close::operator()(void* pcap) const {
  pcap_close(static_cast<pcap_t*>(pcap));
}
void CaptureWriter::CloseDump::operator()(void* dump) const {
  pcap_dump_close(static_cast<pcap_dumper_t*>(dump));
}
void CaptureWriter::ClosePcap::operator()(void* pcap) const {
  pcap_close(static_cast<pcap_t*>(pcap));
}

tl::expected<CaptureReader, std::string> CaptureReader::open(const std::string& file) {
  std::FILE* stream = std::fopen(file.c_str(), "rb");
  if (stream == nullptr) return tl::unexpected(file + ": " + std::strerror(errno));
  CaptureReader reader;
  reader.file_ = file;
  reader.nanoseconds_ = has_nanosecond_magic(stream);
  std::array<char, PCAP_ERRBUF_SIZE> error{};
  pcap_t* pcap = pcap_fopen_offline_with_tstamp_precision(stream, PCAP_TSTAMP_PRECISION_NANO, error.data());
  if (pcap == nullptr) {
    std::fclose(stream);
    return tl::unexpected(file + ": " + error.data());
  }
  reader.pcap_.reset(pcap);  // owns the stream from here on
  const int link_type = pcap_datalink(pcap);
  if (link_type != DLT_EN10MB) {
    const char* name = pcap_datalink_val_to_name(link_type);
    return tl::unexpected(file + ": link type is " + (name != nullptr ? name : std::to_string(link_type)) +
                          ", only Ethernet (EN10MB) can be replayed");
  }
  return reader;
}

tl::expected<std::optional<CapturedFrame>, std::string> CaptureReader::next() {
  pcap_pkthdr* header = nullptr;
  const u_char* bytes = nullptr;
  const int result = pcap_next_ex(as_pcap(pcap_), &header, &bytes);
  if (result == PCAP_ERROR_BREAK) return std::optional<CapturedFrame>{};
  if (result != 1)
    return tl::unexpected(file_ + ": packet " + std::to_string(packets_) + ": " + pcap_geterr(as_pcap(pcap_)));
  ++packets_;
  CapturedFrame frame;
  frame.bytes = {bytes, header->caplen};
  if (header->ts.tv_sec >= 0 && header->ts.tv_usec >= 0) {
    frame.at_ns =
        static_cast<std::uint64_t>(header->ts.tv_sec) * kNsPerSecond + static_cast<std::uint64_t>(header->ts.tv_usec);
  }
  return frame;
}

tl::expected<CaptureWriter, std::string> CaptureWriter::open(const std::string& file, bool nanoseconds) {
  CaptureWriter writer;
  writer.file_ = file;
  writer.nanoseconds_ = nanoseconds;
  writer.pcap_.reset(pcap_open_dead_with_tstamp_precision(
      DLT_EN10MB, kSnapLengthBytes, nanoseconds ? PCAP_TSTAMP_PRECISION_NANO : PCAP_TSTAMP_PRECISION_MICRO));
  if (!writer.pcap_) return tl::unexpected(file + ": out of memory");
  writer.dump_.reset(pcap_dump_open(as_pcap(writer.pcap_), file.c_str()));
  if (!writer.dump_) return tl::unexpected(std::string(pcap_geterr(as_pcap(writer.pcap_))));  // names the file
  return writer;
}

void CaptureWriter::write(std::uint64_t at_ns, std::span<const std::uint8_t> frame) {
  pcap_pkthdr header{};
  const std::uint64_t fraction_ns = at_ns % kNsPerSecond;
  header.ts.tv_sec = static_cast<time_t>(at_ns / kNsPerSecond);
  header.ts.tv_usec = static_cast<suseconds_t>(nanoseconds_ ? fraction_ns : fraction_ns / 1000);
  header.caplen = static_cast<bpf_u_int32>(frame.size());
  header.len = header.caplen;
  pcap_dump(static_cast<u_char*>(dump_.get()), &header, frame.data());
}

tl::expected<void, std::string> CaptureWriter::close() {
  std::FILE* stream = pcap_dump_file(as_dump(dump_));
  const bool failed = pcap_dump_flush(as_dump(dump_)) != 0 || std::ferror(stream) != 0;
  const int error = errno;
  dump_.reset();
  if (failed) return tl::unexpected(file_ + ": " + std::strerror(error));
  return {};
}

}  // namespace lb::replay
