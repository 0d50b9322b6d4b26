// Kernels that are right, one or two for each thing the emulator has.
#include <cstdint>

#include "cuda/cluster.cuh"
#include "cuda/launch.cuh"
#include "cuda/warp.cuh"
#include "philox.h"

using transphere::blocks_for;

#define ENTRY extern "C" __attribute__((visibility("default"))) int

namespace {

__global__ void saxpy_kernel(float a, const float* __restrict__ x, float* y, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  y[i] += a * __ldg(x + i);
}

template <typename T>
struct Pair {
  const T* from;
  T* to;
};

// All that a block reduction gives, once for each thread: (5, threads) of sum, min, max, inclusive scan, total.
template <typename T, int kRepeat>
__global__ void reduce_kernel(Pair<T> p) {
  const int i = transphere::thread_rank(), n = transphere::block_threads();
  for (int repeat = 0; repeat < kRepeat; ++repeat) {
    const T x = p.from[i];
    T total;
    p.to[i] = transphere::block_sum(x);
    p.to[n + i] = transphere::block_min(x);
    p.to[2 * n + i] = transphere::block_max(x);
    p.to[3 * n + i] = transphere::block_scan(x, total);
    p.to[4 * n + i] = total;
  }
}

__global__ void shuffle_kernel(const int* x, int* out, int width) {  // (4, 32)
  const int i = int(threadIdx.x), v = x[i];
  out[i] = __shfl_sync(~0u, v, 3, width);
  out[32 + i] = __shfl_up_sync(~0u, v, 2, width);
  out[64 + i] = __shfl_down_sync(~0u, v, 2, width);
  out[96 + i] = __shfl_xor_sync(~0u, v, 5, width);
}

__global__ void half_warps_kernel(const double* x, double* out) {
  const int i = int(threadIdx.x);
  double v = x[i];
  if (i % 2) {
    for (int step = 16; step > 1; step /= 2) v += __shfl_xor_sync(0xAAAAAAAAu, v, step);
  } else {
    for (int step = 16; step > 1; step /= 2) v = max(v, __shfl_xor_sync(0x55555555u, v, step));
  }
  __syncwarp();
  out[i] = v;
}

__global__ void votes_kernel(const int* x, int* out) {  // (9, 32)
  const int i = int(threadIdx.x), v = x[i];
  out[i] = int(__ballot_sync(~0u, v > 0));
  out[32 + i] = __any_sync(~0u, v == 7);
  out[64 + i] = __all_sync(~0u, v < 100);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  out[96 + i] = __reduce_add_sync(~0u, v);
  out[128 + i] = __reduce_min_sync(~0u, v);
  out[160 + i] = __reduce_max_sync(~0u, v);
  out[192 + i] = int(__reduce_xor_sync(~0u, unsigned(v)));
#endif
  out[224 + i] = int(__match_any_sync(~0u, v));
  out[256 + i] = int(__activemask() >> i & 1u);
}

__global__ void barrier_votes_kernel(const int* x, int* out) {  // (3, threads)
  const int i = int(threadIdx.x), n = int(blockDim.x);
  out[i] = __syncthreads_count(x[i] > 0);
  out[n + i] = __syncthreads_and(x[i] > 0);
  out[2 * n + i] = __syncthreads_or(x[i] > 0);
}

__global__ void histogram_kernel(const int* x, int* counts, float* sums, unsigned long long* extremes, int n) {  // 16 bins
  __shared__ int local[16];
  for (int bin = int(threadIdx.x); bin < 16; bin += int(blockDim.x)) local[bin] = 0;
  __syncthreads();
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += int(gridDim.x * blockDim.x)) {
    atomicAdd(&local[x[i] % 16], 1);
    atomicAdd(&sums[x[i] % 16], float(x[i]));  // whole numbers: exact in any order
    atomicMax(&extremes[0], (unsigned long long)x[i]);
    atomicMin(&extremes[1], (unsigned long long)x[i]);
  }
  __syncthreads();
  for (int bin = int(threadIdx.x); bin < 16; bin += int(blockDim.x)) atomicAdd(&counts[bin], local[bin]);
}

// A lock, and a counter that only it protects.
__global__ void lock_kernel(int* lock, volatile int* counter) {
  while (atomicCAS(lock, 0, 1) != 0) {
  }
  __threadfence();
  *counter = *counter + 1;
  __threadfence();
  atomicExch(lock, 0);
}

// One thread waits for another one's word.
__global__ void message_kernel(int* flag, int* data, int* out, int from, int to) {
  if (int(threadIdx.x) == from) {
    *data = 5;
    __threadfence();
    atomicExch(flag, 1);
  } else if (int(threadIdx.x) == to) {
    while (atomicAdd(flag, 0) == 0) {
    }
    __threadfence();
    *out = *data;
  }
}

// The block that finishes last adds up what all wrote.
__global__ void last_block_kernel(const float* x, float* parts, unsigned* done, float* total, int n) {
  __shared__ bool last;
  float sum = 0;
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += int(gridDim.x * blockDim.x)) sum += x[i];
  sum = transphere::block_sum(sum);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = sum;
    __threadfence();
    last = atomicAdd(done, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  sum = 0;
  for (int i = int(threadIdx.x); i < int(gridDim.x); i += int(blockDim.x)) sum += parts[i];
  sum = transphere::block_sum(sum);
  if (threadIdx.x == 0) *total = sum;
}

template <typename T>
__global__ void reverse_kernel(const T* x, T* out, int n) {
  TS_DYNAMIC_SHARED(T, values);
  for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) values[i] = x[i];
  __syncthreads();
  for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) out[i] = values[n - 1 - i];
}

__global__ void transpose_kernel(const float* x, float* out, int rows, int cols) {  // blocks (8, 8)
  __shared__ float tile[8][9];
  int col = int(blockIdx.x * 8 + threadIdx.x), row = int(blockIdx.y * 8 + threadIdx.y);
  if (row < rows && col < cols) tile[threadIdx.y][threadIdx.x] = x[row * cols + col];
  __syncthreads();
  col = int(blockIdx.y * 8 + threadIdx.x), row = int(blockIdx.x * 8 + threadIdx.y);
  if (row < cols && col < rows) out[row * rows + col] = tile[threadIdx.x][threadIdx.y];
}

__global__ void indices_kernel(int* out) {
  const int block = int(blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));
  const int thread = int(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
  const int at = block * int(blockDim.x * blockDim.y * blockDim.z) + thread;
  out[at] = at + 1;
}

// Neighbours of one warp through shared memory, with no barrier of the block.
__global__ void rotate_kernel(const int* x, int* out, int rounds) {
  __shared__ int values[4][32];
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  int v = x[threadIdx.x];
  for (int round = 0; round < rounds; ++round) {
    values[warp][lane] = v;
    __syncwarp();
    v = values[warp][(lane + 1) % 32];
    __syncwarp();
  }
  out[threadIdx.x] = v;
}

// Values go round the blocks of a cluster, `rounds` blocks on, while each thread works between arriving and waiting; then the lowest block
// counts all of its cluster's values.
__global__ void cluster_kernel(const int* x, int* out, int* totals, int rounds) {
#if TS_CLUSTERS
  TS_DYNAMIC_SHARED(int, values);
  const int i = int(threadIdx.x), n = int(blockDim.x), rank = transphere::cluster_rank(), size = transphere::cluster_size();
  int* const total = values + 2 * n;
  int v = x[blockIdx.x * n + i], work = 0;
  if (i == 0) *total = 0;
  transphere::cluster_sync();
  for (int round = 0; round < rounds; ++round) {
    int* const to = values + round % 2 * n;
    transphere::in_block((rank + 1) % size, to)[i] = v;
    __cluster_barrier_arrive();
    work += round;
    __cluster_barrier_wait();
    v = to[i];
  }
  atomicAdd(transphere::in_block(0, total), v);
  transphere::cluster_sync();
  out[blockIdx.x * n + i] = v + work - rounds * (rounds - 1) / 2;
  if (i == 0 && rank == 0) totals[blockIdx.x / size] = *total;
#endif
}

// Half of the warps leave; the others still work, warp by warp.
__global__ void odd_warps_kernel(const float* x, float* out) {
  if (threadIdx.x / 32 % 2 == 0) return;
  float v = x[threadIdx.x];
  for (int step = 16; step > 0; step /= 2) v += __shfl_down_sync(~0u, v, step);
  if (threadIdx.x % 32 == 0) out[threadIdx.x / 64] = v;
}

__global__ void copy_kernel(const float4* x, float4* out, int n) {
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += int(gridDim.x * blockDim.x)) out[i] = x[i];
}

__global__ void scalars_kernel(const unsigned* x, unsigned* out, float* reals) {  // (8, 32), (3, 32)
  const unsigned i = threadIdx.x, v = x[i];
  out[i] = unsigned(__popc(v));
  out[32 + i] = unsigned(__clz(int(v)));
  out[64 + i] = unsigned(__ffs(int(v)));
  out[96 + i] = __umulhi(v, 0xD2511F53u);
  out[128 + i] = __brev(v);
  out[160 + i] = __float_as_uint(__uint_as_float(v & 0x3FFFFFFFu));
  out[192 + i] = min(v, 1000u);
  out[224 + i] = unsigned(__popcll((unsigned long long)v << 32 | v));
  const float f = float(v >> 8) + 1;
  reals[i] = rsqrtf(f);
  sincospif(f / 4, &reals[32 + i], &reals[64 + i]);
}

// rows (n, 6) of key and counter, words (n, 4)
__global__ void philox_kernel(const uint32_t* rows, uint32_t* words, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  const uint32_t* r = rows + 6 * i;
  const transphere::Words found = transphere::philox({r[0], r[1]}, r[2], r[3], r[4], r[5]);
  for (int k = 0; k < 4; ++k) words[4 * i + k] = found.w[k];
}

}  // namespace

ENTRY saxpy(float a, const float* x, float* y, int n) { return TS_LAUNCH(saxpy_kernel, blocks_for(n, 96), 96, 0, nullptr, a, x, y, n); }

#define REDUCE(T, name) \
  ENTRY reduce_##name(const T* x, T* out, int bx, int by, int bz) { \
    return TS_LAUNCH((reduce_kernel<T, 2>), 1, dim3(bx, by, bz), 0, nullptr, Pair<T>{x, out}); \
  } \
  ENTRY reverse_##name(const T* x, T* out, int n) { return TS_LAUNCH(reverse_kernel<T>, 1, 128, n * sizeof(T), nullptr, x, out, n); }
REDUCE(float, float32)
REDUCE(double, float64)
REDUCE(int, int32)
REDUCE(long long, int64)

ENTRY shuffles(const int* x, int* out, int width) { return TS_LAUNCH(shuffle_kernel, 1, 32, 0, nullptr, x, out, width); }
ENTRY half_warps(const double* x, double* out) { return TS_LAUNCH(half_warps_kernel, 1, 32, 0, nullptr, x, out); }
ENTRY votes(const int* x, int* out) { return TS_LAUNCH(votes_kernel, 1, 32, 0, nullptr, x, out); }
ENTRY barrier_votes(const int* x, int* out, int threads) { return TS_LAUNCH(barrier_votes_kernel, 1, threads, 0, nullptr, x, out); }
ENTRY histogram(const int* x, int* counts, float* sums, unsigned long long* extremes, int n) {
  return TS_LAUNCH(histogram_kernel, 3, 64, 0, nullptr, x, counts, sums, extremes, n);
}
ENTRY lock(int* lock, int* counter) { return TS_LAUNCH(lock_kernel, 3, 70, 0, nullptr, lock, counter); }
ENTRY message(int* flag, int* data, int* out, int from, int to) {
  return TS_LAUNCH(message_kernel, 1, 64, 0, nullptr, flag, data, out, from, to);
}
ENTRY last_block(const float* x, float* parts, unsigned* done, float* total, int n) {
  return TS_LAUNCH(last_block_kernel, 7, 96, 0, nullptr, x, parts, done, total, n);
}
ENTRY transpose(const float* x, float* out, int rows, int cols) {
  return TS_LAUNCH(transpose_kernel, dim3((cols + 7) / 8, (rows + 7) / 8), dim3(8, 8), 0, nullptr, x, out, rows, cols);
}
ENTRY indices(int* out, int gx, int gy, int gz, int bx, int by, int bz) {
  return TS_LAUNCH(indices_kernel, dim3(gx, gy, gz), dim3(bx, by, bz), 0, nullptr, out);
}
ENTRY rotate(const int* x, int* out, int rounds) { return TS_LAUNCH(rotate_kernel, 1, 128, 0, nullptr, x, out, rounds); }
ENTRY clusters(const int* x, int* out, int* totals, int size, int count, int rounds) {
  return TS_LAUNCH_CLUSTERS(size, cluster_kernel, size * count, 40, 81 * sizeof(int), nullptr, x, out, totals, rounds);
}
ENTRY odd_warps(const float* x, float* out) { return TS_LAUNCH(odd_warps_kernel, 1, 256, 0, nullptr, x, out); }
ENTRY copy(const float4* x, float4* out, int n) { return TS_LAUNCH(copy_kernel, 2, 32, 0, nullptr, x, out, n); }
ENTRY scalars(const unsigned* x, unsigned* out, float* reals) { return TS_LAUNCH(scalars_kernel, 1, 32, 0, nullptr, x, out, reals); }

ENTRY philox_words(const uint32_t* rows, uint32_t* words, int n) {
  return TS_LAUNCH(philox_kernel, blocks_for(n, 32), 32, 0, nullptr, rows, words, n);
}
