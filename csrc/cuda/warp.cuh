// Reductions and scans over a warp and a block, of any shape up to 1024 threads, with the order of the operations fixed by the shape alone.
// All threads of the warp or block call them together; every thread gets the result.
#pragma once
#include <cuda_runtime.h>

namespace transphere {

struct Sum {
  template <typename T>
  __device__ T operator()(T a, T b) const { return a + b; }
};
struct Min {  // NaN if either is
  template <typename T>
  __device__ T operator()(T a, T b) const { return a < b || a != a ? a : b; }
};
struct Max {
  template <typename T>
  __device__ T operator()(T a, T b) const { return a > b || a != a ? a : b; }
};

__device__ inline int block_threads() { return int(blockDim.x * blockDim.y * blockDim.z); }
__device__ inline int thread_rank() { return int(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)); }
__device__ inline int lane_rank() { return thread_rank() % 32; }
__device__ inline int warp_rank() { return thread_rank() / 32; }
__device__ inline int block_warps() { return (block_threads() + 31) / 32; }

// The lanes there are: 32, or fewer in the last warp.
__device__ inline int warp_lanes() {
  const int left = block_threads() - 32 * warp_rank();
  return left < 32 ? left : 32;
}
__device__ inline unsigned warp_mask() { return 0xFFFFFFFFu >> (32 - warp_lanes()); }

template <typename T, typename Op>
__device__ T warp_reduce(T value, Op op) {
  const int lanes = warp_lanes(), lane = lane_rank();
  const unsigned mask = warp_mask();
  if (lanes == 32) {  // a butterfly gives all lanes the same bits, since op(a, b) and op(b, a) are
    for (int step = 16; step > 0; step /= 2) value = op(value, __shfl_xor_sync(mask, value, step));
    return value;
  }
  for (int step = 16; step > 0; step /= 2) {
    const T other = __shfl_down_sync(mask, value, step);
    if (lane + step < lanes) value = op(value, other);
  }
  return __shfl_sync(mask, value, 0);
}

// The sum over the lanes up to this one.
template <typename T>
__device__ T warp_scan(T value) {
  const unsigned mask = warp_mask();
  for (int step = 1; step < 32; step *= 2) {
    const T other = __shfl_up_sync(mask, value, step);
    if (lane_rank() >= step) value += other;
  }
  return value;
}

template <typename T, typename Op>
__device__ T block_reduce(T value, Op op) {
  __shared__ T parts[32];
  value = warp_reduce(value, op);
  if (block_warps() == 1) return value;
  __syncthreads();  // someone may still read the parts of the call before
  if (lane_rank() == 0) parts[warp_rank()] = value;
  __syncthreads();
  value = parts[0];
  for (int warp = 1; warp < block_warps(); ++warp) value = op(value, parts[warp]);
  return value;
}

// The sum over the threads up to this one, and in `total` that over the block.
template <typename T>
__device__ T block_scan(T value, T& total) {
  __shared__ T parts[32];
  const T scanned = warp_scan(value);
  __syncthreads();
  if (lane_rank() == warp_lanes() - 1) parts[warp_rank()] = scanned;
  __syncthreads();
  T before = 0;
  total = 0;
  for (int warp = 0; warp < block_warps(); ++warp) {
    if (warp == warp_rank()) before = total;
    total += parts[warp];
  }
  return before + scanned;
}

template <typename T>
__device__ T warp_sum(T value) { return warp_reduce(value, Sum()); }
template <typename T>
__device__ T warp_min(T value) { return warp_reduce(value, Min()); }
template <typename T>
__device__ T warp_max(T value) { return warp_reduce(value, Max()); }
template <typename T>
__device__ T block_sum(T value) { return block_reduce(value, Sum()); }
template <typename T>
__device__ T block_min(T value) { return block_reduce(value, Min()); }
template <typename T>
__device__ T block_max(T value) { return block_reduce(value, Max()); }

}  // namespace transphere
