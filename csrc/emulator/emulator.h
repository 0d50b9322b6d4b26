// A GPU in plain C++: included before a .cu file, it lets g++ compile the file unchanged.
//
//   g++ -std=c++17 -x c++ -include emulator/emulator.h -Icsrc -Icsrc/emulator/include kernel.cu
//
// The threads of a block are fibers of one OS thread, which run until they exit or reach a barrier, a warp primitive or an atomic; who
// goes on is drawn from a seed (0: ascending, 1: descending). Blocks run one after another; those of a cooperative launch or of a
// cluster in turns, from one __nanosleep or barrier of the cluster to the next; launches in program order. What CUDA leaves undefined
// ends in an error, or in garbage that differs with the seed:
//   - a barrier or warp primitive that its threads do not reach together; a mask without the caller, or with a lane that has exited;
//   - a barrier of a cluster that one of its threads does not reach, arrives at twice, or waits for without having arrived;
//   - a race (races.h), in files compiled with -fsanitize=thread; in these also an access to another block's shared memory that no barrier
//     of the cluster parts from that block's beginning and end;
//   - a fault: outside dynamic shared memory, through a bad pointer, a full stack, an integer division by zero;
//   - shared memory that was not written in this block, and a shuffle from a lane outside the mask.
// Stricter than CUDA: threads that exited count as missing at a barrier and in a mask, __activemask() is the calling lane alone, and only
// dynamic shared memory can be mapped to another block of a cluster.
// A thread that waits for another one of its block by reading memory, not by an atomic, never ends here.
//
// The launch returns an error code; cudaGetErrorString gives the whole message for the latest error.
#pragma once
#define TRANSPHERE_EMULATED 1

#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulator/atomics.h"
#include "emulator/device.h"
#include "emulator/launch.h"
#include "emulator/runtime.h"
#include "emulator/warp.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ __inline__ __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

// Thread-local variables share one segment, which is filled with garbage before each block. AddressSanitizer guards ordinary statics only.
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static
#else
#define __shared__ static thread_local
#endif
