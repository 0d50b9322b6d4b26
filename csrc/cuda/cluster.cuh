// Clusters of thread blocks (sm_90 and later): their barrier, and each other's shared memory. A kernel that uses them has a body only
// where TS_CLUSTERS is 1, and is launched by TS_LAUNCH_CLUSTERS.
#pragma once
#include <cuda_runtime.h>

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define TS_CLUSTERS 1
#else
#define TS_CLUSTERS 0
#endif

namespace transphere {

#if TS_CLUSTERS
__device__ inline int cluster_rank() { return int(__clusterRelativeBlockRank()); }
__device__ inline int cluster_size() { return int(__clusterSizeInBlocks()); }

// All threads of all blocks; what they wrote before is seen after. One must come before the first access to another block's shared memory,
// and one after the last, or the block may not have started, or may have ended.
__device__ inline void cluster_sync() {
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
}

// Where another block of the cluster has what this one has at `pointer` into its dynamic shared memory.
template <typename T>
__device__ T* in_block(int rank, T* pointer) {
  return static_cast<T*>(__cluster_map_shared_rank(pointer, unsigned(rank)));
}
#else
__device__ inline int cluster_rank() { return 0; }
__device__ inline int cluster_size() { return 1; }
__device__ inline void cluster_sync() {}
template <typename T>
__device__ T* in_block(int, T* pointer) {
  return pointer;
}
#endif

}  // namespace transphere
