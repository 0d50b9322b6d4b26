// What lets one source serve the host, CUDA and every x86-64 generation.
#pragma once
#include <cstdint>

// TS_CUDA: there are CUDA entry points to declare, real ones or the emulator's (csrc/emulator/emulator.h).
#if defined(TRANSPHERE_WITH_CUDA) || defined(__CUDACC__) || defined(TRANSPHERE_EMULATED)
#define TS_CUDA 1
#include <cuda_runtime_api.h>
#endif

#ifdef __CUDACC__
#define TS_HD __host__ __device__ __forceinline__
#else
#define TS_HD inline
#endif

// TS_EVERY_ISA compiles a function, and all that it inlines, for AVX-512, AVX2 and the baseline, and lets the loader pick:
// one wheel runs on any x86-64. Elsewhere (aarch64) the baseline already has its vector unit.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(TS_ONE_ISA)
#define TS_X86_LEVELS 1
#define TS_EVERY_ISA __attribute__((flatten, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TS_EVERY_ISA
#endif

// Before a loop over lanes, which the compiler may otherwise unroll into scalars (setup.py: -fopenmp-simd).
#ifdef __CUDACC__
#define TS_SIMD
#else
#define TS_SIMD _Pragma("omp simd")
#endif

namespace transphere {

constexpr int kLanes = 16;  // the CPU kernels work on arrays of this many lanes, which the compiler turns into vectors

}  // namespace transphere
