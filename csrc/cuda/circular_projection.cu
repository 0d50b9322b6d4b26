// One thread a few neighbouring planes of a row, as many as 16 bytes hold where P and the pointers let it, and else one.
#include "circular_projection.h"

#include "cuda/launch.cuh"
#include "cuda/planes.cuh"
#include "fastmath.h"

namespace transphere {
namespace {

constexpr int kThreads = 256;

// P and `total` = R P count WIDTH planes as one.
template <typename T, int WIDTH>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const Planes<T, WIDTH>* __restrict__ xy, Planes<T, WIDTH>* __restrict__ theta, int64_t total, int64_t P) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= total) return;
  const int64_t at = i + i / P * P;  // of x; y lies P further
  const Planes<T, WIDTH> x = xy[at], y = xy[at + P];
  Planes<T, WIDTH> angle;
#pragma unroll
  for (int j = 0; j < WIDTH; ++j) angle.value[j] = angle_turns(x.value[j], y.value[j]);
  theta[i] = angle;
}

template <typename T, int WIDTH>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const Planes<T, WIDTH>* __restrict__ grad_theta, const Planes<T, WIDTH>* __restrict__ xy,
                    Planes<T, WIDTH>* __restrict__ grad_xy, int64_t total, int64_t P) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= total) return;
  const int64_t at = i + i / P * P;
  const Planes<T, WIDTH> x = xy[at], y = xy[at + P], G = grad_theta[i];
  Planes<T, WIDTH> gx, gy;
#pragma unroll
  for (int j = 0; j < WIDTH; ++j) {
    const T r2 = x.value[j] * x.value[j] + y.value[j] * y.value[j];
    const T scale = r2 == T(0) ? T(0) : G.value[j] * T(0.15915494309189535) / r2;
    gx.value[j] = -y.value[j] * scale;
    gy.value[j] = x.value[j] * scale;
  }
  grad_xy[at] = gx;
  grad_xy[at + P] = gy;
}

}  // namespace

template <typename T>
cudaError_t circular_projection_cuda(const T* xy, T* theta, int64_t R, int64_t P, cudaStream_t stream) {
  if (R * P == 0) return cudaSuccess;
  return by_width<T>(P, {xy, theta}, [&](auto planes) {
    using V = decltype(planes);
    constexpr int kWidth = sizeof(V) / sizeof(T);
    const int64_t total = R * P / kWidth;
    return TS_LAUNCH((forward_kernel<T, kWidth>), unsigned((total + kThreads - 1) / kThreads), kThreads, 0, stream, as<const V>(xy),
                     as<V>(theta), total, P / kWidth);
  });
}

template <typename T>
cudaError_t circular_projection_backward_cuda(const T* grad_theta, const T* xy, T* grad_xy, int64_t R, int64_t P, cudaStream_t stream) {
  if (R * P == 0) return cudaSuccess;
  return by_width<T>(P, {grad_theta, xy, grad_xy}, [&](auto planes) {
    using V = decltype(planes);
    constexpr int kWidth = sizeof(V) / sizeof(T);
    const int64_t total = R * P / kWidth;
    return TS_LAUNCH((backward_kernel<T, kWidth>), unsigned((total + kThreads - 1) / kThreads), kThreads, 0, stream,
                     as<const V>(grad_theta), as<const V>(xy), as<V>(grad_xy), total, P / kWidth);
  });
}

#define TS_INSTANTIATE(T)                                                                              \
  template cudaError_t circular_projection_cuda(const T*, T*, int64_t, int64_t, cudaStream_t);        \
  template cudaError_t circular_projection_backward_cuda(const T*, const T*, T*, int64_t, int64_t, cudaStream_t);
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
