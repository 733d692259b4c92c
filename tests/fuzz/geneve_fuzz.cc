// Any bytes as the payload of UDP 6081, and any bytes as the options of a header that is in order: nothing behind the
// payload is read, options are taken only if all three stand there once, and what lb writes it reads again.
//
// Input: one byte of choices, then the payload.
#include "dp/net/geneve.h"
#include "dp/net/headers.h"
#include "tests/fuzz/bytes.h"

namespace {

using namespace lb::net;
using lb::fuzz::Block;
using lb::fuzz::Input;
using lb::fuzz::require;

constexpr std::uint16_t kClass = 0x0108;

void read(std::span<const std::uint8_t> payload) {
  const Block block(payload, 0);
  const GeneveHeader header = read_geneve(block.data, static_cast<std::uint32_t>(payload.size()));
  if (header.bytes == 0) return;
  require(header.bytes >= kGeneveBytes && header.bytes <= payload.size(), "a header is within its payload");
  GeneveOptions options;
  if (!read_geneve_options(block.data, header.bytes, kClass, options)) return;
  require(header.bytes >= kGeneveBytes + kGeneveOptionsBytes, "three options take their room");
  std::uint8_t again[kGeneveBytes + kGeneveOptionsBytes];
  write_geneve(again, kClass, options, header.inner_is_v6);
  GeneveOptions read_again;
  const GeneveHeader own = read_geneve(again, sizeof again);
  require(own.bytes == sizeof again && own.inner_is_v6 == header.inner_is_v6, "what is written is a header");
  require(read_geneve_options(again, sizeof again, kClass, read_again) && read_again == options, "with the same options");
}

void take_ecn(Input input, bool is_v6) {
  const auto bytes = input.take(is_v6 ? kIpv6Bytes : kIpv4Bytes);
  if (bytes.size() != (is_v6 ? kIpv6Bytes : kIpv4Bytes)) return;
  const Block block(bytes, 0);
  take_outer_ecn(block.data, is_v6, input.byte());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0 || size > 2048) return 0;
  const std::uint8_t choices = data[0];
  const std::span<const std::uint8_t> payload(data + 1, size - 1);
  read(payload);
  take_ecn({data + 1, size - 1}, (choices & 1) != 0);
  if ((choices & 2) == 0) return 0;
  // Options alone are the input, behind a header that is in order: as many words as a header can name.
  const std::size_t words = std::min<std::size_t>(payload.size() / 4, 63);
  std::uint8_t whole[kGeneveBytes + 63 * 4] = {static_cast<std::uint8_t>(words), 0, 0x08, 0x00};
  if (words != 0) std::memcpy(whole + kGeneveBytes, payload.data(), words * 4);
  read({whole, kGeneveBytes + words * 4});
  return 0;
}
