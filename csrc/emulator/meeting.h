// Where threads meet: barriers, warp primitives, and the message when they do not. Only emulator.cpp includes this.
#pragma once
#include <algorithm>
#include <cstring>

#include "emulator/scheduler.h"

namespace transphere::emulator {

inline int Scheduler::meet_block(Operation operation, int predicate, Site site) {
  Thread& thread = *running_;
  thread.operation = operation;
  thread.site = site;
  thread.mask = 0;
  thread.value = predicate != 0;
  thread.state = Thread::at_block;
  if (++waiting_ == count_) release_block();
  wait(thread.state);
  return int(thread.result);
}

inline void Scheduler::release_block() {
  const Thread& first = threads_[0];
  int sum = 0;
  for (int i = 0; i < count_; ++i) {
    if (!threads_[i].meets(first)) return note(cudaErrorLaunchFailure, stuck().c_str());
    sum += int(threads_[i].value);
  }
  for (int i = 0; i < count_; ++i) {
    const Operation operation = threads_[i].operation;
    threads_[i].result = operation == Operation::barrier_and ? sum == count_ : operation == Operation::barrier_or ? sum > 0 : sum;
    threads_[i].state = Thread::ready;
    if (&threads_[i] != running_) ready_.add(i);
  }
  waiting_ = 0;
  races_.barrier();
}

inline uint64_t Scheduler::meet_warp(Operation operation, unsigned mask, uint64_t value, int source, Site site) {
  Thread& thread = *running_;
  const int index = int(&thread - threads_.data()), lane = index % 32;
  const int lanes = std::min(32, count_ - index / 32 * 32);
  Thread* const warp = &threads_[index / 32 * 32];
  const char* const what = kNames[int(operation)];
  if (!(mask >> lane & 1))
    fail(cudaErrorLaunchFailure, "lane %d calls %s with mask 0x%08x, which leaves it out (%s:%d)", lane, what, mask, site.file, site.line);
  if (lanes < 32 && mask >> lanes)
    fail(cudaErrorLaunchFailure, "%s with mask 0x%08x in a warp of %d lanes (%s:%d)", what, mask, lanes, site.file, site.line);
  thread.operation = operation;
  thread.site = site;
  thread.mask = mask;
  thread.value = value;
  thread.source = source;
  thread.state = Thread::at_warp;
  bool complete = true;
  for (int i = 0; i < lanes; ++i)
    if (mask >> i & 1) {
      if (warp[i].state == Thread::exited)
        fail(cudaErrorLaunchFailure, "%s with mask 0x%08x names lane %d, which has exited (%s:%d)", what, mask, i, site.file, site.line);
      complete = complete && warp[i].meets(thread);
    }
  if (complete) release_warp(warp, mask);
  wait(thread.state);
  return thread.result;
}

inline void Scheduler::release_warp(Thread* warp, unsigned mask) {
  const int first = __builtin_ctz(mask);
  unsigned ballot = 0;
  int64_t reduced = int64_t(warp[first].value);
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1) {
      ballot |= unsigned(warp[i].value & 1) << i;
      const int64_t value = int64_t(warp[i].value);
      if (i != first) switch (warp[i].operation) {
          case Operation::reduce_add: reduced = int64_t(uint64_t(reduced) + uint64_t(value)); break;
          case Operation::reduce_min: reduced = std::min(reduced, value); break;
          case Operation::reduce_max: reduced = std::max(reduced, value); break;
          case Operation::reduce_and: reduced &= value; break;
          case Operation::reduce_or: reduced |= value; break;
          case Operation::reduce_xor: reduced ^= value; break;
          default: break;
        }
    }
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1) {
      Thread& thread = warp[i];
      switch (thread.operation) {
        case Operation::shuffle:
          thread.result = mask >> thread.source & 1 ? warp[thread.source].value : uint64_t(garbage()) << 32 | garbage();
          break;
        case Operation::ballot: thread.result = ballot; break;
        case Operation::any: thread.result = ballot != 0; break;
        case Operation::all: thread.result = ballot == mask; break;
        case Operation::match_any:
          thread.result = 0;
          for (int j = 0; j < 32; ++j)
            if (mask >> j & 1 && warp[j].value == thread.value) thread.result |= 1u << j;
          break;
        default: thread.result = uint64_t(reduced);
      }
    }
  if (warp[first].operation == Operation::warp_barrier) races_.warp_barrier(int(warp - threads_.data()), mask);
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1) {
      warp[i].state = Thread::ready;
      if (&warp[i] != running_) ready_.add(int(&warp[i] - threads_.data()));
    }
}

inline std::string Scheduler::stuck() const {
  std::string result = "divergent threads:";
  std::vector<const Thread*> groups;
  for (int i = 0; i < count_; ++i) {
    const Thread& thread = threads_[i];
    bool known = false;
    const auto same = [&](const Thread& other) {
      return thread.state == other.state && (thread.state == Thread::exited || thread.meets(other));
    };
    for (const Thread* other : groups) known = known || same(*other);
    if (known) continue;
    groups.push_back(&thread);
    int count = 0;
    for (int j = i; j < count_; ++j) count += same(threads_[j]);
    result += text("%s %d (first %s) ", groups.size() > 1 ? "," : "", count, name(thread.index).c_str());
    if (thread.state == Thread::exited)
      result += "exited";
    else
      result += text("wait at %s%s (%s:%d)", kNames[int(thread.operation)],
                     thread.state == Thread::at_warp ? text(" with mask 0x%08x", thread.mask).c_str() : "", thread.site.file,
                     thread.site.line);
    if (groups.size() == 4) break;
  }
  return result;
}

}  // namespace transphere::emulator
