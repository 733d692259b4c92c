// Verbs that change the configuration, and those that show what it was.
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <iterator>

#include "cli/session.h"
#include "proto/api.pb.h"

namespace lb::cli {

namespace {

constexpr std::size_t kMaxFileBytes = 64U << 20U;  // what lb-cp takes in one request

}  // namespace

tl::expected<std::string, std::string> Session::read_file() const {
  std::string content;
  if (options_.file == "-") {
    content.assign(std::istreambuf_iterator<char>(io_.in), {});
  } else {
    const auto failure = [&] { return tl::unexpected("cannot read " + options_.file + ": " + std::strerror(errno)); };
    std::ifstream file(options_.file, std::ios::binary);
    if (!file) return failure();
    try {
      content.assign(std::istreambuf_iterator<char>(file), {});
    } catch (const std::ios_base::failure&) {  // a directory can be opened, but not read
      return failure();
    }
  }
  if (content.size() > kMaxFileBytes) return tl::unexpected(options_.file + " is larger than 64 MiB");
  return content;
}

tl::expected<void, std::string> Session::set_terms(api::ApplyTerms& terms) const {
  terms.set_timeout_ms(static_cast<std::uint32_t>(options_.timeout_s * 1000));
  terms.set_force(options_.force);
  if (for_people() && !view_options().wide) terms.set_max_changes(kMaxChanges);
  const std::string& text = options_.if_generation;
  if (text.empty()) return {};
  std::uint64_t epoch = 0;
  std::uint64_t generation = 0;
  const char* const end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, epoch);
  const bool dot = first.ec == std::errc{} && first.ptr != end && *first.ptr == '.';
  const auto second = dot ? std::from_chars(first.ptr + 1, end, generation) : first;
  if (!dot || second.ec != std::errc{} || second.ptr != end)
    return tl::unexpected("--if-generation: `" + text + "` is not a generation such as 1.9");
  terms.mutable_if_generation()->set_epoch(epoch);
  terms.mutable_if_generation()->set_generation(generation);
  return {};
}

int Session::show_outcome(const Client::Result<api::ApplyReply>& reply) const {
  if (!reply) return fail(reply.error());
  io_.err << warnings_text(*reply) << violations_text(*reply);
  if (!for_people()) io_.out << machine_text(to_document(*reply));
  if (reply->violations_size() > 0) return fail("nothing was changed");
  if (!reply->refused().empty()) {
    if (for_people()) io_.out << view_changes(*reply, view_options());
    return fail("nothing was changed: " + reply->refused() +
                (reply->refused().starts_with("it removes") ? "; --force does it" : ""));
  }
  if (for_people()) {
    io_.out << view_changes(*reply, view_options());
    const std::string generation = std::to_string(reply->epoch()) + "." + std::to_string(reply->generation());
    if (reply->active()) {
      io_.out << (reply->changes_size() > 0 ? "applied: " : "no changes: ") << "all workers forward by generation "
              << generation << '\n';
    } else {
      io_.out << "stored as generation " << generation << '\n';
    }
  }
  if (!reply->active())
    return fail("stored, but not in force: " + (reply->note().empty() ? "the workers have not moved to it" : reply->note()));
  return kExitOk;
}

int Session::apply() {
  const auto content = read_file();
  if (!content) return fail(content.error());
  api::ApplyRequest request;
  request.set_file(options_.file == "-" ? "stdin" : options_.file);
  request.set_text(*content);
  if (auto set = set_terms(*request.mutable_terms()); !set) return fail(set.error());
  return show_outcome(waited([&] { return client_.apply(request); }));
}

int Session::diff() {
  const auto content = read_file();
  if (!content) return fail(content.error());
  api::DiffRequest request;
  request.set_file(options_.file == "-" ? "stdin" : options_.file);
  request.set_text(*content);
  const auto reply = waited([&] { return client_.diff(request); });
  if (!reply) return fail(reply.error());
  io_.err << warnings_text(*reply) << violations_text(*reply);
  io_.out << (for_people() ? view_changes(*reply, view_options()) : machine_text(to_document(*reply)));
  if (reply->violations_size() > 0) return kExitError;
  if (reply->changes_size() > 0) return kExitDiffers;
  if (for_people()) io_.out << "no differences\n";
  return kExitOk;
}

int Session::edit_target(EditAction action) {
  api::EditRequest request;
  api::TargetEdit& edit = *(action == EditAction::add   ? request.mutable_add_target()
                            : action == EditAction::set ? request.mutable_set_target()
                                                        : request.mutable_remove_target());
  edit.set_target_group(options_.target_group);
  edit.set_target(options_.target);
  if (options_.weight) edit.set_weight(*options_.weight);
  if (auto set = set_terms(*request.mutable_terms()); !set) return fail(set.error());
  return show_outcome(waited([&] { return client_.edit(request); }));
}

int Session::edit_listener(EditAction action) {
  api::EditRequest request;
  if (action == EditAction::remove) {
    request.set_remove_listener(options_.name);
  } else {
    api::ListenerEdit& edit = *request.mutable_add_listener();
    edit.set_name(options_.name);
    edit.set_vip(options_.vip);
    edit.set_protocol(options_.protocol);
    edit.set_port(options_.port);
    edit.set_target_groups(options_.target_groups);
  }
  if (auto set = set_terms(*request.mutable_terms()); !set) return fail(set.error());
  return show_outcome(waited([&] { return client_.edit(request); }));
}

int Session::history() {
  return show([&] { return client_.history(); });
}

int Session::rollback() {
  api::RollbackRequest request;
  request.set_number(options_.number);
  if (auto set = set_terms(*request.mutable_terms()); !set) return fail(set.error());
  return show_outcome(waited([&] { return client_.rollback(request); }));
}

int Session::export_config() {
  api::ExportRequest request;
  request.set_number(options_.number);
  const auto reply = client_.export_config(request);
  if (!reply) return fail(reply.error());
  io_.out << (for_people() ? reply->text() : machine_text(to_document(*reply)));
  return kExitOk;
}

}  // namespace lb::cli
