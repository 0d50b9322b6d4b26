// A GPU in plain C++: included before a .cu file, it lets g++ compile the file unchanged.
//
//   g++ -std=c++17 -x c++ -include emulator/emulator.h -Icsrc -Icsrc/emulator/include kernel.cu
//
// The threads of a block are fibers of one OS thread, which run until they exit or reach a barrier, a warp primitive or an atomic; which goes on is
// drawn from a seed (seed 0 ascending, 1 descending). Blocks run one after another, launches in program order. What CUDA leaves undefined ends in an
// error, or in garbage that differs with the seed:
//   - a barrier or warp primitive that not all of its threads reach together; a mask without the calling lane, or with one that exited or never was;
//   - a fault (outside dynamic shared memory, through a bad pointer, a stack overflow, an integer division by zero);
//   - shared memory that was not written in this block, and a shuffle from a lane outside the mask.
// A thread that spins on memory another thread of its block must write never ends here, unless it spins on an atomic.
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
