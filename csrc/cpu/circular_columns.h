// W1 of W problems at once, of up to kCircularColumnPoints points each: a problem is a column of every array, and nothing branches.
#pragma once
#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

#include "circular_wasserstein.h"
#include "cpu/circular_fixed_point.h"
#include "cpu/scratch.h"
#include "cpu/sort_columns.h"
#include "fastmath.h"

namespace transphere {

// A key is a point's position above its index; negative where the point is NaN, so that it comes first.
constexpr int kIndexBits = 63 - kPositionBits;
constexpr int64_t kIndexMask = (1 << kIndexBits) - 1;
static_assert(kCircularColumnPoints <= 1 << kIndexBits);

template <typename T, int W>
class CircularColumns {
 public:
  explicit CircularColumns(const CircularProblems<T>& problems)
      : q_(problems), n_(int(q_.n)), m_(int(q_.m)), points_(n_ + m_), pitch_(q_.rises ? 2 * q_.P : q_.P), rows_(power_of_2(points_)), key_(rows_), level_(points_),
        gap_(points_), weight_(q_.u_weights ? points_ : 0), x_(points_) {
    for (int k = points_; k < rows_; ++k) key_[k] = Row{} + std::numeric_limits<int64_t>::max();
    if (q_.u_weights) std::fill_n(weight_.data(), points_, Row{});  // idle columns are computed as well
    const int g = std::gcd(n_, m_);
    up_ = m_ / g, down_ = n_ / g;
    unit_ = q_.u_weights ? kWeightUnit : 1.0 / (double(up_) * n_);
  }

  // Problems [first, first + count), count <= W; what the other columns hold does not matter.
  void solve(int64_t first, int64_t count) {
    first_ = first, count_ = count;
    load();
    sort_columns(key_.data(), points_, rows_);
    for (int l = 0; l < W; ++l) bad_[l] = key_[0][l] < 0 ? std::numeric_limits<double>::quiet_NaN() : 0.0;
    if (q_.u_weights) find_levels([&](const Row& index) { return weights_at(index); });
    else find_levels([&](const Row& index) { return index < int64_t(n_) ? Row{} + up_ : Row{} - down_; });
    find_median();
    write_slopes();
    if (q_.u_weights) write_potentials();
  }

 private:
  using Row = typename Rows<W>::Int;
  using Real = typename Rows<W>::Real;
  using Values = std::array<T, W>;

  static int power_of_2(int points) {
    int rows = 16;
    while (rows < points) rows *= 2;
    return rows;
  }

  // f(place, row, run): every point of the tile by its place in an array (B, count, pitch_) and in x_ from `first_row` on, a run of neighbours
  // in both at once. Few rows at a time, which stay in the cache until the last column is done.
  template <typename F>
  void for_places(int count, int first_row, F&& f) {
    constexpr int kBlock = 256;
    for (int begin = 0; begin < count; begin += kBlock)
      for (int64_t column = 0, run, b = first_ / q_.P, p = first_ % q_.P; column < count_; column += run, ++b, p = 0) {
        run = std::min(count_ - column, q_.P - p);
        int64_t place = (b * count + begin) * pitch_ + p;
        for (int i = begin; i < count && i < begin + kBlock; ++i, place += pitch_) {
          T* row = x_[first_row + i].data() + column;
          if (run == W) f(place, row, std::integral_constant<int, W>());
          else
            for (int l = 0; l < run; ++l) f(place + l, row + l, std::integral_constant<int, 1>());
        }
      }
  }

  void write(T* u, T* v) {
    for_places(n_, 0, [u](int64_t place, const T* row, auto run) { std::copy_n(row, run(), u + place); });
    for_places(m_, n_, [v](int64_t place, const T* row, auto run) { std::copy_n(row, run(), v + place); });
  }

  void load_points(const T* from, int count, int first_row) {
    if (q_.rises)
      for_places(count, first_row, [from, P = q_.P](int64_t place, T* row, auto run) {
        for (int l = 0; l < run(); ++l) row[l] = angle_turns(from[place + l], from[place + P + l]);
      });
    else for_places(count, first_row, [from](int64_t place, T* row, auto run) { std::copy_n(from + place, run(), row); });
  }

  void load() {
    load_points(q_.u, n_, 0);
    load_points(q_.v, m_, n_);
    const T* x = x_[0].data();
    int64_t* key = reinterpret_cast<int64_t*>(key_.data());
    for (int64_t e = 0; e < int64_t(points_) * W; ++e) {
      const T turns = wrap(x[e]);
      const bool real = turns == turns;
      const int64_t k = to_position(real ? double(turns) : 0.0) << kIndexBits | e / W;
      key[e] = real ? k : k | std::numeric_limits<int64_t>::min();
    }
    if (!q_.u_weights) return;
    for (int column = 0; column < count_; ++column) {
      const int64_t b = (first_ + column) / q_.P;
      for (int i = 0; i < n_; ++i) set_weight(i, column, q_.u_weights[b * n_ + i], 1);
      for (int i = 0; i < m_; ++i) set_weight(n_ + i, column, q_.v_weights[b * m_ + i], -1);
    }
  }

  void set_weight(int i, int column, T weight, int sign) {
    if (std::isfinite(weight)) weight_[i][column] = sign * to_level(weight);
    else key_[i][column] |= std::numeric_limits<int64_t>::min();
  }

  Row weights_at(const Row& index) const {
    Row weights = {};
    for (int l = 0; l < W; ++l) weights[l] = weight_[index[l]][l];
    return weights;
  }

  template <typename Step>
  void find_levels(Step&& step) {
    Row sum = {}, place = (key_[0] >> kIndexBits) & (kTurn - 1);
    const Row wrapped = place + kTurn;
    low_ = Row{} + std::numeric_limits<int64_t>::max(), high_ = ~low_;
    for (int k = 0; k < points_; ++k) {
      const Row next = k + 1 < points_ ? (key_[k + 1] >> kIndexBits) & (kTurn - 1) : wrapped;
      sum += step(key_[k] & kIndexMask);
      level_[k] = sum;
      gap_[k] = next - place;
      place = next;
      low_ = sum < low_ ? sum : low_;
      high_ = sum > high_ ? sum : high_;
    }
  }

  // The median is the smallest level with at least half the circle at or below it. low_ and high_ are always levels of their column.
  void find_median() {
    const auto open = [&] {
      const Row difference = high_ - low_;
      int64_t any = 0;
      for (int l = 0; l < W; ++l) any |= difference[l];
      return any != 0;
    };
    while (open()) {
      const Row middle = (low_ & high_) + ((low_ ^ high_) >> 1);  // their mean, rounded down
      Row below = {}, above = high_, under = low_;
      for (int k = 0; k < points_; ++k) {
        const Row level = level_[k], in = level <= middle;
        below += gap_[k] & in;
        const Row a = in ? above : level, u = in ? level : under;
        above = a < above ? a : above;
        under = u > under ? u : under;
      }
      const Row half = below >= kTurn / 2;
      high_ = half ? under : high_;
      low_ = half ? low_ : above;
    }
  }

  void write_slopes() {
    Real cost = {};
    Row before = distance(points_ - 1);
    for (int k = 0; k < points_; ++k) {
      const Row after = distance(k);
      cost += __builtin_convertvector(after, Real) * __builtin_convertvector(gap_[k], Real);
      scatter(k, __builtin_convertvector(before - after, Real) * unit_);
      before = after;
    }
    cost = cost * (unit_ / kTurn) + bad_;
    for (int l = 0; l < count_; ++l) q_.cost[first_ + l] = T(cost[l]);
    if (q_.rises) write_rises();
    else write(q_.u_slope, q_.v_slope);
  }

  void write_rises() {
    const int bytes = (points_ + 7) / 8;
    for (int i = 0; i < points_; i += 8) {
      std::array<uint8_t, W> byte = {};
      for (int j = 0; j < 8 && i + j < points_; ++j)
        for (int l = 0; l < W; ++l) byte[l] = uint8_t(byte[l] | (x_[i + j][l] > T(0)) << j);
      for (int64_t l = 0, b = first_ / q_.P, p = first_ % q_.P; l < count_; ++l) {
        q_.rises[(b * bytes + i / 8) * q_.P + p] = byte[l];
        if (++p == q_.P) p = 0, ++b;
      }
    }
  }

  Row distance(int k) const {
    const Row d = level_[k] - low_;
    return d < 0 ? -d : d;
  }

  // To the place of the k-th point in x_.
  void scatter(int k, const Real& values) {
    const Real marked = values + bad_;
    const Row index = key_[k] & kIndexMask;
    for (int l = 0; l < W; ++l) x_[index[l]][l] = T(marked[l]);
  }

  void write_potentials() {
    Row balance = {}, own = {};
    for (int k = 0; k < points_; ++k) {
      balance += signed_gap(k);
      own += level_[k] == low_ ? gap_[k] : Row{};
    }
    Real share = {};  // the sign at the median's own gaps
    for (int l = 0; l < W; ++l) share[l] = own[l] > 0 ? -double(balance[l]) / double(own[l]) : 0.0;
    Row rise = {}, flat = {};
    for (int k = points_ - 1; k >= 0; --k) {
      rise += signed_gap(k);
      flat += level_[k] == low_ ? gap_[k] : Row{};
      const Real potential = (__builtin_convertvector(rise, Real) + share * __builtin_convertvector(flat, Real)) * (1.0 / kTurn);
      scatter(k, (key_[k] & kIndexMask) < int64_t(n_) ? potential : -potential);
    }
    write(q_.u_potential, q_.v_potential);
  }

  Row signed_gap(int k) const { return level_[k] > low_ ? gap_[k] : level_[k] < low_ ? -gap_[k] : Row{}; }

  const CircularProblems<T>& q_;
  const int n_, m_, points_;
  const int64_t pitch_;  // from a point to the next one of its set
  const int rows_;
  int up_, down_;  // what a point of u and of v adds to the level, in units of 1 / lcm(n, m)
  double unit_;
  int64_t first_ = 0, count_ = 0;
  Scratch<Row> key_, level_, gap_, weight_;  // std::vector aligns by alignof(Row), which is the baseline's
  alignas(8 * W) Row low_ = {}, high_ = {};  // at last both the median
  alignas(8 * W) Real bad_ = {};             // NaN for a problem with a NaN, else 0
  std::vector<Values> x_;  // points, then slopes, then potentials
};

}  // namespace transphere
