// Which thread goes next. Only emulator.cpp includes this.
#pragma once
#include <cstdint>
#include <numeric>
#include <utility>

namespace transphere::emulator {

class Random {
 public:
  explicit Random(uint64_t seed = 0) : state_(seed) {}
  uint64_t next() {  // splitmix64
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t n) { return next() % n; }

 private:
  uint64_t state_;
};

// The threads of one block that can run: 32 warps of 32 lanes.
class Ready {
 public:
  // Extremes find the most races: a warp far ahead of the others, lanes in reverse, all threads mixed.
  enum class Habit { ascending, descending, one_warp_ahead, mixed, low_warps_first, high_warps_first };

  void start(int threads, uint64_t seed, Random& random) {
    habit_ = seed < 2 ? Habit(seed) : Habit(2 + random.below(4));
    clear();
    for (int i = 0; i < threads; ++i) add(i);
  }
  void add(int thread) {
    lanes_[thread / 32] |= 1u << thread % 32;
    warps_ |= 1u << thread / 32;
  }
  // A thread that gave its turn away: in the habits that favour some threads it comes after all others, or it could starve them.
  void add_last(int thread) {
    if (habit_ == Habit::mixed) return add(thread);
    last_lanes_[thread / 32] |= 1u << thread % 32;
    last_warps_ |= 1u << thread / 32;
  }
  bool empty() const { return !warps_ && !last_warps_; }
  void clear() {
    warps_ = last_warps_ = 0;
    for (int i = 0; i < 32; ++i) lanes_[i] = last_lanes_[i] = 0;
  }

  int take(Random& random) {
    if (!warps_) {
      std::swap(warps_, last_warps_);
      std::swap(lanes_, last_lanes_);
    }
    const uint64_t r = random.next();
    int warp = 0, lane = 0;
    switch (habit_) {
      case Habit::ascending: warp = lowest(warps_), lane = lowest(lanes_[warp]); break;
      case Habit::descending: warp = highest(warps_), lane = highest(lanes_[warp]); break;
      case Habit::one_warp_ahead:
        warp = warps_ >> last_ & 1 ? last_ : any(warps_, r >> 8);
        lane = any(lanes_[warp], r);
        break;
      case Habit::mixed: warp = any(warps_, r >> 8), lane = any(lanes_[warp], r); break;
      case Habit::low_warps_first: warp = lowest(warps_), lane = any(lanes_[warp], r); break;
      case Habit::high_warps_first: warp = highest(warps_), lane = any(lanes_[warp], r); break;
    }
    last_ = warp;
    if (!(lanes_[warp] &= ~(1u << lane))) warps_ &= ~(1u << warp);
    return warp * 32 + lane;
  }

 private:
  static int lowest(uint32_t set) { return __builtin_ctz(set); }
  static int highest(uint32_t set) { return 31 - __builtin_clz(set); }
  static int any(uint32_t set, uint64_t r) {  // the first at or after a random place, around the circle
    const int from = int(r & 31);
    return (__builtin_ctz(from ? set >> from | set << (32 - from) : set) + from) & 31;
  }

  Habit habit_ = Habit::ascending;
  uint32_t warps_ = 0, lanes_[32] = {}, last_warps_ = 0, last_lanes_[32] = {};
  int last_ = 0;
};

// The order of the n blocks of a grid, without a list of them: i -> a i + b mod n, a and n coprime.
class BlockOrder {
 public:
  BlockOrder(uint64_t n, uint64_t seed, Random& random) : n_(n), a_(1), b_(0) {
    if (seed == 0) return;
    if (seed == 1) {
      a_ = b_ = n - 1;
      if (n == 1) a_ = 1;
      return;
    }
    b_ = random.below(n);
    do a_ = 1 + random.below(n);
    while (std::gcd(a_, n) != 1);
  }
  uint64_t operator[](uint64_t i) const { return uint64_t((static_cast<unsigned __int128>(a_) * i + b_) % n_); }

 private:
  uint64_t n_, a_, b_;
};

}  // namespace transphere::emulator
