// The backward, a thread a few neighbouring planes of a point (cuda/planes.cuh). The forward is circular_wasserstein.cu's.
#include "sliced_wasserstein.h"

#include "cuda/launch.cuh"
#include "cuda/planes.cuh"

namespace transphere {
namespace {

constexpr int kThreads = 256;

// P and `total` = the planes of all points of u, and as many of v, count WIDTH planes as one.
template <typename T, int WIDTH>
__global__ void __launch_bounds__(kThreads) backward_kernel(SlicedGradients<T> q, int64_t total, int64_t P) {
  using V = Planes<T, WIDTH>;
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= 2 * total) return;
  const bool of_v = i >= total;
  const int64_t at = of_v ? i - total : i, row = at / P, p = at % P, b = row / q.n, point = row % q.n + (of_v ? q.n : 0);
  const V *const z = as<const V>(of_v ? q.v : q.u) + 2 * row * P + p;
  const V x = z[0], y = z[P], grad = as<const V>(q.grad_cost)[b * P + p], cost = as<const V>(q.cost)[b * P + p];
  const uint8_t* const rises = q.rises + ((b * q.bytes() + point / 8) * P + p) * WIDTH;
  const T share = T(1) / T(q.n);
  V gx, gy;
#pragma unroll
  for (int j = 0; j < WIDTH; ++j) {
    const T slope = (grad.value[j] + T(0) * cost.value[j]) * share;
    const T scale = sliced_scale(x.value[j], y.value[j], slope, rises[j], point, q.max_grad);
    gx.value[j] = -y.value[j] * scale;
    gy.value[j] = x.value[j] * scale;
  }
  V* const grad_z = as<V>(of_v ? q.grad_v : q.grad_u) + 2 * row * P + p;
  grad_z[0] = gx;
  grad_z[P] = gy;
}

}  // namespace

template <typename T>
cudaError_t sliced_wasserstein_backward_cuda(const SlicedGradients<T>& q, int64_t rows, cudaStream_t stream) {
  if (rows * q.P == 0) return cudaSuccess;
  return by_width<T>(q.P, {q.u, q.v, q.grad_u, q.grad_v, q.grad_cost, q.cost}, [&](auto planes) {
    constexpr int kWidth = sizeof(planes) / sizeof(T);
    const int64_t total = rows * q.P / kWidth;
    return TS_LAUNCH((backward_kernel<T, kWidth>), unsigned((2 * total + kThreads - 1) / kThreads), kThreads, 0, stream, q, total,
                     q.P / kWidth);
  });
}

#define TS_INSTANTIATE(T) template cudaError_t sliced_wasserstein_backward_cuda(const SlicedGradients<T>&, int64_t, cudaStream_t);
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
