// Launches and dynamic shared memory, the two things that only nvcc can parse: all else in a .cu file is what the emulator compiles too.
//
//   return TS_LAUNCH((kernel<T, 4>), grid, block, shared_bytes, stream, arguments...);  // a cudaError_t
//   return TS_LAUNCH_TOGETHER(...);                                                     // all blocks resident at once, or an error
//   TS_DYNAMIC_SHARED(T, name);                                                         // T* name: the block's dynamic shared memory
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#define TS_LAUNCH(kernel, ...) ::transphere::launch<false>(#kernel, kernel, __VA_ARGS__)
#define TS_LAUNCH_TOGETHER(kernel, ...) ::transphere::launch<true>(#kernel, kernel, __VA_ARGS__)

#ifdef __CUDACC__
// One array of bytes for all types, because a template may not declare it twice with different ones.
#define TS_DYNAMIC_SHARED(T, name)                                    \
  extern __shared__ __align__(16) unsigned char ts_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(ts_dynamic_shared)
#else
#define TS_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::transphere::emulator::dynamic_shared())
#endif

namespace transphere {

template <bool Together, typename... P, typename... A>
cudaError_t launch([[maybe_unused]] const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                   [[maybe_unused]] cudaStream_t stream, A... arguments) {
  if (shared_bytes > 48 << 10) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (error != cudaSuccess) return cudaGetLastError(), error;
  }
#ifdef __CUDACC__
  cudaLaunchAttribute together;
  together.id = cudaLaunchAttributeCooperative;
  together.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared_bytes, config.stream = stream;
  config.attrs = &together, config.numAttrs = Together;
  cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...);
#else
  emulator::launch<P...>(name, kernel, grid, block, shared_bytes, Together, static_cast<P>(arguments)...);
#endif
  return cudaGetLastError();
}

// Blocks for a loop that strides over n items by the whole grid.
inline unsigned blocks_for(int64_t n, int threads) { return unsigned(std::min<int64_t>((n + threads - 1) / threads, 1 << 16)); }

}  // namespace transphere
