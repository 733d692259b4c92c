// What is made from the command tree beside its --help: completions for shells, and the man page. Verbs, options and their
// descriptions stand in lbctl.cc alone.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace lb::cli {

// The words an option or argument may be, where there is a list of them.
using Choices = std::map<const CLI::Option*, std::vector<std::string>>;

// A script for bash, zsh or fish; empty: another shell.
std::string completion(const CLI::App& app, const Choices& choices, std::string_view shell);

// lbctl(1) as man(7) source.
std::string man_page(const CLI::App& app, std::string_view version);

}  // namespace lb::cli
