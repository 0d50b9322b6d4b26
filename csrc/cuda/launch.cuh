// Launches and dynamic shared memory, the two things that only nvcc can parse: all else in a .cu file is what the emulator compiles too.
//
//   return TS_LAUNCH((kernel<T, 4>), grid, block, shared_bytes, stream, arguments...);  // a cudaError_t
//   return TS_LAUNCH_TOGETHER(...);                                                     // all blocks resident at once, or an error
//   return TS_LAUNCH_CLUSTERS(size, ...);                                               // so many blocks each (cluster.cuh)
//   TS_DYNAMIC_SHARED(T, name);                                                         // T* name: the block's dynamic shared memory
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>

#define TS_LAUNCH(kernel, ...) ::transphere::launch({false, 0}, #kernel, kernel, __VA_ARGS__)
#define TS_LAUNCH_TOGETHER(kernel, ...) ::transphere::launch({true, 0}, #kernel, kernel, __VA_ARGS__)
#define TS_LAUNCH_CLUSTERS(size, kernel, ...) ::transphere::launch({false, unsigned(size)}, #kernel, kernel, __VA_ARGS__)

#ifdef __CUDACC__
// One array of bytes for all types, because a template may not declare it twice with different ones.
#define TS_DYNAMIC_SHARED(T, name)                                    \
  extern __shared__ __align__(16) unsigned char ts_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(ts_dynamic_shared)
#else
#define TS_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::transphere::emulator::dynamic_shared())
#endif

namespace transphere {

struct Grouping {
  bool together;
  unsigned cluster;  // blocks along x, or 0
};

#ifdef __CUDACC__
class LaunchConfig {
 public:
  LaunchConfig(Grouping how, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream) {
    config_.gridDim = grid, config_.blockDim = block, config_.dynamicSmemBytes = shared_bytes, config_.stream = stream;
    config_.attrs = &attribute_, config_.numAttrs = how.together || how.cluster;
    if (how.cluster) {
      attribute_.id = cudaLaunchAttributeClusterDimension;
      attribute_.val.clusterDim.x = how.cluster, attribute_.val.clusterDim.y = attribute_.val.clusterDim.z = 1;
    } else {
      attribute_.id = cudaLaunchAttributeCooperative;
      attribute_.val.cooperative = 1;
    }
  }
  LaunchConfig(const LaunchConfig&) = delete;
  LaunchConfig& operator=(const LaunchConfig&) = delete;
  const cudaLaunchConfig_t* get() const { return &config_; }

 private:
  cudaLaunchAttribute attribute_{};
  cudaLaunchConfig_t config_{};
};
#endif

// What the driver was asked about a kernel on a device, and answered. A full table remembers no more.
struct Asked {
  int device;
  const void* kernel;
  unsigned cluster, threads;
  size_t shared_bytes;
};

// What a kernel must be allowed before such a launch. What one thread was allowed stays so while another asks for less.
template <typename... P>
cudaError_t allow(Grouping how, void (*kernel)(P...), size_t shared_bytes) {
  static std::mutex mutex;
  static Asked allowed[64];
  static int count = 0;
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  const void* const address = reinterpret_cast<const void*>(kernel);
  if (error == cudaSuccess && shared_bytes > 48 << 10) {
    const std::lock_guard<std::mutex> lock(mutex);
    int k = 0;
    while (k < count && !(allowed[k].device == device && allowed[k].kernel == address)) ++k;
    if (k == count || allowed[k].shared_bytes < shared_bytes) {
      error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
      if (error == cudaSuccess && k < 64) {
        allowed[k] = {device, address, 0, 0, shared_bytes};
        count = std::max(count, k + 1);
      }
    }
  }
  if (error == cudaSuccess && how.cluster > 8) error = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  return error == cudaSuccess ? error : (cudaGetLastError(), error);
}

template <typename... P, typename... A>
cudaError_t launch(Grouping how, [[maybe_unused]] const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                   [[maybe_unused]] cudaStream_t stream, A... arguments) {
  if (const cudaError_t error = allow(how, kernel, shared_bytes)) return error;
#ifdef __CUDACC__
  const LaunchConfig config(how, grid, block, shared_bytes, stream);
  const cudaError_t error = cudaLaunchKernelEx(config.get(), kernel, static_cast<P>(arguments)...);
  if (error != cudaSuccess) cudaGetLastError();  // it is reported here; errors of others are not
  return error;
#else
  emulator::launch<P...>(name, kernel, grid, block, shared_bytes, how.together, how.cluster, static_cast<P>(arguments)...);
  return cudaGetLastError();
#endif
}

// Whether the current device can hold a cluster of so many blocks, each with so much shared memory, and the kernel was built for one: what
// was built for sm_80 alone runs on later devices, without the bodies that need clusters.
template <typename... P>
bool find_clusters(unsigned size, void (*kernel)(P...), dim3 block, size_t shared_bytes) {
  int count = 0;
#ifdef __CUDACC__
  const LaunchConfig config({false, size}, size, block, shared_bytes, nullptr);
  cudaFuncAttributes built;
  const bool can = cudaFuncGetAttributes(&built, kernel) == cudaSuccess && built.ptxVersion >= 90 &&
                   allow({false, size}, kernel, shared_bytes) == cudaSuccess &&
                   cudaOccupancyMaxActiveClusters(&count, kernel, config.get()) == cudaSuccess;
#else
  const bool can = allow({false, size}, kernel, shared_bytes) == cudaSuccess &&
                   emulator::active_clusters(&count, reinterpret_cast<const void*>(kernel), size, block.x * block.y) == cudaSuccess;
#endif
  return can ? count > 0 : (cudaGetLastError(), false);
}

// The same, asked once for each device, kernel and shape: the driver takes its time.
template <typename... P>
bool has_clusters(unsigned size, void (*kernel)(P...), dim3 block, size_t shared_bytes) {
  static std::mutex mutex;
  static Asked asked[256];
  static bool answers[256];
  static int count = 0;
  int device;
  if (cudaGetDevice(&device) != cudaSuccess) return cudaGetLastError(), false;
  const Asked now{device, reinterpret_cast<const void*>(kernel), size, block.x * block.y * block.z, shared_bytes};
  const auto same = [&](const Asked& x) {
    return x.device == now.device && x.kernel == now.kernel && x.cluster == size && x.threads == now.threads && x.shared_bytes == shared_bytes;
  };
  const std::lock_guard<std::mutex> lock(mutex);
  const Asked* const known = std::find_if(asked, asked + count, same);
  if (known != asked + count) return answers[known - asked];
  const bool answer = find_clusters(size, kernel, block, shared_bytes);
  if (count < 256) asked[count] = now, answers[count++] = answer;
  return answer;
}

// Blocks for a loop that strides over n items by the whole grid.
inline unsigned blocks_for(int64_t n, int threads) { return unsigned(std::min<int64_t>((n + threads - 1) / threads, 1 << 16)); }

}  // namespace transphere
