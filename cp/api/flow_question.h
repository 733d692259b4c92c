// The two ends of `why`: the request as a flow key, and the answer with names instead of indices.
#pragma once

#include <string>
#include <tl/expected.hpp>

#include "cp/api/operations.h"
#include "cp/explain/why.h"

namespace lb::api {
class WhyReply;
class WhyRequest;
}  // namespace lb::api

namespace lb::cp {

struct BadField {
  std::string field;  // of WhyRequest
  std::string text;
};

tl::expected<net::FlowKey, BadField> read_flow(const api::WhyRequest& request);
// Its connection ID; empty: none is given.
tl::expected<std::vector<std::uint8_t>, BadField> read_connection_id(const api::WhyRequest& request);
tl::expected<HistoryPoint, BadField> read_point(const std::string& text);  // 1.9 or 12
void fill_reply(api::WhyReply& reply, const explain::Context& context, const net::FlowKey& key,
                const explain::Answer& answer);

}  // namespace lb::cp
