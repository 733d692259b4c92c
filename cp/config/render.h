// Objects back to YAML, defaults filled in. What render(Config) writes, load() reads as an equal Config.
#pragma once

#include <cstdint>
#include <string>

#include "cp/model/model.h"

namespace lb::cp {

std::string render(const SecurityGroup& group);
// A file with secrets hidden is for people: load() refuses it.
enum class Secrets : std::uint8_t { kept, hidden };
std::string render(const Config& config, Secrets secrets = Secrets::kept);
// One object as a map, as it would stand in the file's list, not indented.
std::string render(const Vip& vip);
std::string render(const Listener& listener);
std::string render(const TargetGroup& group, Secrets secrets = Secrets::kept);
std::string render(const Target& target);
std::string render(const StaticNeighbour& neighbour);

}  // namespace lb::cp
