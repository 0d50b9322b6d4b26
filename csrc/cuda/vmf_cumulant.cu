// One thread per concentration; the arithmetic is csrc/vmf_cumulant.h, in double.
#include "vmf_cumulant.h"

#include "cuda/launch.cuh"

namespace transphere {
namespace {

template <typename T>
__global__ void vmf_cumulant_kernel(const T* __restrict__ kappa, T* __restrict__ out, int64_t n, int64_t d, int order) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x)
    out[i] = T(vmf_cumulant(double(kappa[i]), d, order));
}

}  // namespace

template <typename T>
cudaError_t vmf_cumulant_cuda(const T* kappa, T* out, int64_t n, int64_t d, int order, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  const unsigned blocks = unsigned(n < 128 * 4096 ? (n + 127) / 128 : 4096);
  return TS_LAUNCH(vmf_cumulant_kernel<T>, blocks, 128, 0, stream, kappa, out, n, d, order);
}

template cudaError_t vmf_cumulant_cuda(const float*, float*, int64_t, int64_t, int, cudaStream_t);
template cudaError_t vmf_cumulant_cuda(const double*, double*, int64_t, int64_t, int, cudaStream_t);

}  // namespace transphere
