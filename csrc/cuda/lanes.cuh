// Groups of LANES neighbouring threads, a power of two: part of a warp, a warp, or several warps of a block. Blocks are whole warps in one
// dimension, at most 512 threads; all threads of a block call together, and the order of the operations is fixed by LANES alone.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace transphere {

constexpr int kMostWarps = 16;

template <int LANES>
__device__ int group_lane() { return int(threadIdx.x) % LANES; }

// Orders the group's accesses to shared memory.
template <int LANES>
__device__ void group_sync() {
  if constexpr (LANES > 32) __syncthreads();
  else __syncwarp();
}

template <int LANES, typename T>
__device__ T group_sum(T value) {
  for (int step = (LANES < 32 ? LANES : 32) / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, step);
  if constexpr (LANES > 32) {
    __shared__ T parts[kMostWarps];
    __syncthreads();  // someone may still read the parts of the call before
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    const T* const mine = parts + threadIdx.x / LANES * (LANES / 32);
    value = mine[0];
    for (int warp = 1; warp < LANES / 32; ++warp) value += mine[warp];
  }
  return value;
}

// The sum over the lanes before this one, and that over all.
template <int LANES, typename T>
__device__ T group_scan(T value, T& total) {
  constexpr int kWidth = LANES < 32 ? LANES : 32;
  const int lane = int(threadIdx.x) % kWidth;
  T sum = value;
  for (int step = 1; step < kWidth; step *= 2) {
    const T other = __shfl_up_sync(0xFFFFFFFFu, sum, step, kWidth);
    if (lane >= step) sum += other;
  }
  total = __shfl_sync(0xFFFFFFFFu, sum, kWidth - 1, kWidth);
  T before = __shfl_up_sync(0xFFFFFFFFu, sum, 1, kWidth);
  if (lane == 0) before = 0;
  if constexpr (LANES > 32) {
    __shared__ T parts[kMostWarps];
    __syncthreads();
    if (lane == 0) parts[threadIdx.x / 32] = total;
    __syncthreads();
    const T* const mine = parts + threadIdx.x / LANES * (LANES / 32);
    T ahead = total = 0;
    for (int warp = 0; warp < LANES / 32; ++warp) {
      if (warp == int(threadIdx.x) % LANES / 32) ahead = total;
      total += mine[warp];
    }
    before += ahead;
  }
  return before;
}

// The value of the next lane, cyclically, and that of the group's first one.
template <int LANES, typename T>
__device__ T group_next(T value, T& first) {
  constexpr int kWidth = LANES < 32 ? LANES : 32;
  const int lane = int(threadIdx.x) % kWidth;
  first = __shfl_sync(0xFFFFFFFFu, value, 0, kWidth);
  T next = __shfl_sync(0xFFFFFFFFu, value, lane + 1, kWidth);  // the source counts modulo the width
  if constexpr (LANES > 32) {
    __shared__ T firsts[kMostWarps];
    __syncthreads();
    if (lane == 0) firsts[threadIdx.x / 32] = value;
    __syncthreads();
    const int warp = int(threadIdx.x) / 32, group = warp / (LANES / 32) * (LANES / 32);
    first = firsts[group];
    if (lane == 31) next = firsts[group + (warp + 1) % (LANES / 32)];
  }
  return next;
}

// Keys j and j ^ partner of this thread in order, for every j without `bit`.
template <int KEYS, typename Key>
__device__ __forceinline__ void compare(Key (&key)[KEYS], int bit, int partner) {
#pragma unroll
  for (int j = 0; j < KEYS; ++j)
    if (!(j & bit)) {
      const Key a = key[j], b = key[j ^ partner];
      key[j] = a < b ? a : b;
      key[j ^ partner] = a < b ? b : a;
    }
}

// Key j of this thread against key `flip ? KEYS - 1 - j : j` of the thread at `lanes` by exclusive or.
template <int LANES, int KEYS, typename Key>
__device__ __forceinline__ void exchange(Key (&key)[KEYS], int lanes, bool flip, [[maybe_unused]] Key* through) {
  const int lane = group_lane<LANES>();
  const bool low = lane < (lane ^ lanes);
  Key other[KEYS];
  if (LANES > 32 && lanes >= 32) {
    const int threads = int(blockDim.x);
    for (int j = 0; j < KEYS; ++j) through[j * threads + int(threadIdx.x)] = key[j];
    __syncthreads();
#pragma unroll
    for (int j = 0; j < KEYS; ++j) other[j] = through[(flip ? KEYS - 1 - j : j) * threads + (int(threadIdx.x) ^ lanes)];
    __syncthreads();
  } else {
#pragma unroll
    for (int j = 0; j < KEYS; ++j) other[j] = __shfl_xor_sync(0xFFFFFFFFu, flip ? key[KEYS - 1 - j] : key[j], lanes);
  }
#pragma unroll
  for (int j = 0; j < KEYS; ++j) key[j] = low ? min(key[j], other[j]) : max(key[j], other[j]);
}

// Sorts the group's LANES * KEYS keys so that thread l holds those from l * KEYS on: the bitonic network in the form that begins each merge
// by comparing the first key with the last, and so has no descending half. `through` is shared memory for the keys of a block that nobody
// else uses now, where LANES > 32.
template <int LANES, int KEYS, typename Key>
__device__ __forceinline__ void group_sort(Key (&key)[KEYS], Key* through) {
#pragma unroll
  for (int size = 2; size <= KEYS; size *= 2) {
    compare(key, size / 2, size - 1);
#pragma unroll
    for (int stride = size / 4; stride > 0; stride /= 2) compare(key, stride, stride);
  }
#pragma unroll (LANES <= 32 ? 8 : 1)
  for (int lanes = 2; lanes <= LANES; lanes *= 2) {
    exchange<LANES>(key, lanes - 1, true, through);
#pragma unroll (LANES <= 32 ? 8 : 1)
    for (int step = lanes / 4; step > 0; step /= 2) exchange<LANES>(key, step, false, through);
#pragma unroll
    for (int stride = KEYS / 2; stride > 0; stride /= 2) compare(key, stride, stride);
  }
}

}  // namespace transphere
