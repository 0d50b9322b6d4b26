// One thread per concentration; the arithmetic is csrc/vmf_cumulant.h, in double.
#include "vmf_cumulant.h"

#include "cuda/launch.cuh"

namespace transphere {
namespace {

template <int ORDER, typename T>
__global__ void vmf_cumulant_kernel(const T* __restrict__ kappa, T* __restrict__ out, int64_t n, VmfDimension o) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x)
    out[i] = T(vmf_cumulant<ORDER>(double(kappa[i]), o));
}

}  // namespace

template <typename T>
cudaError_t vmf_cumulant_cuda(const T* kappa, T* out, int64_t n, const VmfDimension& o, int order, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  cudaError_t error = cudaSuccess;
  dispatch_vmf_order(order, [&](auto ORDER) {
    error = TS_LAUNCH((vmf_cumulant_kernel<decltype(ORDER)::value, T>), blocks_for(n, 128), 128, 0, stream, kappa, out, n, o);
  });
  return error;
}

template cudaError_t vmf_cumulant_cuda(const float*, float*, int64_t, const VmfDimension&, int, cudaStream_t);
template cudaError_t vmf_cumulant_cuda(const double*, double*, int64_t, const VmfDimension&, int, cudaStream_t);

}  // namespace transphere
