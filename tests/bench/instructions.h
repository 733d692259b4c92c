// Instructions per packet, counted by callgrind: the same on every run and machine, so that a test can hold them.
#pragma once

#include <string>

#include "dp/lb/kernel.h"

namespace lb::bench {

// Runs each main row once under valgrind (this very binary with --instruction-row, built for v3: valgrind knows no AVX-512)
// and compares with the baseline file: exit 1 above +2 %. `accept` writes the file instead.
int compare_instructions(const std::string& self, const std::string& baseline, bool accept);

// What runs under valgrind. Prints the number of packets counted.
int run_instruction_row(const Kernel& kernel, const std::string& row);

}  // namespace lb::bench
