// Blocks that take turns: those of a cooperative grid, and those of a cluster with its barrier and each other's shared memory. Only
// emulator.cpp includes this.
#pragma once
#include <algorithm>

#include "emulator/scheduler.h"

namespace transphere::emulator {

inline void Scheduler::arrive_at_cluster(Site site) {
  if (!launch_->cluster)
    fail(cudaErrorLaunchFailure, "a barrier of the cluster in a launch without clusters (%s:%d)", site.file, site.line);
  if (races_.cluster.between(int(turn_), rank()))
    fail(cudaErrorLaunchFailure, "arrives at a barrier of the cluster again without having waited (%s:%d)", site.file, site.line);
  if (races_.cluster.arrive(int(turn_), rank(), races_.tick())) wake();
}

inline void Scheduler::wait_for_cluster(Site site) {
  if (!launch_->cluster || !races_.cluster.between(int(turn_), rank()))
    fail(cudaErrorLaunchFailure, "waits for a barrier of the cluster without having arrived (%s:%d)", site.file, site.line);
  Thread& thread = *running_;
  thread.operation = Operation::cluster_barrier;
  thread.site = site;
  thread.mask = 0;
  if (!races_.cluster.may_go(int(turn_), rank())) wait(Thread::at_cluster);
  races_.cluster.go(int(turn_), rank());
}

inline bool Scheduler::waits_for_cluster() const {
  const auto waits = [](const Thread& thread) { return thread.state == Thread::at_cluster; };
  return launch_->cluster && std::any_of(threads_.begin(), threads_.begin() + count_, waits);
}

inline void Scheduler::wake() {
  if (!launch_->cluster) return;
  for (int i = 0; i < count_; ++i)
    if (threads_[i].state == Thread::at_cluster && races_.cluster.may_go(int(turn_), i)) {
      threads_[i].state = Thread::ready;
      ready_.add(i);
    }
}

inline bool Scheduler::can_go(const Resting& block, int rank) const {
  if (!block.ready.empty()) return true;
  for (int i = 0; i < count_; ++i)
    if (block.threads[i].state == Thread::at_cluster && races_.cluster.may_go(rank, i)) return true;
  return false;
}

// Of the running block, where no block of the cluster can go on.
inline std::string Scheduler::stuck_in_cluster() const {
  for (size_t i = 0; i < group_.size(); ++i)
    if (races_.cluster.over(int(i))) return stuck() + text(", while block %s of the cluster has exited", name(group_[i].index).c_str());
  return stuck();
}

inline void Scheduler::end_in_cluster() {
  int by;
  const Cluster::Touch* touch = races_.cluster.end(int(turn_), by);
  if (touch)
    note(cudaErrorLaunchFailure,
         text("the block ends, with no barrier of the cluster after an access to its shared memory by block %s at %s",
              name(group_[by].index).c_str(), Races::where(touch->code).c_str()).c_str());
}

inline int Scheduler::owner_of(const void* address) const {
  if (!launch_->cluster) return -1;
  for (size_t i = 0; i < group_.size(); ++i)
    if (i != turn_ && Range{group_[i].shared->data(), group_[i].shared->bytes()}.holds(address)) return int(i);
  return -1;
}

inline void Scheduler::check_mapped(int owner, const void* code) {
  Cluster& cluster = races_.cluster;
  const char* wrong = cluster.over(owner) ? "which has exited" : nullptr;
  if (!wrong && !cluster.has_met(int(turn_), rank())) wrong = "which may not have started: no barrier of the cluster came before";
  if (wrong)
    fail(cudaErrorLaunchFailure, "access to the shared memory of block %s at %s, %s", name(group_[owner].index).c_str(),
         Races::where(code).c_str(), wrong);
  cluster.touch(owner, int(turn_), rank(), races_.tick(), code);
}

inline void* Scheduler::map_shared(const void* address, unsigned rank, Site site) {
  if (rank >= cluster_size())
    fail(cudaErrorInvalidValue, "rank %u in a cluster of %u (%s:%d)", rank, cluster_size(), site.file, site.line);
  const ptrdiff_t offset = static_cast<const char*>(address) - shared_->data();
  if (offset < 0 || offset > ptrdiff_t(shared_->bytes()))
    fail(cudaErrorIllegalAddress, "a mapped address is none of this block's dynamic shared memory (%s:%d)", site.file, site.line);
  return launch_->cluster ? shared_of(rank).data() + offset : const_cast<void*>(address);
}

inline void Scheduler::exchange(Resting& block) {
  std::swap(blockIdx, block.index);
  std::swap(threads_, block.threads);
  std::swap(ready_, block.ready);
  std::swap(waiting_, block.waiting);
  std::swap(exited_, block.exited);
  std::swap(shared_, block.shared);
  std::swap_ranges(block.statics.begin(), block.statics.end(), static_shared_.data);
  races_.exchange(block.races);
}

inline void Scheduler::run_group(const std::vector<uint64_t>& blocks, bool last_first) {
  group_.resize(blocks.size());
  std::vector<uint64_t> left;
  for (uint64_t i = 0; i < blocks.size(); ++i) {
    Resting& block = group_[i];
    block.threads.resize(size_t(count_));
    if (!block.shared) block.shared = std::make_unique<DynamicShared>(launch_->shared_bytes);
    block.statics.resize(static_shared_.bytes);
    exchange(block);
    start_block(index_of(blocks[i]));
    if (launch_->cluster && i == 0) races_.cluster.start(int(blocks.size()), count_, races_.block());
    exchange(block);
    left.push_back(last_first ? blocks.size() - 1 - i : i);
  }
  while (!left.empty() && !error_) {
    const size_t at = ordered() ? 0 : random_.below(left.size());
    turn_ = left[at];
    exchange(group_[turn_]);
    wake();
    run_block();
    const bool over = exited_ == count_;
    if (launch_->cluster && !error_) {
      if (over) end_in_cluster();
      const auto can = [&](uint64_t i) { return i == turn_ ? !ready_.empty() : can_go(group_[i], int(i)); };
      if (!over && std::none_of(left.begin(), left.end(), can)) note(cudaErrorLaunchFailure, stuck_in_cluster().c_str());
    }
    exchange(group_[turn_]);
    left.erase(left.begin() + ptrdiff_t(at));
    if (!over) left.push_back(turn_);
  }
  for (Resting& block : group_)
    for (Thread& thread : block.threads)
      if (thread.stack) stacks_.push_back(std::move(thread.stack));
}

}  // namespace transphere::emulator
