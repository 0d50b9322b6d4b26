// Philox on many counters at once.
#pragma once
#include "philox.h"

namespace transphere {

constexpr int kPhiloxBatch = 32;

// c (4, stride): the counters c[.][0 .. count), count a multiple of kPhiloxBatch, are overwritten by their words. In
// explicit vectors, because compilers turn no loop into the one instruction that multiplies 32 bits to 64.
void philox_lanes(PhiloxKey key, uint32_t* c, int64_t stride, int64_t count);

}  // namespace transphere
