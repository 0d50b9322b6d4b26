// One thread an angle, striding over rows and planes.
#include "circular_projection.h"

#include "cuda/launch.cuh"
#include "fastmath.h"

namespace transphere {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(const T* __restrict__ xy, T* __restrict__ theta, int64_t R, int64_t P) {
  const int64_t step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < R * P; i += step) {
    const int64_t x = i / P * 2 * P + i % P;
    theta[i] = angle_turns(xy[x], xy[x + P]);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    backward_kernel(const T* __restrict__ grad_theta, const T* __restrict__ xy, T* __restrict__ grad_xy, int64_t R, int64_t P) {
  const int64_t step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < R * P; i += step) {
    const int64_t at = i / P * 2 * P + i % P;
    const T x = xy[at], y = xy[at + P], r2 = x * x + y * y;
    const T scale = r2 == T(0) ? T(0) : grad_theta[i] * T(0.15915494309189535) / r2;
    grad_xy[at] = -y * scale;
    grad_xy[at + P] = x * scale;
  }
}

}  // namespace

template <typename T>
cudaError_t circular_projection_cuda(const T* xy, T* theta, int64_t R, int64_t P, cudaStream_t stream) {
  if (R * P == 0) return cudaSuccess;
  return TS_LAUNCH(forward_kernel<T>, blocks_for(R * P, kThreads), kThreads, 0, stream, xy, theta, R, P);
}

template <typename T>
cudaError_t circular_projection_backward_cuda(const T* grad_theta, const T* xy, T* grad_xy, int64_t R, int64_t P, cudaStream_t stream) {
  if (R * P == 0) return cudaSuccess;
  return TS_LAUNCH(backward_kernel<T>, blocks_for(R * P, kThreads), kThreads, 0, stream, grad_theta, xy, grad_xy, R, P);
}

#define TS_INSTANTIATE(T)                                                                              \
  template cudaError_t circular_projection_cuda(const T*, T*, int64_t, int64_t, cudaStream_t);        \
  template cudaError_t circular_projection_backward_cuda(const T*, const T*, T*, int64_t, int64_t, cudaStream_t);
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
