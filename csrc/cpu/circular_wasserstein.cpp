// Two ways. Up to 64 points in float32 with uniform weights: kLanes problems at a time, sorted by a network in which a lane is a problem and the key
// of a point is its position in 26 bits above its index in 6. Everything else: one problem at a time, in double.
#include "circular_wasserstein.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <vector>

namespace transphere {
namespace {

constexpr int kNetworkPoints = 64, kIndexBits = 6, kPositionBits = 32 - kIndexBits;

template <typename T>
inline T wrap(T x) {  // to [0, 1); NaN for NaN and infinities
  const T r = x - std::floor(x);
  return r >= T(1) ? T(0) : r;
}

// Batcher's odd-even merge sort of N keys as a list of comparators.
template <int N>
struct Network {
  int size = 0;
  uint8_t a[N * 10] = {}, b[N * 10] = {};
  constexpr Network() {
    for (int p = 1; p < N; p *= 2)
      for (int k = p; k >= 1; k /= 2)
        for (int j = k % p; j + k < N; j += 2 * k)
          for (int i = 0; i < k && i + j + k < N; ++i)
            if ((i + j) / (2 * p) == (i + j + k) / (2 * p)) a[size] = uint8_t(i + j), b[size] = uint8_t(i + j + k), ++size;
  }
};

template <int N>
inline void sort_lanes(uint32_t (&key)[N][kLanes]) {
  static constexpr Network<N> network;
  for (int c = 0; c < network.size; ++c) {
    uint32_t *a = key[network.a[c]], *b = key[network.b[c]];
    for (int l = 0; l < kLanes; ++l) {
      const uint32_t x = a[l], y = b[l];
      a[l] = x < y ? x : y;
      b[l] = x < y ? y : x;
    }
  }
}

// Where the points of problem p of set-pair b lie: base + i * P.
struct Tile {
  int64_t first, count, P;
  bool contiguous;  // all of one b: lanes are neighbours in memory
  Tile(int64_t first_, int64_t end, int64_t P_) : first(first_), count(std::min<int64_t>(kLanes, end - first_)), P(P_) {
    contiguous = count == kLanes && first / P == (first + kLanes - 1) / P;
  }
  int64_t base(int lane, int64_t n) const { return (first + lane) / P * n * P + (first + lane) % P; }
};

inline void load(const Tile& tile, const float* x, int64_t n, float (*rows)[kLanes]) {
  if (tile.contiguous) {
    const float* from = x + tile.base(0, n);
    for (int64_t i = 0; i < n; ++i)
      for (int l = 0; l < kLanes; ++l) rows[i][l] = from[i * tile.P + l];
    return;
  }
  for (int l = 0; l < kLanes; ++l) {
    const float* from = x + tile.base(l < tile.count ? l : 0, n);
    for (int64_t i = 0; i < n; ++i) rows[i][l] = from[i * tile.P];
  }
}

inline void store(const Tile& tile, const float (*rows)[kLanes], int64_t n, float* x) {
  if (tile.contiguous) {
    float* to = x + tile.base(0, n);
    for (int64_t i = 0; i < n; ++i)
      for (int l = 0; l < kLanes; ++l) to[i * tile.P + l] = rows[i][l];
    return;
  }
  for (int l = 0; l < tile.count; ++l) {
    float* to = x + tile.base(l, n);
    for (int64_t i = 0; i < n; ++i) to[i * tile.P] = rows[i][l];
  }
}

template <int N>
inline void solve_tile(const CircularProblems<float>& q, const Tile& tile) {
  const int n = int(q.n), m = int(q.m), points = n + m;
  const int g = std::gcd(n, m), up = m / g, down = n / g;  // levels in units of 1 / lcm(n, m)
  alignas(64) float x[N][kLanes];
  alignas(64) uint32_t key[N][kLanes];
  alignas(64) int32_t level[N][kLanes];
  float bad[kLanes] = {};  // NaN in the lanes that hold one

  load(tile, q.u, n, x);
  load(tile, q.v, m, x + n);
  for (int i = 0; i < N; ++i)
    for (int l = 0; l < kLanes; ++l) key[i][l] = 0xFFFFFFFFu;
  for (int i = 0; i < points; ++i)
    for (int l = 0; l < kLanes; ++l) {
      float r = x[i][l] - std::floor(x[i][l]);
      bad[l] += r - r;
      r = r < 1.0f ? r : 0.0f;  // also for NaN
      key[i][l] = uint32_t(int32_t(r * float(1 << kPositionBits))) << kIndexBits | uint32_t(i);
    }
  sort_lanes<N>(key);

  int32_t sum[kLanes] = {};
  for (int k = 0; k < points; ++k)
    for (int l = 0; l < kLanes; ++l) {
      sum[l] += int(key[k][l] & ((1 << kIndexBits) - 1)) < n ? up : -down;
      level[k][l] = sum[l];
    }
  alignas(64) int32_t gap[N][kLanes];  // they sum to 1 << kPositionBits exactly
  for (int k = 0; k < points; ++k)
    for (int l = 0; l < kLanes; ++l) {
      const int32_t next = k + 1 < points ? int32_t(key[k + 1][l] >> kIndexBits) : int32_t(key[0][l] >> kIndexBits) + (1 << kPositionBits);
      gap[k][l] = next - int32_t(key[k][l] >> kIndexBits);
    }

  int32_t lo[kLanes], hi[kLanes];  // the median: the smallest level with at least half the circle at or below it
  for (int l = 0; l < kLanes; ++l) lo[l] = -down * m, hi[l] = up * n;
  for (int width = up * n + down * m; width > 0; width /= 2) {
    int32_t mid[kLanes], below[kLanes] = {};
    for (int l = 0; l < kLanes; ++l) mid[l] = (lo[l] + hi[l]) >> 1;
    for (int k = 0; k < points; ++k)
      for (int l = 0; l < kLanes; ++l) below[l] += level[k][l] <= mid[l] ? gap[k][l] : 0;
    for (int l = 0; l < kLanes; ++l) {
      const bool half = below[l] >= 1 << (kPositionBits - 1), open = lo[l] < hi[l];
      lo[l] = open && !half ? mid[l] + 1 : lo[l];
      hi[l] = open && half ? mid[l] : hi[l];
    }
  }

  const float unit = 1.0f / float(up * n);
  float total[kLanes] = {}, before[kLanes];
  for (int l = 0; l < kLanes; ++l) before[l] = float(std::abs(level[points - 1][l] - lo[l]));
  for (int k = 0; k < points; ++k) {
    float slope[kLanes];
    for (int l = 0; l < kLanes; ++l) {
      const float after = float(std::abs(level[k][l] - lo[l]));
      total[l] += after * float(gap[k][l]);
      slope[l] = (before[l] - after) * unit + bad[l];
      before[l] = after;
    }
    for (int l = 0; l < kLanes; ++l) x[key[k][l] & ((1 << kIndexBits) - 1)][l] = slope[l];
  }
  for (int l = 0; l < int(tile.count); ++l) q.cost[tile.first + l] = total[l] * unit / float(1 << kPositionBits) + bad[l];
  store(tile, x, n, q.u_slope);
  store(tile, x + n, m, q.v_slope);
}

template <typename T>
inline void solve_tiles(const CircularProblems<T>&, int64_t begin, int64_t) {
  (void)begin;
}
template <>
inline void solve_tiles(const CircularProblems<float>& q, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; r += kLanes) {
    const Tile tile(r, end, q.P);
    if (q.n + q.m <= 8) solve_tile<8>(q, tile);
    else if (q.n + q.m <= 16) solve_tile<16>(q, tile);
    else if (q.n + q.m <= 32) solve_tile<32>(q, tile);
    else solve_tile<64>(q, tile);
  }
}

struct Scratch {
  std::vector<std::pair<double, int32_t>> points, order;
  std::vector<double> level, gap;
};

// One problem, any n, m, weights and type.
template <typename T>
__attribute__((noinline)) void solve_one(const CircularProblems<T>& q, int64_t problem, Scratch& s) {
  const int64_t n = q.n, m = q.m, N = n + m, b = problem / q.P, p = problem % q.P;
  const int64_t at_u = b * n * q.P + p, at_v = b * m * q.P + p;
  const auto place = [&](int64_t i) { return i < n ? at_u + i * q.P : at_v + (i - n) * q.P; };
  const auto value = [&](int64_t i) { return i < n ? q.u[place(i)] : q.v[place(i)]; };

  double bad = 0;
  for (int64_t i = 0; i < N; ++i) {
    const double t = double(wrap(value(i)));
    bad += t - t;
    s.points[i] = {t, int32_t(i)};
  }
  if (bad != 0) {  // NaN
    q.cost[problem] = T(bad);
    for (int64_t i = 0; i < N; ++i) {
      (i < n ? q.u_slope : q.v_slope)[place(i)] = T(bad);
      if (q.u_weights) (i < n ? q.u_potential : q.v_potential)[place(i)] = T(bad);
    }
    return;
  }
  std::sort(s.points.begin(), s.points.end());

  // Uniform weights have whole-number levels in units of 1/(n m): equal levels are equal bits.
  double sum = 0;
  const double unit = q.u_weights ? 1.0 : 1.0 / (double(n) * double(m));
  for (int64_t k = 0; k < N; ++k) {
    const int32_t i = s.points[k].second;
    sum += i < n ? (q.u_weights ? double(q.u_weights[b * n + i]) : double(m)) : -(q.v_weights ? double(q.v_weights[b * m + i - n]) : double(n));
    s.level[k] = sum;
    s.gap[k] = (k + 1 < N ? s.points[k + 1].first : 1.0 + s.points[0].first) - s.points[k].first;
    s.order[k] = {sum, int32_t(k)};
  }
  std::sort(s.order.begin(), s.order.end());
  double median = s.order[N - 1].first, below = 0;
  for (int64_t k = 0; k < N; ++k)
    if ((below += s.gap[s.order[k].second]) >= 0.5) {
      median = s.order[k].first;
      break;
    }

  double balance = 0, own = 0;  // the sign at the median's own gaps
  if (q.u_weights) {
    for (int64_t k = 0; k < N; ++k) {
      if (s.level[k] == median) own += s.gap[k];
      else balance += s.level[k] > median ? s.gap[k] : -s.gap[k];
    }
    own = own > 0 ? -balance / own : 0;
  }

  double cost = 0, potential = 0;
  for (int64_t k = N - 1; k >= 0; --k) {
    const int32_t i = s.points[k].second;
    const double before = std::fabs(s.level[k ? k - 1 : N - 1] - median), after = std::fabs(s.level[k] - median);
    cost += after * s.gap[k];
    potential += s.level[k] > median ? s.gap[k] : s.level[k] < median ? -s.gap[k] : own * s.gap[k];
    (i < n ? q.u_slope : q.v_slope)[place(i)] = T((before - after) * unit);
    if (q.u_weights) (i < n ? q.u_potential : q.v_potential)[place(i)] = T(i < n ? potential : -potential);
  }
  q.cost[problem] = T(cost * unit);
}

template <typename T>
inline void solve(const CircularProblems<T>& q, int64_t begin, int64_t end) {
  const int64_t N = q.n + q.m;
  if (std::is_same<T, float>::value && !q.u_weights && N <= kNetworkPoints) return solve_tiles(q, begin, end);
  Scratch s;
  s.points.resize(N), s.order.resize(N), s.level.resize(N), s.gap.resize(N);
  for (int64_t r = begin; r < end; ++r) solve_one(q, r, s);
}

}  // namespace

#define TS_INSTANTIATE(T)                                                                                                  \
  template <>                                                                                                              \
  TS_EVERY_ISA void circular_wasserstein_cpu(const CircularProblems<T>& problems, int64_t begin, int64_t end) {            \
    solve(problems, begin, end);                                                                                           \
  }
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
