// The running block as its threads see it. Definitions: emulator.cpp.
#pragma once
#include "emulator/runtime.h"

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace transphere::emulator {

struct Site {  // where a primitive is written: two barriers are the same if their sites are
  const char* file;
  int line;
};
#define TS_SITE const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()
#define TS_HERE \
  ::transphere::emulator::Site { file_, line_ }

enum class Operation {
  barrier, barrier_count, barrier_and, barrier_or,
  warp_barrier, shuffle, ballot, any, all, match_any, reduce_add, reduce_min, reduce_max, reduce_and, reduce_or, reduce_xor,
  cluster_barrier
};

// Waits for the block; the result of the predicates' reduction.
int meet_block(Operation operation, int predicate, Site site);

// Waits for the lanes of the mask, which must come with the same operation, mask and site. `source` is the lane that a shuffle reads.
uint64_t meet_warp(Operation operation, unsigned mask, uint64_t value, int source, Site site);

// The barrier of the block's cluster, in two halves, and another block's address of what is at one in this block's dynamic shared memory.
void arrive_at_cluster(Site site);
void wait_for_cluster(Site site);
unsigned cluster_rank();
unsigned cluster_size();  // 1 outside of a launch in clusters
void* map_shared(const void* address, unsigned rank, Site site);

// A point where another thread may go on first.
void interleave();
void yield();
void rest();  // as yield, and in a cooperative grid another block may go on
void atomic_access(const void* address, size_t bytes);  // for races.h

int lane();
unsigned garbage();  // a NaN as a float, a huge number as an integer; another one each time
void* dynamic_shared();
[[noreturn, gnu::format(printf, 2, 3)]] void fail(cudaError_t error, const char* format, ...);

}  // namespace transphere::emulator

inline void __syncthreads(TS_SITE) { transphere::emulator::meet_block(transphere::emulator::Operation::barrier, 0, TS_HERE); }
inline int __syncthreads_count(int predicate, TS_SITE) {
  return transphere::emulator::meet_block(transphere::emulator::Operation::barrier_count, predicate, TS_HERE);
}
inline int __syncthreads_and(int predicate, TS_SITE) {
  return transphere::emulator::meet_block(transphere::emulator::Operation::barrier_and, predicate, TS_HERE);
}
inline int __syncthreads_or(int predicate, TS_SITE) {
  return transphere::emulator::meet_block(transphere::emulator::Operation::barrier_or, predicate, TS_HERE);
}
inline unsigned __clusterRelativeBlockRank() { return transphere::emulator::cluster_rank(); }
inline unsigned __clusterSizeInBlocks() { return transphere::emulator::cluster_size(); }
inline void __cluster_barrier_arrive(TS_SITE) { transphere::emulator::arrive_at_cluster(TS_HERE); }
inline void __cluster_barrier_wait(TS_SITE) { transphere::emulator::wait_for_cluster(TS_HERE); }
inline void* __cluster_map_shared_rank(const void* address, unsigned rank, TS_SITE) {
  return transphere::emulator::map_shared(address, rank, TS_HERE);
}
inline void __threadfence() { asm volatile("" ::: "memory"); }
inline void __threadfence_block() { __threadfence(); }
inline void __threadfence_system() { __threadfence(); }
inline void __nanosleep(unsigned) { transphere::emulator::rest(); }
[[noreturn]] inline void __trap() { transphere::emulator::fail(cudaErrorAssert, "__trap was called"); }
