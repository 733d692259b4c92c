// What the packet path asks of the compiler.
//
// LB_INLINE   for every function a header gives to hot code. Hot files are compiled once per instruction set; an ordinary
//             inline function would be emitted as one shared symbol by all of them, and the linker might keep the copy
//             that this CPU cannot run. Internal linkage and forced inlining rule that out.
// LB_COLD     for the rare way out of a hot function: kept out of line and away from hot code.
#pragma once

#define LB_INLINE [[gnu::always_inline]] static inline
#define LB_COLD [[gnu::noinline, gnu::cold]]

namespace lb {

// Asks for the cache line of `address` to be read soon. Any address is allowed: a prefetch never faults.
LB_INLINE void prefetch(const void* address) {
  __builtin_prefetch(address, 0, 3);
}

// As prefetch(), for a line that will be written.
LB_INLINE void prefetch_for_write(void* address) {
  __builtin_prefetch(address, 1, 3);
}

}  // namespace lb
