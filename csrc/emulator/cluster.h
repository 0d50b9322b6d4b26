// The barrier of a cluster's blocks, what it orders, and who touched whose shared memory. Only emulator.cpp includes this.
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace transphere::emulator {

// Members are the threads of all blocks, block by block. Times are those of races.h.
class Cluster {
 public:
  struct Touch {
    uint64_t time = 0;
    const void* code = nullptr;
  };

  void clear() { size_ = 0; }
  void start(int size, int threads, uint64_t first_block) {
    size_ = size, threads_ = threads, first_ = first_block, phase_ = 0, arrived_ = 0;
    members_.assign(size_t(size * threads), {});
    touches_.assign(size_t(size) * size_t(size * threads), {});
    over_.assign(size_t(size), false);
  }
  int size() const { return size_; }
  bool holds(uint64_t block) const { return size_ && block >= first_ && block < first_ + uint64_t(size_); }
  uint64_t first() const { return first_; }

  bool between(int rank, int thread) const { return member(rank, thread).arrivals != member(rank, thread).waits; }
  bool may_go(int rank, int thread) const { return member(rank, thread).arrivals <= phase_; }
  bool has_met(int rank, int thread) const { return member(rank, thread).waits > 0; }
  bool over(int rank) const { return over_[size_t(rank)]; }

  // Whether all are there now.
  bool arrive(int rank, int thread, uint64_t now) {
    Member& m = member(rank, thread);
    m.at[++m.arrivals % 3] = now;
    if (++arrived_ < size_ * threads_) return false;
    arrived_ = 0;
    ++phase_;
    return true;
  }
  void go(int rank, int thread) { member(rank, thread).waits = member(rank, thread).arrivals; }

  // Whether what one thread did at a time comes before what another does now: the one arrived later at a barrier that the other has left.
  // A thread is at most two arrivals ahead of another's departures: three are kept.
  bool ordered(uint64_t block, int thread, uint64_t time, uint64_t now_block, int now_thread) const {
    const uint64_t left = member(int(now_block - first_), now_thread).waits;
    return left > 0 && time < member(int(block - first_), thread).at[left % 3];
  }

  void touch(int owner, int rank, int thread, uint64_t time, const void* code) { touch_of(owner, rank, thread) = {time, code}; }

  // The block ends: the access of another one, if any, to its shared memory that need not have come before.
  const Touch* end(int rank, int& by) {
    over_[size_t(rank)] = true;
    uint64_t left = 0;
    for (int thread = 0; thread < threads_; ++thread) left = std::max(left, member(rank, thread).waits);
    for (by = 0; by < size_; ++by)
      for (int thread = 0; thread < threads_; ++thread) {
        const Touch& touch = touch_of(rank, by, thread);
        if (touch.time && !(left > 0 && touch.time < member(by, thread).at[left % 3])) return &touch;
      }
    return nullptr;
  }

 private:
  struct Member {
    uint64_t arrivals = 0, waits = 0;  // the barriers that it arrived at and left
    std::array<uint64_t, 3> at{};      // when it arrived at the last three
  };
  Member& member(int rank, int thread) { return members_[size_t(rank * threads_ + thread)]; }
  const Member& member(int rank, int thread) const { return members_[size_t(rank * threads_ + thread)]; }
  Touch& touch_of(int owner, int rank, int thread) { return touches_[size_t((owner * size_ + rank) * threads_ + thread)]; }

  int size_ = 0, threads_ = 0, arrived_ = 0;
  uint64_t first_ = 0, phase_ = 0;
  std::vector<Member> members_;
  std::vector<Touch> touches_;  // (owner, rank, thread): the last one
  std::vector<bool> over_;
};

}  // namespace transphere::emulator
