// Kernels that are wrong, each in one way that must be found. On a GPU some of them hang: nobody runs them there.
#include <cstdint>

#include "cuda/cluster.cuh"
#include "cuda/launch.cuh"

#define ENTRY extern "C" __attribute__((visibility("default"))) int

namespace {

__global__ void barrier_after_exit_kernel() {
  if (threadIdx.x >= 40) return;
  __syncthreads();
}

__global__ void two_barriers_kernel(int* out) {
  if (threadIdx.x < 32) {
    out[threadIdx.x] = 1;
    __syncthreads();
  } else {
    out[threadIdx.x] = 2;
    __syncthreads();
  }
}

__global__ void barrier_and_warp_kernel() {
  if (threadIdx.x <= 32)
    __syncthreads();
  else
    __syncwarp();
}

__global__ void not_in_mask_kernel(int* out) { out[threadIdx.x] = __shfl_sync(0xFFFFu, int(threadIdx.x), 0); }

__global__ void exited_lane_kernel(int* out) {
  if (threadIdx.x == 5) return;
  __syncwarp(~(1u << 5));
  out[threadIdx.x] = int(__ballot_sync(~0u, 1));
}

__global__ void absent_lane_kernel(int* out) { out[threadIdx.x] = __any_sync(~0u, 1); }

__global__ void missing_lane_kernel(int* out) {
  if (threadIdx.x != 9) out[threadIdx.x] = __shfl_xor_sync(~0u, int(threadIdx.x), 1);
}

__global__ void different_primitives_kernel(int* out) {
  if (threadIdx.x < 16)
    out[threadIdx.x] = __shfl_sync(~0u, 1, 0);
  else
    out[threadIdx.x] = __shfl_sync(~0u, 2, 0);
}

__global__ void width_kernel(int* out) { out[threadIdx.x] = __shfl_sync(~0u, 1, 0, 12); }

__global__ void outside_lane_kernel(float* out) {  // lanes 16 to 31 do not take part
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xFFFFu, 1.0f, 20);
}

__global__ void dynamic_kernel(float* out, int read, int write) {
  TS_DYNAMIC_SHARED(float, values);
  values[threadIdx.x] = 1;
  if (write && threadIdx.x == 0) values[write] = 2;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x] + values[read];
}

__global__ void static_kernel(float* out, int read) {
  __shared__ float values[32];
  values[threadIdx.x] = 1;
  __syncthreads();
  const float* pointer = values;
  out[threadIdx.x] = pointer[read];
}

__global__ void unwritten_kernel(float* out, int* integers) {
  __shared__ float floats[64];
  __shared__ int numbers[64];
  TS_DYNAMIC_SHARED(float, dynamic);
  if (threadIdx.x == 0) floats[0] = dynamic[0] = 1, numbers[0] = 1;
  __syncthreads();
  out[threadIdx.x] = floats[threadIdx.x];
  out[64 + threadIdx.x] = dynamic[threadIdx.x];
  integers[threadIdx.x] = numbers[threadIdx.x];
}

__global__ void missing_barrier_kernel(const int* x, int* out) {
  __shared__ int values[128];
  values[threadIdx.x] = x[threadIdx.x];
  out[threadIdx.x] = values[127 - threadIdx.x];
}

__global__ void missing_second_barrier_kernel(const int* x, int* out) {  // the second round overwrites what the first still reads
  __shared__ int values[128];
  int v = x[threadIdx.x];
  for (int round = 0; round < 2; ++round) {
    values[threadIdx.x] = v;
    __syncthreads();
    v = values[(threadIdx.x + 33) % 128];
  }
  out[threadIdx.x] = v;
}

__global__ void missing_syncwarp_kernel(const int* x, int* out) {
  __shared__ int values[32];
  values[threadIdx.x] = x[threadIdx.x];
  out[threadIdx.x] = values[31 - threadIdx.x];
}

// Wrong on a GPU, and right in every order of threads that run from barrier to barrier: only the search for races sees it.
__global__ void plain_counter_kernel(const int* x, int* out) {
  __shared__ int counter;
  if (threadIdx.x == 0) counter = 0;
  __syncthreads();
  counter += x[threadIdx.x];
  __syncthreads();
  if (threadIdx.x == 0) out[0] = counter;
}

__global__ void shuffle_for_barrier_kernel(const int* x, int* out) {  // a shuffle orders no memory
  __shared__ int values[32];
  values[threadIdx.x] = x[threadIdx.x];
  const int first = __shfl_sync(~0u, x[threadIdx.x], 0);
  out[threadIdx.x] = values[31 - threadIdx.x] + first;
}

__global__ void blocks_kernel(const int* x, int* out) { out[threadIdx.x] = x[threadIdx.x]; }  // each block, the same

__global__ void lost_update_kernel(int* counter) {
  const int value = counter[0];
  atomicAdd(counter + 1, 1);
  counter[0] = value + 1;
}

struct alignas(16) Four {
  int x[4];
};
__global__ void misaligned_kernel(const int* x, int* out) { *reinterpret_cast<Four*>(out) = *reinterpret_cast<const Four*>(x); }
__global__ void null_kernel(const int* x, int* out) { out[0] = x[0]; }

__device__ int deep(volatile int* x, int n) {
  volatile int local[256];
  for (int i = 0; i < 256; ++i) local[i] = x[0];
  return n == 0 ? local[0] : deep(local, n - 1) + local[n % 256];
}
__global__ void deep_kernel(int* out) { out[0] = deep(out, 10000); }

__global__ void divide_kernel(int* out) { out[threadIdx.x] = 100 / (out[threadIdx.x] - int(threadIdx.x)); }

__global__ void trap_kernel(int n) {
  if (int(threadIdx.x) == n) __trap();
  __syncthreads();
}

__global__ void nothing_kernel() {}

// In clusters of two blocks, each with 4 bytes of shared memory for each of its threads. What is wrong in the kernel of a number:
enum Wrong { nothing, block_leaves_out_a_barrier, warp_leaves_out_a_barrier, no_barrier_between, no_barrier_before, no_barrier_after,
             written_after_arriving, read_before_waiting, arrives_twice, waits_first, rank_too_high, address_not_shared };
__global__ void cluster_kernel(int* out, int wrong, int at) {
#if TS_CLUSTERS
  TS_DYNAMIC_SHARED(int, values);
  const int i = int(threadIdx.x), me = transphere::cluster_rank(), other = 1 - me;
  values[i] = 0;
  if (wrong == block_leaves_out_a_barrier && me == 1) return;
  if (wrong == warp_leaves_out_a_barrier && me == 1 && i >= 32) return;
  if (wrong == waits_first) __cluster_barrier_wait();
  if (wrong != no_barrier_before) transphere::cluster_sync();
  if (wrong == rank_too_high) values[i] = *transphere::in_block(2, values);
  if (wrong == address_not_shared) values[i] = *transphere::in_block(other, out);
  transphere::in_block(other, values)[i + at] = 1 + me;
  if (wrong == no_barrier_between) {
    __syncthreads();
  } else {
    __cluster_barrier_arrive();
    if (wrong == written_after_arriving) transphere::in_block(other, values)[i] = 5;
    if (wrong == arrives_twice) __cluster_barrier_arrive();
    if (wrong == read_before_waiting) out[me * 64 + i] = values[i];
    __cluster_barrier_wait();
  }
  out[me * 64 + i] = values[i] + *transphere::in_block(other, values + i);
  if (wrong != no_barrier_after) transphere::cluster_sync();
#endif
}
__global__ void cluster_barrier_kernel() { transphere::cluster_sync(); }

}  // namespace

ENTRY barrier_after_exit() { return TS_LAUNCH(barrier_after_exit_kernel, 1, 64, 0, nullptr); }
ENTRY two_barriers(int* out) { return TS_LAUNCH(two_barriers_kernel, 1, 64, 0, nullptr, out); }
ENTRY barrier_and_warp() { return TS_LAUNCH(barrier_and_warp_kernel, 1, 64, 0, nullptr); }
ENTRY not_in_mask(int* out) { return TS_LAUNCH(not_in_mask_kernel, 1, 32, 0, nullptr, out); }
ENTRY exited_lane(int* out) { return TS_LAUNCH(exited_lane_kernel, 1, 32, 0, nullptr, out); }
ENTRY absent_lane(int* out) { return TS_LAUNCH(absent_lane_kernel, 1, 48, 0, nullptr, out); }
ENTRY missing_lane(int* out) { return TS_LAUNCH(missing_lane_kernel, 1, 32, 0, nullptr, out); }
ENTRY different_primitives(int* out) { return TS_LAUNCH(different_primitives_kernel, 1, 32, 0, nullptr, out); }
ENTRY width(int* out) { return TS_LAUNCH(width_kernel, 1, 32, 0, nullptr, out); }
ENTRY outside_lane(float* out) { return TS_LAUNCH(outside_lane_kernel, 1, 32, 0, nullptr, out); }
ENTRY dynamic(float* out, int read, int write) { return TS_LAUNCH(dynamic_kernel, 1, 33, 33 * 4, nullptr, out, read, write); }
ENTRY static_read(float* out, int read) { return TS_LAUNCH(static_kernel, 1, 32, 0, nullptr, out, read); }
ENTRY unwritten(float* out, int* integers) { return TS_LAUNCH(unwritten_kernel, 1, 64, 64 * 4, nullptr, out, integers); }
ENTRY missing_barrier(const int* x, int* out) { return TS_LAUNCH(missing_barrier_kernel, 1, 128, 0, nullptr, x, out); }
ENTRY missing_second_barrier(const int* x, int* out) { return TS_LAUNCH(missing_second_barrier_kernel, 1, 128, 0, nullptr, x, out); }
ENTRY missing_syncwarp(const int* x, int* out) { return TS_LAUNCH(missing_syncwarp_kernel, 1, 32, 0, nullptr, x, out); }
ENTRY plain_counter(const int* x, int* out) { return TS_LAUNCH(plain_counter_kernel, 1, 128, 0, nullptr, x, out); }
ENTRY shuffle_for_barrier(const int* x, int* out) { return TS_LAUNCH(shuffle_for_barrier_kernel, 1, 32, 0, nullptr, x, out); }
ENTRY blocks(const int* x, int* out) { return TS_LAUNCH(blocks_kernel, 2, 32, 0, nullptr, x, out); }
ENTRY lost_update(int* counter) { return TS_LAUNCH(lost_update_kernel, 2, 64, 0, nullptr, counter); }
ENTRY null(const int* x, int* out) { return TS_LAUNCH(null_kernel, 1, 1, 0, nullptr, x, out); }
ENTRY misaligned(int* x, int* out, int read, int write) {
  return TS_LAUNCH(misaligned_kernel, 1, 1, 0, nullptr, x + read, out + write);
}
ENTRY deep_stack(int* out) { return TS_LAUNCH(deep_kernel, 1, 1, 0, nullptr, out); }
ENTRY divide(int* out) { return TS_LAUNCH(divide_kernel, 1, 32, 0, nullptr, out); }
ENTRY trap(int n) { return TS_LAUNCH(trap_kernel, 2, 64, 0, nullptr, n); }
ENTRY dimensions(int gx, int gy, int gz, int bx, int by, int bz, int shared_bytes) {
  return TS_LAUNCH(nothing_kernel, dim3(gx, gy, gz), dim3(bx, by, bz), shared_bytes, nullptr);
}
ENTRY cluster(int* out, int wrong, int at) { return TS_LAUNCH_CLUSTERS(2, cluster_kernel, 2, 64, 64 * 4, nullptr, out, wrong, at); }
ENTRY cluster_barrier_in_no_cluster() { return TS_LAUNCH(cluster_barrier_kernel, 2, 32, 0, nullptr); }
ENTRY clusters(int size, int blocks) { return TS_LAUNCH_CLUSTERS(size, nothing_kernel, blocks, 32, 0, nullptr); }
ENTRY last_error() { return cudaGetLastError(); }
