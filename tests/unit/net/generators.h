// Random frames for properties.
#pragma once

#include <rapidcheck.h>

#include <algorithm>

#include "tests/unit/net/frames.h"

namespace lb::net::test {

inline rc::Gen<Bytes> bytes_up_to(std::size_t limit) {
  return rc::gen::mapcat(rc::gen::inRange<std::size_t>(0, limit + 1),
                         [](std::size_t n) { return rc::gen::container<Bytes>(n, rc::gen::arbitrary<std::uint8_t>()); });
}

inline rc::Gen<Bytes> words_up_to(std::size_t limit) {
  return rc::gen::map(bytes_up_to(limit), [](Bytes bytes) {
    bytes.resize(bytes.size() / 4 * 4);
    return bytes;
  });
}

inline abi::IpAddress any_address(bool is_v6) {
  abi::IpAddress address;
  for (auto& byte : address.bytes) byte = *rc::gen::arbitrary<std::uint8_t>();
  if (is_v6) {
    address.bytes[0] = 0x20;
  } else {
    address = abi::IpAddress::v4(address.bytes[12], address.bytes[13], address.bytes[14], address.bytes[15]);
  }
  return address;
}

// Extension headers that lead to spec.protocol: destination options, routing without segments left, whole fragments.
inline void add_extensions(FrameSpec& spec) {
  const auto kinds = *rc::gen::container<std::vector<std::uint8_t>>(rc::gen::element<std::uint8_t>(43, 44, 60));
  const std::size_t count = std::min<std::size_t>(kinds.size(), kMaxExtensionHeaders);
  for (std::size_t i = 0; i < count; ++i) {
    if (i == 0) spec.first_extension = kinds[0];
    Bytes header(8, 0);
    if (kinds[i] != 44) {
      header[1] = *rc::gen::inRange<std::uint8_t>(0, 4);
      header.resize(8 + header[1] * 8U);
    }
    header[0] = i + 1 < count ? kinds[i + 1] : spec.protocol;
    put(spec.extensions, header);
  }
}

// A well-formed TCP or UDP frame with any tags, options and extension headers.
inline FrameSpec any_spec() {
  FrameSpec spec;
  spec.is_v6 = *rc::gen::arbitrary<bool>();
  spec.source = any_address(spec.is_v6);
  spec.destination = any_address(spec.is_v6);
  spec.traffic_class = *rc::gen::arbitrary<std::uint8_t>();
  spec.ttl = *rc::gen::arbitrary<std::uint8_t>();
  spec.id = *rc::gen::arbitrary<std::uint16_t>();
  spec.dont_fragment = *rc::gen::arbitrary<bool>();
  spec.protocol = *rc::gen::element<std::uint8_t>(6, 17);
  spec.source_port = *rc::gen::arbitrary<std::uint16_t>();
  spec.destination_port = *rc::gen::arbitrary<std::uint16_t>();
  spec.tcp_flags = *rc::gen::arbitrary<std::uint8_t>();
  spec.sequence = *rc::gen::arbitrary<std::uint32_t>();
  spec.acknowledgment = *rc::gen::arbitrary<std::uint32_t>();
  spec.payload = *bytes_up_to(64);
  spec.padding = *rc::gen::inRange<std::size_t>(0, 20);
  if (*rc::gen::arbitrary<bool>()) {  // half of the frames are plain
    spec.tags = *rc::gen::container<Bytes>(*rc::gen::element<std::size_t>(0, 2, 4), rc::gen::arbitrary<std::uint8_t>());
    if (spec.is_v6) {
      add_extensions(spec);
    } else {
      spec.options = *words_up_to(40);
    }
    if (spec.protocol == 6) spec.tcp_options = *words_up_to(40);
  }
  return spec;
}

}  // namespace lb::net::test
