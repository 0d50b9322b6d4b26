// One problem at a time, in double. The names are those of csrc/circular_wasserstein_power.h.
#include "circular_wasserstein_power.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

namespace transphere {
namespace {

constexpr int64_t kRankPoints = 64;  // up to here a point's rank is counted, without a branch

// c(d) = |d|^p, and its derivative over p.
struct Square {
  double cost(double d) const { return d * d; }
  double slope(double d) const { return d; }
};
struct WholePower {
  int p;
  double power(double d, int e) const {
    double r = d;
    for (int i = 1; i < e; ++i) r *= d;
    return r;
  }
  double cost(double d) const { return power(std::fabs(d), p); }
  double slope(double d) const { return std::copysign(power(std::fabs(d), p - 1), d); }
};
struct RealPower {
  double p;
  double cost(double d) const { return std::pow(std::fabs(d), p); }
  double slope(double d) const { return std::copysign(std::pow(std::fabs(d), p - 1), d); }
};

inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

struct Set {
  int64_t n = 0, step = 0;      // step: the mass of a point, without weights
  std::vector<double> point;    // n: as they come, in [0, 1)
  std::vector<double> weight;   // n: as they come
  std::vector<double> z;        // 3 n: sorted, a turn earlier, as they are, and a turn later
  std::vector<int64_t> level;   // n: the mass up to and with each sorted point; only with weights
  std::vector<int32_t> order;   // n: whose place in `point`
  std::vector<double> slope, potential;  // n + 1, n: of the sorted points
  std::vector<std::pair<double, int32_t>> pairs;

  void resize(int64_t n_, bool weighted) {
    n = n_;
    point.resize(n), z.resize(3 * n), order.resize(n), slope.resize(n + 1);
    if (weighted) weight.resize(n), level.resize(n), potential.resize(n);
    if (n > kRankPoints) pairs.resize(n);
  }

  void sort() {
    if (n <= kRankPoints) {
      for (int64_t i = 0; i < n; ++i) {
        int64_t rank = 0;
        for (int64_t j = 0; j < i; ++j) rank += point[j] <= point[i];
        for (int64_t j = i + 1; j < n; ++j) rank += point[j] < point[i];
        z[n + rank] = point[i], order[rank] = int32_t(i);
      }
    } else {
      for (int64_t i = 0; i < n; ++i) pairs[i] = {point[i], int32_t(i)};
      std::sort(pairs.begin(), pairs.end());
      for (int64_t i = 0; i < n; ++i) z[n + i] = pairs[i].first, order[i] = pairs[i].second;
    }
    for (int64_t i = 0; i < n; ++i) z[i] = z[n + i] - 1, z[2 * n + i] = z[n + i] + 1;
  }

  // The levels; what rounding leaves goes to the last weight. False if the weights are no weights.
  bool accumulate() {
    double sum = 0, bad = 0;
    for (const double w : weight) sum += w, bad += w >= 0 ? 0 : std::numeric_limits<double>::quiet_NaN();
    bad += sum > 0 ? sum - sum : std::numeric_limits<double>::quiet_NaN();
    if (bad != 0) return false;
    int64_t upto = 0;
    for (int64_t i = 0; i < n; ++i)
      level[i] = upto = std::min(upto + int64_t(weight[order[i]] / sum * double(kWeightUnit)), kWeightUnit);
    for (int64_t i = n; i-- > 0 && level[i] == upto;) level[i] = kWeightUnit;
    return true;
  }

  // The point whose mass holds a level, on its right or its left side.
  double at(int64_t where, bool right) const {
    const int64_t turns = floor_div(right ? where : where - 1, kWeightUnit), within = where - turns * kWeightUnit;
    const auto i = right ? std::upper_bound(level.begin(), level.end(), within) : std::lower_bound(level.begin(), level.end(), within);
    return z[n + (i - level.begin())] + double(turns);
  }
};

template <typename Cost>
struct Solver {
  const Cost c;
  Set &x, &y;  // x has at least as many points as y
  const bool weighted;
  const int64_t turn;

  double uniform_slope(int64_t k) const {
    const double* b = y.z.data() + y.n;
    int64_t j = 0;
    double sum = 0;
    if (x.n == y.n) {
      const double* a = x.z.data() + x.n + k + 1;
      double part[kLanes] = {};
      for (; j + kLanes <= y.n; j += kLanes)
        for (int l = 0; l < kLanes; ++l) part[l] += c.cost(a[j + l] - b[j + l]) - c.cost(a[j + l] - b[j + l + 1]);
      for (; j < y.n; ++j) sum += c.cost(a[j] - b[j]) - c.cost(a[j] - b[j + 1]);
      for (int l = 0; l < kLanes; ++l) sum += part[l];
      return sum;
    }
    const int64_t whole = y.step / x.step, rest = y.step % x.step;
    int64_t i = floor_div(y.step + k, x.step), over = y.step + k - i * x.step;  // Y_j + k = i x.step + over
    const double* a = x.z.data() + x.n;
    for (; j < y.n; ++j) {
      sum += c.cost(a[i] - b[j]) - c.cost(a[i] - b[j + 1]);
      i += whole, over += rest;
      const bool carry = over >= x.step;
      i += carry, over -= carry ? x.step : 0;
    }
    return sum;
  }

  // Also how far the cut can move to the left without a change, and to the right before there is one.
  double weighted_slope(int64_t k, int64_t& left, int64_t& right) const {
    int64_t turns = floor_div(y.level[0] + k, turn);
    int64_t i = std::upper_bound(x.level.begin(), x.level.end(), y.level[0] + k - turns * turn) - x.level.begin();
    double sum = 0;
    left = right = turn;
    for (int64_t j = 0; j < y.n; ++j) {
      const int64_t t = y.level[j] + k;
      while (x.level[i] + turns * turn <= t)
        if (++i == x.n) i = 0, ++turns;
      right = std::min(right, x.level[i] + turns * turn - t);
      left = std::min(left, t - (i ? x.level[i - 1] : 0) - turns * turn);
      const double a = x.z[x.n + i] + double(turns);
      sum += c.cost(a - y.z[y.n + j]) - c.cost(a - y.z[y.n + j + 1]);
    }
    return sum;
  }

  double slope(int64_t k) const {
    int64_t left, right;
    return weighted ? weighted_slope(k, left, right) : uniform_slope(k);
  }

  int64_t best_cut() const {
    int64_t low = -turn, high = turn;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      int64_t left = 0, right = 1;
      const bool rises = (weighted ? weighted_slope(middle, left, right) : uniform_slope(middle)) >= 0;
      if (rises) high = std::max(middle - left, low);
      else low = middle + right;
    }
    return high;
  }

  // The cost at a cut; slopes of the sorted points.
  double pieces(int64_t k) const {
    double cost = 0;
    if (!weighted && x.n == y.n) {
      const double *a = x.z.data() + x.n + k, *b = y.z.data() + y.n, mass = 1.0 / double(x.n);
      for (int64_t j = 0; j < y.n; ++j) {
        cost += c.cost(a[j] - b[j]);
        y.slope[j] = -mass * c.slope(a[j] - b[j]);
      }
      for (int64_t j = 0; j < y.n; ++j) x.slope[(j + k + x.n) % x.n] = -y.slope[j];
      return cost * mass;
    }
    std::fill(x.slope.begin(), x.slope.end(), 0.0);
    std::fill(y.slope.begin(), y.slope.end(), 0.0);
    const auto x_end = [&](int64_t i) { return weighted ? x.level[i] : (i + 1) * x.step; };
    const auto y_end = [&](int64_t j) { return weighted ? y.level[j] : (j + 1) * y.step; };
    int64_t turns = floor_div(-k, turn);  // of y, in which the mass at 0 lies
    const int64_t within = -k - turns * turn;
    int64_t j = weighted ? std::upper_bound(y.level.begin(), y.level.end(), within) - y.level.begin() : within / y.step;
    int64_t i = 0, at = 0;
    while (at < turn) {
      const int64_t next = y_end(j) + k + turns * turn, end = std::min(x_end(i), next);
      const double d = x.z[x.n + i] - (y.z[y.n + j] + double(turns)), mass = double(end - at) / double(turn), flow = mass * c.slope(d);
      cost += mass * c.cost(d);
      x.slope[i] += flow, y.slope[j] -= flow;
      if (end == x_end(i)) ++i;
      if (end == next && ++j == y.n) j = 0, ++turns;
      at = end;
    }
    return cost;
  }

  void potentials(int64_t k) const {
    const double before = slope(k - 1), after = slope(k);
    const double share = after > before ? -before / (after - before) : 0.5;  // of k; the rest is that of k - 1
    const auto climb = [&](Set& z, const Set& partner, int sign) {
      double sum = 0;
      z.potential[0] = 0;
      for (int64_t i = 0; i + 1 < z.n; ++i) {
        const double here = z.z[z.n + i], next = z.z[z.n + i + 1];
        const double a = partner.at(z.level[i] + sign * k, sign > 0), b = partner.at(z.level[i] + sign * (k - 1), sign > 0);
        sum += share * (c.cost(next - a) - c.cost(here - a)) + (1 - share) * (c.cost(next - b) - c.cost(here - b));
        z.potential[i + 1] = sum;
      }
    };
    climb(x, y, -1);
    climb(y, x, 1);
  }

  double solve(double p) const {
    const int64_t k = best_cut();
    const double distance = std::pow(pieces(k), 1 / p);
    const double scale = distance > 0 ? std::pow(distance, 1 - p) : 0;  // of d distance, from d cost / p
    for (Set* s : {&x, &y})
      for (int64_t i = 0; i < s->n; ++i) s->slope[i] *= scale;
    if (!weighted) return distance;
    potentials(k);
    for (Set* s : {&x, &y})
      for (int64_t i = 0; i < s->n; ++i) s->potential[i] *= scale / p;
    return distance;
  }
};

// Of points and weights that are in place.
TS_EVERY_ISA double solve(Set& u, Set& v, bool weighted, double p) {
  u.sort(), v.sort();
  int64_t turn = kWeightUnit;
  if (weighted) {
    if (!u.accumulate() || !v.accumulate()) return std::numeric_limits<double>::quiet_NaN();
  } else {
    turn = u.n / std::gcd(u.n, v.n) * v.n;
    u.step = turn / u.n, v.step = turn / v.n;
  }
  Set &x = u.n < v.n ? v : u, &y = u.n < v.n ? u : v;
  if (p == 2) return Solver<Square>{{}, x, y, weighted, turn}.solve(p);
  if (p <= 16 && p == std::floor(p)) return Solver<WholePower>{{int(p)}, x, y, weighted, turn}.solve(p);
  return Solver<RealPower>{{p}, x, y, weighted, turn}.solve(p);
}

// A set's points, at values[i * P]; false if one is not finite.
template <typename T>
bool load(Set& set, const T* values, int64_t P, const T* weights) {
  T bad = 0;
  for (int64_t i = 0; i < set.n; ++i) {
    const T r = values[i * P] - std::floor(values[i * P]);
    bad += r - r;
    set.point[i] = r < T(1) ? double(r) : 0.0;  // also for NaN
    if (weights) set.weight[i] = double(weights[i]);
  }
  return bad == 0;
}

template <typename T>
void store(const Set& set, double bad, int64_t P, T* slope, T* potential) {
  for (int64_t i = 0; i < set.n; ++i) {
    slope[set.order[i] * P] = T(set.slope[i] + bad);
    if (potential) potential[set.order[i] * P] = T(set.potential[i] + bad);
  }
}

template <typename T>
void solve_all(const CircularPowerProblems<T>& q, int64_t begin, int64_t end) {
  const bool weighted = q.u_weights != nullptr;
  Set u, v;
  u.resize(q.n, weighted), v.resize(q.m, weighted);
  for (int64_t r = begin; r < end; ++r) {
    const int64_t b = r / q.P, at_u = b * q.n * q.P + r % q.P, at_v = b * q.m * q.P + r % q.P;
    const bool finite = load(u, q.u + at_u, q.P, weighted ? q.u_weights + b * q.n : nullptr) &
                        load(v, q.v + at_v, q.P, weighted ? q.v_weights + b * q.m : nullptr);
    const double distance = solve(u, v, weighted, q.p), bad = finite ? distance - distance : std::numeric_limits<double>::quiet_NaN();
    q.distance[r] = T(distance + bad);
    store(u, bad, q.P, q.u_slope + at_u, weighted ? q.u_potential + at_u : nullptr);
    store(v, bad, q.P, q.v_slope + at_v, weighted ? q.v_potential + at_v : nullptr);
  }
}

}  // namespace

template <>
void circular_wasserstein_power_cpu(const CircularPowerProblems<float>& problems, int64_t begin, int64_t end) {
  solve_all(problems, begin, end);
}
template <>
void circular_wasserstein_power_cpu(const CircularPowerProblems<double>& problems, int64_t begin, int64_t end) {
  solve_all(problems, begin, end);
}

}  // namespace transphere
