// Forward: a warp a point for the norms, then a warp for 32 entries of a row; the few entries that cancelled are computed again by the whole
// warp, one after another. Backward: a block a strip of rows, which leaves its column sums for a second launch: no atomics, so the same bits always.
#include "mahalanobis_cost.h"

#include "cuda/launch.cuh"
#include "cuda/warp.cuh"

namespace transphere {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) norms_kernel(MahalanobisCost<T> q) {
  const int64_t points = q.B * (q.n + q.m);
  for (int64_t i = int64_t(blockIdx.x) * kWarps + warp_rank(); i < points; i += int64_t(gridDim.x) * kWarps) {
    const T *z = q.z + i * q.d, *zM = q.zM + i * q.d;
    T p = 0, a = 0;
    for (int64_t k = lane_rank(); k < q.d; k += 32) {
      const T term = z[k] * zM[k];
      p += term;
      a += fabs(term);
    }
    p = warp_sum(p);
    a = warp_sum(a);
    if (lane_rank() == 0) q.norms[i] = p, q.norms[points + i] = a;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) cost_kernel(MahalanobisCost<T> q) {
  const int64_t chunks = (q.m + 31) / 32, points = q.B * (q.n + q.m), lane = lane_rank();
  for (int64_t item = int64_t(blockIdx.x) * kWarps + warp_rank(); item < q.B * q.n * chunks; item += int64_t(gridDim.x) * kWarps) {
    const int64_t row = item / chunks, j = item % chunks * 32 + lane, first = row / q.n * (q.n + q.m), x = first + row % q.n;
    const int64_t y = first + q.n + (j < q.m ? j : q.m - 1);
    const T *p = q.norms, *a = q.norms + points;
    const T value = p[x] + p[y] - 2 * q.G[row * q.m + (j < q.m ? j : q.m - 1)], size = T(kCancelled) * (a[x] + a[y]);
    T safe = value > size ? value : T(0);
    const bool lost = j < q.m && !(value > size || value < -size);  // also where it is NaN
    for (unsigned left = __ballot_sync(0xFFFFFFFFu, lost); left; left &= left - 1) {
      const int who = __ffs(int(left)) - 1;
      const int64_t at = __shfl_sync(0xFFFFFFFFu, y, who) * q.d;
      T exact = 0;
      for (int64_t k = lane; k < q.d; k += 32) exact += (q.z[x * q.d + k] - q.z[at + k]) * (q.zM[x * q.d + k] - q.zM[at + k]);
      exact = warp_sum(exact);
      if (lane == who) safe = exact < T(0) ? T(0) : exact;
    }
    if (j < q.m) q.cost[row * q.m + j] = q.squared ? safe : sqrt(safe);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) slope_kernel(MahalanobisSlope<T> q, int64_t strips) {
  for (int64_t item = blockIdx.x; item < q.B * strips; item += gridDim.x) {
    const int64_t b = item / strips, first = item % strips * kStrip;
    T row_sum[kStrip] = {};
    for (int64_t j = threadIdx.x; j < q.m; j += kThreads) {
      T column = 0;
#pragma unroll
      for (int r = 0; r < kStrip; ++r) {
        if (first + r >= q.n) continue;
        const int64_t at = (b * q.n + first + r) * q.m + j;
        const T cost = q.cost[at], grad = q.grad[at];
        const T W = cost == T(0) ? T(0) : q.squared ? grad : T(0.5) * grad / cost;
        q.W[at] = W;
        row_sum[r] += W;
        column += W;
      }
      q.partial[item * q.m + j] = column;
    }
#pragma unroll
    for (int r = 0; r < kStrip; ++r) {
      const T sum = block_sum(row_sum[r]);
      if (threadIdx.x == 0 && first + r < q.n) q.rows[b * q.n + first + r] = sum;
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) columns_kernel(MahalanobisSlope<T> q, int64_t strips) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < q.B * q.m; i += int64_t(gridDim.x) * kThreads) {
    const T* partial = q.partial + i / q.m * strips * q.m + i % q.m;
    T sum = 0;
    for (int64_t s = 0; s < strips; ++s) sum += partial[s * q.m];
    q.columns[i] = sum;
  }
}

}  // namespace

template <typename T>
cudaError_t mahalanobis_cost_cuda(const MahalanobisCost<T>& q, cudaStream_t stream) {
  if (q.B * q.n * q.m == 0) return cudaSuccess;
  const cudaError_t error = TS_LAUNCH(norms_kernel<T>, blocks_for(q.B * (q.n + q.m), kWarps), kThreads, 0, stream, q);
  if (error != cudaSuccess) return error;
  return TS_LAUNCH(cost_kernel<T>, blocks_for(q.B * q.n * ((q.m + 31) / 32), kWarps), kThreads, 0, stream, q);
}

template <typename T>
cudaError_t mahalanobis_cost_backward_cuda(const MahalanobisSlope<T>& q, cudaStream_t stream) {
  const int64_t strips = (q.n + kStrip - 1) / kStrip;
  if (q.B * strips > 0) {
    const cudaError_t error = TS_LAUNCH(slope_kernel<T>, blocks_for(q.B * strips, 1), kThreads, 0, stream, q, strips);
    if (error != cudaSuccess) return error;
  }
  if (q.B * q.m == 0) return cudaSuccess;
  return TS_LAUNCH(columns_kernel<T>, blocks_for(q.B * q.m, kThreads), kThreads, 0, stream, q, strips);
}

#define TS_INSTANTIATE(T)                                                                   \
  template cudaError_t mahalanobis_cost_cuda(const MahalanobisCost<T>&, cudaStream_t);     \
  template cudaError_t mahalanobis_cost_backward_cuda(const MahalanobisSlope<T>&, cudaStream_t);
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
