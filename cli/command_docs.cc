#include "cli/command_docs.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>

namespace lb::cli {

namespace {

struct OptionWords {
  std::vector<std::string> names;  // with their dashes; empty: an argument
  std::string value;               // FILE; empty: a flag
  std::string description;
  std::vector<std::string> choices;
};

// One verb, or the command itself.
struct Verb {
  std::string path;  // "target add"; empty: the command
  std::string description;
  std::string footer;
  std::vector<std::pair<std::string, std::string>> verbs;  // name, description
  std::vector<OptionWords> options;
};

std::vector<const CLI::App*> verbs_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* verb) { return !verb->get_name().empty(); });
}

OptionWords words_of(const CLI::Option& option, const Choices& choices) {
  OptionWords words;
  for (const std::string& name : option.get_snames()) words.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) words.names.push_back("--" + name);
  if (words.names.empty()) {
    words.value = option.get_single_name();
  } else if (option.get_items_expected_max() != 0) {
    words.value = option.get_type_name();
  }
  words.description = option.get_description();
  if (const auto known = choices.find(&option); known != choices.end()) words.choices = known->second;
  return words;
}

// The command first, then every verb with what is below it.
void collect(const CLI::App& app, const std::string& path, const Choices& choices, std::vector<Verb>& found) {
  Verb verb{.path = path, .description = app.get_description(), .footer = app.get_footer(), .verbs = {}, .options = {}};
  for (const CLI::App* below : verbs_of(app)) verb.verbs.emplace_back(below->get_name(), below->get_description());
  for (const CLI::Option* option : app.get_options()) verb.options.push_back(words_of(*option, choices));
  found.push_back(std::move(verb));
  for (const CLI::App* below : verbs_of(app))
    collect(*below, path.empty() ? below->get_name() : path + " " + below->get_name(), choices, found);
}

std::vector<Verb> collect(const CLI::App& app, const Choices& choices) {
  std::vector<Verb> found;
  collect(app, "", choices, found);
  return found;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

// 'it'\''s'
std::string in_quotes(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

// `case` branches that follow the words typed so far down the tree of verbs; the same in bash and zsh.
std::string descent(const std::vector<Verb>& verbs) {
  std::string text = "    case \"$at/$word\" in\n";
  for (const Verb& verb : verbs) {
    if (verb.path.empty()) continue;
    const std::size_t blank = verb.path.rfind(' ');
    const std::string parent = blank == std::string::npos ? "" : verb.path.substr(0, blank);
    const std::string name = blank == std::string::npos ? verb.path : verb.path.substr(blank + 1);
    text += "      " + in_quotes(parent + "/" + name) + ") at=" + in_quotes(verb.path) + " ;;\n";
  }
  return text + "    esac\n";
}

// What the word after an option may be: `case "$previous" in … esac`.
std::string values(const std::vector<Verb>& verbs, const std::string& files, const std::string& list_before,
                   const std::string& list_after) {
  std::map<std::string, std::string> branches;  // names of an option → what to do
  for (const Verb& verb : verbs) {
    for (const OptionWords& option : verb.options) {
      if (option.names.empty() || option.value.empty()) continue;
      std::string names;
      for (const std::string& name : option.names) names += (names.empty() ? "" : "|") + name;
      if (!option.choices.empty()) {
        branches[names] = list_before + in_quotes(joined(option.choices)) + list_after;
      } else if (option.value == "FILE" || option.value == "PATH") {
        branches[names] = files;
      } else {
        branches[names] = "return";
      }
    }
  }
  std::string text = "  case \"$previous\" in\n";
  for (const auto& [names, action] : branches) text += "    " + names + ") " + action + " ;;\n";
  return text + "  esac\n";
}

// Verbs, choices of arguments, and options that may come at a place of the tree. Options of the command may stand anywhere.
std::string words_at(const Verb& verb, const Verb& root) {
  std::vector<std::string> words;
  for (const auto& [name, description] : verb.verbs) words.push_back(name);
  for (const Verb* of : {&verb, &root}) {
    for (const OptionWords& option : of->options) {
      if (option.names.empty()) words.insert(words.end(), option.choices.begin(), option.choices.end());
      words.insert(words.end(), option.names.begin(), option.names.end());
    }
    if (&verb == &root) break;
  }
  return joined(words);
}

std::string bash(const std::vector<Verb>& verbs) {
  std::string text =
      "# bash completion of lbctl, made by `lbctl completion bash`\n_lbctl() {\n"
      "  local current=\"${COMP_WORDS[COMP_CWORD]}\" previous=\"${COMP_WORDS[COMP_CWORD-1]}\" at='' word words=''\n"
      "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n" +
      descent(verbs) + "  done\n  COMPREPLY=()\n";
  text += values(verbs, "COMPREPLY=($(compgen -f -- \"$current\")); return", "COMPREPLY=($(compgen -W ",
                 " -- \"$current\")); return");
  text += "  case \"$at\" in\n";
  for (const Verb& verb : verbs)
    text += "    " + in_quotes(verb.path) + ") words=" + in_quotes(words_at(verb, verbs.front())) + " ;;\n";
  return text + "  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n}\ncomplete -F _lbctl lbctl\n";
}

std::string zsh(const std::vector<Verb>& verbs) {
  std::string text =
      "#compdef lbctl\n# zsh completion of lbctl, made by `lbctl completion zsh`\n_lbctl() {\n"
      "  local previous=\"${words[CURRENT-1]}\" at='' word\n"
      "  for word in \"${(@)words[2,CURRENT-1]}\"; do\n" +
      descent(verbs) + "  done\n";
  text += values(verbs, "_files; return", "compadd -- ${=:-", "}; return");
  text += "  local -a verbs\n  case \"$at\" in\n";
  for (const Verb& verb : verbs) {
    text += "    " + in_quotes(verb.path) + ")\n";
    if (!verb.verbs.empty()) {
      text += "      verbs=(";
      for (const auto& [name, description] : verb.verbs) text += "\n        " + in_quotes(name + ":" + description);
      text += ")\n      _describe verb verbs\n";
    }
    Verb others = verb;
    others.verbs.clear();
    Verb root = verbs.front();
    root.verbs.clear();
    text += "      compadd -- " + words_at(others, verb.path.empty() ? others : root) + " ;;\n";
  }
  return text + "  esac\n}\n_lbctl \"$@\"\n";
}

std::string fish(const std::vector<Verb>& verbs) {
  std::string text =
      "# fish completion of lbctl, made by `lbctl completion fish`\n"
      "function __lbctl_at\n  set -l at ''\n  for word in (commandline -opc)[2..-1]\n    switch \"$at/$word\"\n";
  for (const Verb& verb : verbs) {
    if (verb.path.empty()) continue;
    const std::size_t blank = verb.path.rfind(' ');
    text += "      case " +
            in_quotes((blank == std::string::npos ? "/" + verb.path
                                                  : verb.path.substr(0, blank) + "/" + verb.path.substr(blank + 1))) +
            "\n        set at " + in_quotes(verb.path) + "\n";
  }
  text += "    end\n  end\n  test \"$at\" = \"$argv[1]\"\nend\ncomplete -c lbctl -f\n";
  for (const Verb& verb : verbs) {
    const std::string when = " -n " + in_quotes("__lbctl_at '" + verb.path + "'");
    for (const auto& [name, description] : verb.verbs)
      text += "complete -c lbctl" + when + " -a " + in_quotes(name) + " -d " + in_quotes(description) + "\n";
    for (const OptionWords& option : verb.options) {
      if (option.names.empty()) {
        if (!option.choices.empty()) text += "complete -c lbctl" + when + " -a " + in_quotes(joined(option.choices)) + "\n";
        continue;
      }
      text += "complete -c lbctl" + (verb.path.empty() ? "" : when);
      for (const std::string& name : option.names)
        text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      if (!option.value.empty()) {
        text += option.value == "FILE" || option.value == "PATH" ? " -r -F" : " -x";
        if (!option.choices.empty()) text += " -a " + in_quotes(joined(option.choices));
      }
      text += " -d " + in_quotes(option.description) + "\n";
    }
  }
  return text;
}

// Text for man(7): backslashes, and dots and quotes at the start of a line, mean something there.
std::string roff(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (out.empty() || out.back() == '\n') {
      if (c == '.' || c == '\'') out += "\\&";
    }
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return out;
}

void add_options(std::string& page, const Verb& verb) {
  for (const OptionWords& option : verb.options) {
    std::string head;
    for (const std::string& name : option.names) head += (head.empty() ? "" : ", ") + ("\\fB" + roff(name) + "\\fR");
    if (!option.value.empty()) head += (head.empty() ? "" : " ") + ("\\fI" + roff(option.value) + "\\fR");
    page += ".TP\n" + head + "\n" + roff(option.description) + "\n";
  }
}

}  // namespace

std::string completion(const CLI::App& app, const Choices& choices, std::string_view shell) {
  const std::vector<Verb> verbs = collect(app, choices);
  if (shell == "bash") return bash(verbs);
  if (shell == "zsh") return zsh(verbs);
  if (shell == "fish") return fish(verbs);
  return "";
}

std::string man_page(const CLI::App& app, std::string_view version) {
  const std::vector<Verb> verbs = collect(app, {});
  std::string page = ".TH LBCTL 1 \"\" \"lb " + std::string(version) + "\" \"lb\"\n.SH NAME\nlbctl \\- " +
                     roff("show and change what the load balancer does") + "\n.SH SYNOPSIS\n.B lbctl\n" +
                     "[\\fIOPTIONS\\fR] \\fIVERB\\fR [\\fIARGUMENTS\\fR]\n.SH DESCRIPTION\n" +
                     roff(verbs.front().description) + "\n.SH OPTIONS\nThey may stand before or after the verb.\n";
  add_options(page, verbs.front());
  page += ".SH VERBS\n";
  for (const Verb& verb : verbs) {
    if (verb.path.empty() || !verb.verbs.empty()) continue;
    page += ".SS lbctl " + roff(verb.path) + "\n" + roff(verb.description) + ".\n";
    Verb own = verb;
    std::erase_if(own.options,
                  [](const OptionWords& option) { return std::ranges::find(option.names, "--help") != option.names.end(); });
    add_options(page, own);
    if (const std::size_t example = verb.footer.find("\n  "); example != std::string::npos)
      page += ".PP\nExample:\n.PP\n.EX\n" + roff(verb.footer.substr(example + 3)) + "\n.EE\n";
  }
  page +=
      ".SH EXIT STATUS\n.TP\n0\nDone.\n.TP\n1\nAn error, told on standard error.\n.TP\n2\nSomething differs (diff).\n"
      ".SH ENVIRONMENT\n.TP\nLBCTL_SOCKET\nThe socket of lb\\-cp, where \\fB\\-\\-socket\\fR is not given.\n"
      ".TP\nNO_COLOR\nNo colours, on a terminal either.\n";
  return page;
}

}  // namespace lb::cli
