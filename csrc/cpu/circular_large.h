// W1 of one problem of any size, by a radix sort and a radix search of the median. All sums are of whole numbers, so that however a team
// shares the points the bits are the same.
#pragma once
#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <numeric>
#include <vector>

#include "circular_wasserstein.h"
#include "cpu/circular_fixed_point.h"
#include "cpu/radix_sort.h"

namespace transphere {

// What to sort by: a float's own bits, whose order is that of nonnegative floats and which are below 2^30, or a double's position.
template <typename T>
struct CircularKey;
template <>
struct CircularKey<float> {
  using Type = uint32_t;
  using Sort = RadixSort<Type, 10, 3>;
  static Type from(float turns) {
    Type bits;
    std::memcpy(&bits, &turns, 4);
    return bits;
  }
  static int64_t position(Type key) {
    float turns;
    std::memcpy(&turns, &key, 4);
    return to_position(turns);
  }
};
template <>
struct CircularKey<double> {
  using Type = uint64_t;
  using Sort = RadixSort<Type, 11, 5>;
  static Type from(double turns) { return Type(to_position(turns)); }
  static int64_t position(Type key) { return int64_t(key); }
};

// The points of one problem side by side, and where the results go.
template <typename T>
struct CircularProblem {
  const T *u, *v, *u_weights, *v_weights;
  T *cost, *u_slope, *v_slope, *u_potential, *v_potential;
};

template <typename T>
class CircularLarge {
 public:
  CircularLarge(int64_t n, int64_t m, bool weighted, const Team& team)
      : n_(n), m_(m), points_(n + m), weighted_(weighted), team_(team), items_(points_), spare_(points_), steps_(points_),
        members_(team.size) {
    const int64_t g = std::gcd(n, m);
    up_ = m / g, down_ = n / g;
    unit_ = weighted ? kWeightUnit : 1.0 / (double(up_) * double(n));
  }

  void solve(const CircularProblem<T>& problem) {
    q_ = problem;
    if (!load()) return fail();
    sort_(items_, spare_, points_, team_);
    find_levels();
    find_median();
    write_slopes();
    if (weighted_) write_potentials();
  }

 private:
  using Key = CircularKey<T>;
  using Sorted = Item<typename Key::Type>;
  struct Step {
    int64_t level, gap;  // of the arc that begins at a point
  };
  struct Member {
    bool bad;
    int64_t sum, low, high, rise, flat;
    unsigned __int128 cost;
    std::array<int64_t, 2048> mass;
    std::vector<Step> steps;
  };

  template <typename F>
  void for_each_member(F&& f) {
    team_.run([&](int member) {
      const auto [begin, end] = team_.share(member, points_);
      f(members_[member], begin, end);
    });
  }

  bool load() {
    for_each_member([&](Member& member, int64_t begin, int64_t end) {
      bool bad = false;
      const auto add = [&](const T* x, const T* weights, int64_t from, int64_t to, int64_t first) {
        for (int64_t i = from; i < to; ++i) {
          const T turns = wrap(x[i - first]);
          bad |= !(turns == turns);
          items_[i] = {Key::from(turns), uint32_t(i)};
        }
        if (weights)
          for (int64_t i = from; i < to; ++i) bad |= !std::isfinite(weights[i - first]);
      };
      add(q_.u, q_.u_weights, std::min(begin, n_), std::min(end, n_), 0);
      add(q_.v, q_.v_weights, std::max(begin, n_), std::max(end, n_), n_);
      member.bad = bad;
    });
    return std::none_of(members_.begin(), members_.end(), [](const Member& member) { return member.bad; });
  }

  void fail() {
    constexpr T nan = std::numeric_limits<T>::quiet_NaN();
    *q_.cost = nan;
    std::fill_n(q_.u_slope, n_, nan), std::fill_n(q_.v_slope, m_, nan);
    if (weighted_) std::fill_n(q_.u_potential, n_, nan), std::fill_n(q_.v_potential, m_, nan);
  }

  int64_t weight(int64_t k) const {
    const int64_t i = items_[k].index;
    if (weighted_) return i < n_ ? to_level(q_.u_weights[i]) : -to_level(q_.v_weights[i - n_]);
    return i < n_ ? up_ : -down_;
  }

  void find_levels() {
    if (team_.size > 1)
      for_each_member([&](Member& member, int64_t begin, int64_t end) {
        int64_t sum = 0;
        for (int64_t k = begin; k < end; ++k) sum += weight(k);
        member.sum = sum;
      });
    int64_t start = 0;
    for (Member& member : members_) std::swap(start, member.sum), start += member.sum;  // sum: the level before the member's first point
    const int64_t wrapped = Key::position(items_[0].key) + kTurn;
    for_each_member([&](Member& member, int64_t begin, int64_t end) {
      int64_t sum = team_.size > 1 ? member.sum : 0, low = std::numeric_limits<int64_t>::max(), high = ~low;
      int64_t place = Key::position(items_[begin].key);
      for (int64_t k = begin; k < end; ++k) {
        const int64_t next = k + 1 < points_ ? Key::position(items_[k + 1].key) : wrapped;
        sum += weight(k);
        steps_[k] = {sum, next - place};
        place = next;
        low = std::min(low, sum), high = std::max(high, sum);
      }
      member.low = low, member.high = high;
    });
  }

  // The smallest level with at least half the circle at or below it: bins of levels are weighed, then those of the bin that has it, ...
  void find_median() {
    int64_t low = std::numeric_limits<int64_t>::max(), high = ~low, below = 0;
    for (const Member& member : members_) low = std::min(low, member.low), high = std::max(high, member.high);
    for (bool first = true;; first = false) {
      int shift = 0;
      while (uint64_t(high - low) >> shift >= 2048) ++shift;
      for_each_member([&](Member& member, int64_t begin, int64_t end) {
        member.mass.fill(0);
        const auto weigh = [&](const Step& step) { member.mass[uint64_t(step.level - low) >> shift] += step.gap; };
        if (first)
          for (int64_t k = begin; k < end; ++k) weigh(steps_[k]);
        else
          for (const Step& step : member.steps) weigh(step);
      });
      int bin = 0;
      for (;; ++bin) {
        int64_t mass = 0;
        for (const Member& member : members_) mass += member.mass[bin];
        if (below + mass >= kTurn / 2) break;
        below += mass;
      }
      low += int64_t(bin) << shift;
      if (!shift) break;
      high = low + (int64_t(1) << shift) - 1;
      for_each_member([&](Member& member, int64_t begin, int64_t end) {
        const auto out = [&](const Step& step) { return step.level < low || step.level > high; };
        auto& kept = member.steps;
        if (first) {
          kept.clear();
          std::remove_copy_if(&steps_[begin], &steps_[0] + end, std::back_inserter(kept), out);
        } else {
          kept.erase(std::remove_if(kept.begin(), kept.end(), out), kept.end());
        }
      });
    }
    median_ = low;
  }

  int64_t distance(int64_t k) const { return std::abs(steps_[k].level - median_); }
  int64_t signed_gap(int64_t k) const { return steps_[k].level > median_ ? steps_[k].gap : steps_[k].level < median_ ? -steps_[k].gap : 0; }

  void write_slopes() {
    for_each_member([&](Member& member, int64_t begin, int64_t end) {
      unsigned __int128 cost = 0;
      int64_t before = distance(begin ? begin - 1 : points_ - 1);
      for (int64_t k = begin; k < end; ++k) {
        const int64_t after = distance(k), i = items_[k].index;
        cost += (unsigned __int128)after * uint64_t(steps_[k].gap);
        (i < n_ ? q_.u_slope[i] : q_.v_slope[i - n_]) = T(double(before - after) * unit_);
        before = after;
      }
      member.cost = cost;
    });
    unsigned __int128 cost = 0;
    for (const Member& member : members_) cost += member.cost;
    *q_.cost = T(double(cost) * (unit_ / kTurn));
  }

  void write_potentials() {
    for_each_member([&](Member& member, int64_t begin, int64_t end) {
      member.rise = member.flat = 0;
      for (int64_t k = begin; k < end; ++k) member.rise += signed_gap(k), member.flat += steps_[k].level == median_ ? steps_[k].gap : 0;
    });
    int64_t rise = 0, flat = 0;  // over the arcs of the members after this one, in the end over all
    for (auto member = members_.rbegin(); member != members_.rend(); ++member) {
      std::swap(rise, member->rise), rise += member->rise;
      std::swap(flat, member->flat), flat += member->flat;
    }
    const double own = flat > 0 ? -double(rise) / double(flat) : 0;  // the sign at the median's own gaps
    for_each_member([&](Member& member, int64_t begin, int64_t end) {
      int64_t above = member.rise, at = member.flat;
      for (int64_t k = end - 1; k >= begin; --k) {
        const int64_t i = items_[k].index;
        above += signed_gap(k);
        at += steps_[k].level == median_ ? steps_[k].gap : 0;
        const double potential = double(above + int64_t(own * double(at))) / kTurn;
        (i < n_ ? q_.u_potential[i] : q_.v_potential[i - n_]) = T(i < n_ ? potential : -potential);
      }
    });
  }

  const int64_t n_, m_, points_;
  const bool weighted_;
  const Team& team_;
  int64_t up_, down_;  // what a point of u and of v adds to the level, in units of 1 / lcm(n, m)
  double unit_;
  CircularProblem<T> q_;
  Scratch<Sorted> items_, spare_;
  Scratch<Step> steps_;
  typename Key::Sort sort_;
  std::vector<Member> members_;
  int64_t median_ = 0;
};

}  // namespace transphere
