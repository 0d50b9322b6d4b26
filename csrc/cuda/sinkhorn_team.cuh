// The blocks that work on one problem: one; a cluster, which meets at the hardware's barrier and reads each other's shared memory; or
// several of a cooperative launch, all resident at once, which meet at a counter in device memory. Each block has rows of its own.
#pragma once
#include "cuda/cluster.cuh"
#include "cuda/launch.cuh"
#include "cuda/warp.cuh"

namespace transphere {

enum class Span { block, cluster, grid };

constexpr int kSinkhornThreads = 256;  // at most: few, with many registers each
constexpr int kSinkhornWarps = kSinkhornThreads / 32;
constexpr int kMostInCluster = 16;
constexpr int kMostInGrid = 128;
constexpr int kSums = 16;

// What the blocks of one problem share in device memory.
struct Meeting {
  unsigned arrived;  // ever since the launch; 0 before it
  double parts[2][kMostInGrid];
  double sums[kMostInGrid][kSums];
};

// A block's partial results, in its shared memory.
struct Reductions {
  double warps[2][kSinkhornWarps];
  double blocks[2][kMostInCluster];  // those of all blocks of its cluster
  double warp_sums[kSinkhornWarps][kSums], block_sums[kMostInCluster][kSums], sums[kSums];
};

template <Span S>
class Team {
 public:
  const int rank, size;
  __device__ Team(int rank, int size, Reductions* own, Meeting* meeting)
      : rank(rank), size(S == Span::block ? 1 : size), own_(own), meeting_(meeting) {}

  // All threads of all blocks; what they wrote before is seen after.
  __device__ __forceinline__ void sync() {
    if constexpr (S == Span::cluster) return cluster_sync();
    __syncthreads();
    if constexpr (S == Span::grid) {
      if (size == 1) return;
      if (threadIdx.x == 0) {
        arrivals_ += unsigned(size);
        __threadfence();
        atomicAdd(&meeting_->arrived, 1u);
        while (int(atomicAdd(&meeting_->arrived, 0u) - arrivals_) < 0) __nanosleep(32);
        __threadfence();
      }
      __syncthreads();
    }
  }

  // The same bits for every thread; orders memory as sync() does. Two buffers alternate: whoever writes one again has met all readers.
  template <typename Op>
  __device__ __forceinline__ double reduce(double x, Op op) {
    x = warp_reduce(x, op);
    turn_ ^= 1;
    const double* const warps = own_->warps[turn_];
    if (lane_rank() == 0) own_->warps[turn_][warp_rank()] = x;
    __syncthreads();
    x = warps[0];
#pragma unroll 4
    for (int warp = 1; warp < block_warps(); ++warp) x = op(x, warps[warp]);
    return across(x, op);
  }
  __device__ double sum(double x) { return reduce(x, Sum()); }
  __device__ double min(double x) { return reduce(x, Min()); }
  __device__ __forceinline__ bool any(bool x) {
    const bool mine = __syncthreads_or(x);
    if constexpr (S == Span::block) return mine;
    turn_ ^= 1;
    return across(mine ? 1.0 : 0.0, Max()) > 0;
  }

  // kSums sums over the team, of which each lane has its warp's part of one, lane / 2. They stay until the next call.
  __device__ __forceinline__ const double* sums(double part) {
    if (lane_rank() % 2 == 0) own_->warp_sums[warp_rank()][lane_rank() / 2] = part;
    __syncthreads();
    // A value for each block: those of a cluster are sent to all of its blocks.
    for (int k = threadIdx.x; k < (S == Span::cluster ? size : 1) * kSums; k += blockDim.x) {
      double sum = own_->warp_sums[0][k % kSums];
      for (int warp = 1; warp < block_warps(); ++warp) sum += own_->warp_sums[warp][k % kSums];
      if constexpr (S == Span::block) own_->sums[k] = sum;
      if constexpr (S == Span::cluster) *in_block(k / kSums, &own_->block_sums[rank][k % kSums]) = sum;
      if constexpr (S == Span::grid) meeting_->sums[rank][k] = sum;
    }
    sync();
    if constexpr (S == Span::block) return own_->sums;
    if (threadIdx.x < kSums) {
      const double(*const all)[kSums] = S == Span::cluster ? own_->block_sums : meeting_->sums;
      double sum = all[0][threadIdx.x];
#pragma unroll 4
      for (int block = 1; block < size; ++block) sum += all[block][threadIdx.x];
      own_->sums[threadIdx.x] = sum;
    }
    __syncthreads();
    return own_->sums;
  }

  // Entry *x of a vector that all blocks read after the next barrier: a cluster has a copy in each block.
  template <typename A>
  __device__ void put(A* x, A value) const {
    if constexpr (S == Span::cluster) {
      for (int block = 0; block < size; ++block) *in_block(block, x) = value;
    } else {
      *x = value;
    }
  }

  __device__ bool leads() const { return rank == 0 && threadIdx.x == 0; }

 private:
  Reductions* const own_;
  Meeting* const meeting_;
  unsigned arrivals_ = 0;
  int turn_ = 0;

  // What the blocks have, each the same in all of its threads.
  template <typename Op>
  __device__ __forceinline__ double across(double x, Op op) {
    if (S == Span::block || size == 1) return x;
    const double* all;
    if constexpr (S == Span::cluster) {
      double* const mine = own_->blocks[turn_];
      if (int(threadIdx.x) < size) *in_block(int(threadIdx.x), mine + rank) = x;
      all = mine;
    } else {
      double* const shared = meeting_->parts[turn_];
      if (threadIdx.x == 0) shared[rank] = x;
      all = shared;
    }
    sync();
    x = all[0];
#pragma unroll 4
    for (int block = 1; block < size; ++block) x = op(x, all[block]);
    return x;
  }
};

}  // namespace transphere
