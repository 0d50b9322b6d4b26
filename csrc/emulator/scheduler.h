// One grid at a time: its blocks, their threads, and where these meet. Only emulator.cpp includes this.
#pragma once
#include <pthread.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "emulator/block.h"
#include "emulator/faults.h"
#include "emulator/fiber.h"
#include "emulator/launch.h"
#include "emulator/memory.h"
#include "emulator/order.h"
#include "emulator/races.h"
#include "emulator/text.h"

namespace transphere::emulator {

constexpr const char* kNames[] = {"__syncthreads",     "__syncthreads_count", "__syncthreads_and", "__syncthreads_or",
                                  "__syncwarp",        "a shuffle",           "__ballot_sync",     "__any_sync",
                                  "__all_sync",        "__match_any_sync",    "__reduce_add_sync", "__reduce_min_sync",
                                  "__reduce_max_sync", "__reduce_and_sync",   "__reduce_or_sync",  "__reduce_xor_sync",
                                  "a barrier of the cluster"};

struct Thread {
  enum State : uint8_t { fresh, ready, at_block, at_warp, at_cluster, exited } state;
  Context context;
  std::unique_ptr<Stack> stack;
  uint3 index;
  // What it waits for, and what it got.
  Operation operation;
  Site site;
  unsigned mask;
  int source;
  uint64_t value, result;

  bool meets(const Thread& other) const {
    return state == other.state && operation == other.operation && mask == other.mask && site.line == other.site.line &&
           (site.file == other.site.file || !strcmp(site.file, other.site.file));
  }
};

// A block of a cooperative grid or of a cluster while it is another one's turn.
struct Resting {
  uint3 index;
  std::vector<Thread> threads;
  Ready ready;
  int waiting, exited;
  std::unique_ptr<DynamicShared> shared;
  std::vector<char> statics;
  Races::Block races;
};

class Scheduler {
 public:
  static Scheduler& instance() {
    static Scheduler scheduler;
    return scheduler;
  }

  // The grid's first error, or success.
  cudaError_t run(const Launch& launch, uint64_t seed, std::string& message);

  // Whether a kernel is the caller: not its host, and not another OS thread.
  bool running() const { return pthread_equal(owner_, pthread_self()) && running_; }
  int rank() const { return int(running_ - threads_.data()); }
  Random& random() { return random_; }
  DynamicShared& shared() { return *shared_; }
  bool ordered() const { return seed_ < 2; }

  int meet_block(Operation operation, int predicate, Site site);
  uint64_t meet_warp(Operation operation, unsigned mask, uint64_t value, int source, Site site);
  void wait(Thread::State state, bool last = false);  // gives the turn back
  void rest();                                        // to another block too, of a cooperative grid or a cluster

  void arrive_at_cluster(Site site);
  void wait_for_cluster(Site site);
  unsigned cluster_rank() const { return launch_->cluster ? unsigned(turn_) : 0; }
  unsigned cluster_size() const { return launch_->cluster ? launch_->cluster : 1; }
  void* map_shared(const void* address, unsigned rank, Site site);

  void access(const void* address, size_t bytes, bool write, bool atomic, const void* code);
  void check_aligned(const void* address, size_t bytes);

  void note(cudaError_t error, const char* text);  // fails the grid; the caller gives the turn back
  Context* on_fault(int signal, const void* address);

 private:
  static void enter();
  void start_block(uint3 index);
  void run_block();  // to its end, or, of a group, to a thread that rests or to where all wait for other blocks
  void run_group(const std::vector<uint64_t>& blocks, bool last_first);  // blocks that take turns
  void exchange(Resting& block);
  uint3 index_of(uint64_t block) const;
  void resume(Thread& thread);
  const DynamicShared* faulting(const void* address) const;
  bool waits_for_cluster() const;
  void wake();                                           // threads whose cluster's barrier is complete
  bool can_go(const Resting& block, int rank) const;
  std::string stuck_in_cluster() const;
  void end_in_cluster();
  void check_mapped(int owner, const void* code);        // an access to another block's shared memory
  int owner_of(const void* address) const;               // the rank of another block of the cluster, or -1
  DynamicShared& shared_of(size_t rank) const { return rank == turn_ ? *shared_ : *group_[rank].shared; }
  void release_block();
  void release_warp(Thread* warp, unsigned mask);
  std::string stuck() const;

  const Launch* launch_ = nullptr;
  uint64_t seed_ = 0;
  Random random_;
  Ready ready_;
  std::vector<Thread> threads_;
  std::vector<std::unique_ptr<Stack>> stacks_;  // those no thread is using
  std::unique_ptr<DynamicShared> shared_;
  std::vector<Resting> group_;  // that takes turns; of a cluster, by rank
  size_t turn_ = 0;             // whose it is
  Range static_shared_;
  Races races_;
  Context main_;
  Thread* running_ = nullptr;
  std::atomic<pthread_t> owner_{};  // the OS thread that runs the grid
  int count_ = 0, waiting_ = 0, exited_ = 0;
  bool rests_ = false;
  cudaError_t error_ = cudaSuccess;
  std::string message_;
};

}  // namespace transphere::emulator
