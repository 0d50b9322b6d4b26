// Three ways, by the number of points N = n + m; the formulas are in csrc/circular_wasserstein.h.
//   up to 256     part of a warp for a problem, 8 points a thread, in registers
//   up to 4096    several warps for a problem, which sort through shared memory
//   beyond        a segmented merge sort in device memory (circular_wasserstein_large.cuh)
// Everything that decides is a whole number: a point is its position in turns, a fixed-point number, above its index, so that one key is
// sorted; levels are multiples of 1 / lcm(n, m), or of a power of 2 with weights. Their sums are exact in any order.
//
// Eight points a thread, because a network's steps within a thread cost two instructions a pair and those between threads two and a shuffle
// a point: with four lanes for 32 points 3 of its 15 steps need shuffles, with a point a lane all 15 do.
//
// COORDINATES: sliced_wasserstein's form. Angles stay in registers and a bit takes the place of a slope: of the 20 bytes a point in float32
// that follow the projection 8 are left, those of x and y.
#include "circular_wasserstein.h"

#include "cuda/circular_wasserstein.cuh"
#include "cuda/circular_wasserstein_large.cuh"
#include "cuda/lanes.cuh"
#include "cuda/launch.cuh"
#include "fastmath.h"

namespace transphere {
namespace {

constexpr int64_t kTilePoints = 4096;

// LANES threads for a problem, and as many neighbouring problems as make a block.
template <typename T, int LANES, bool WEIGHTED, bool COORDINATES>
struct Form {
  static constexpr bool kCoordinates = COORDINATES;
  static constexpr int kThreads = LANES <= 32 ? 256 : 512, kTile = kThreads / LANES, kSlots = LANES * kKeys;
  // In shared memory a row has a tile's points of one index. The pitch lets the lanes of a warp read a column each without conflicts.
  static constexpr int kPitch = LANES <= 32 ? kTile + 32 / LANES : kTile | 1;
  static constexpr bool kFloat = std::is_same<T, float>::value, kShortKey = kFloat && LANES <= 8;
  static constexpr int kIndexBits = kFloat && !kShortKey ? 32 : LANES == 4 ? 5 : LANES == 8 ? 6 : LANES == 16 ? 7 : LANES == 32 ? 8 : 12;
  using Key = typename std::conditional<kShortKey, uint32_t, uint64_t>::type;
  using Length = typename std::conditional<kFloat, uint32_t, uint64_t>::type;
  using Level = typename std::conditional<WEIGHTED, int64_t, int32_t>::type;
  // One turn in fixed point: two of them are a Length.
  static constexpr int kTurnBits = kShortKey ? 32 - kIndexBits : kFloat ? 31 : 63 - kIndexBits;
  static constexpr size_t kShared = std::max(kSlots * kPitch * sizeof(T), LANES > 32 ? kThreads * kKeys * sizeof(Key) : 0);
};

// The points that a thread brings from and to device memory, as many as it sorts and coalesced: threads are neighbouring problems or, where
// a problem's points lie next to each other (P = 1), neighbouring points.
template <typename F>
struct Traffic {
  int n, N, live;  // live: problems of the tile that there are
  int64_t P, pitch, u_base, v_base;  // pitch: from a point to the next one of its set

  template <typename T>
  __device__ Traffic(const CircularProblems<T>& q, int64_t first, int64_t problems)
      : n(int(q.n)), N(int(q.n + q.m)), live(int(problems - first < F::kTile ? problems - first : F::kTile)), P(q.P),
        pitch(F::kCoordinates ? 2 * P : P) {
    const int64_t problem = P == 1 ? first : first + int(threadIdx.x) % F::kTile, b = problem / P, p = problem % P;
    u_base = b * q.n * pitch + p, v_base = (b * q.m - q.n) * pitch + p;
  }
  // f(whether of u, place in its array, place in the tile) for each of the thread's points.
  template <typename G>
  __device__ void for_each(G f) const {
    if (P == 1) {
#pragma unroll
      for (int j = 0; j < kKeys; ++j) {
        const int e = int(threadIdx.x) + j * F::kThreads, column = e / N, i = e % N;
        const int row = (i < n ? column * n : column * (N - n)) + i;
        if (column < live) f(i < n, (i < n ? u_base : v_base) + row * pitch, i * F::kPitch + column);
      }
    } else {
      const int column = int(threadIdx.x) % F::kTile;
#pragma unroll
      for (int j = 0; j < kKeys; ++j) {
        const int i = int(threadIdx.x) / F::kTile + j * (F::kThreads / F::kTile);
        if (i < N && column < live) f(i < n, (i < n ? u_base : v_base) + i * pitch, i * F::kPitch + column);
      }
    }
  }
};

template <typename T, int LANES, bool WEIGHTED, bool COORDINATES>
__global__ void __launch_bounds__((Form<T, LANES, WEIGHTED, COORDINATES>::kThreads), LANES <= 32 ? 2 : 1)
    tile_kernel(CircularProblems<T> q, int64_t problems, Units<typename Form<T, LANES, WEIGHTED, COORDINATES>::Level> units) {
  using F = Form<T, LANES, WEIGHTED, COORDINATES>;
  using Key = typename F::Key;
  using Length = typename F::Length;
  using Level = typename F::Level;
  using Total = typename std::conditional<F::kFloat && !WEIGHTED, uint64_t, double>::type;
  constexpr Length kTurn = Length(1) << F::kTurnBits;
  TS_DYNAMIC_SHARED(unsigned char, shared);
  T* const x = reinterpret_cast<T*>(shared);            // (kSlots, kPitch): points, then what is written for them
  Key* const through = reinterpret_cast<Key*>(shared);  // while sorting
  const int n = int(q.n), m = int(q.m), N = n + m, lane = group_lane<LANES>(), column = int(threadIdx.x) / LANES;
  const int64_t first = int64_t(blockIdx.x) * F::kTile, problem = first + column;

  const Traffic<F> traffic(q, first, problems);
  traffic.for_each([&](bool of_u, int64_t from, int to) {
    const T* const z = (of_u ? q.u : q.v) + from;
    x[to] = COORDINATES ? angle_turns(z[0], z[q.P]) : z[0];
  });
  __syncthreads();
  int bad = 0;
  Key key[kKeys];
#pragma unroll
  for (int j = 0; j < kKeys; ++j) {
    const int i = j * LANES + lane;
    key[j] = ~Key(0);  // sorts to the end
    if (i < N) key[j] = Key(fixed_point<Length>(x[i * F::kPitch + column], F::kTurnBits, bad)) << F::kIndexBits | Key(i);
  }
  group_sync<LANES>();
  group_sort<LANES>(key, through);

  const auto index = [&](int j) { return int(key[j] & ((Key(1) << F::kIndexBits) - 1)); };
  const auto is_point = [&](int j) { return lane * kKeys + j < N; };
  Share<Length, Level> s;
  Length start, next = group_next<LANES>(Length(key[0] >> F::kIndexBits), start);
  if (!is_point(kKeys)) next = start + kTurn;
#pragma unroll
  for (int j = kKeys - 1; j >= 0; --j) {
    const Length position = is_point(j) ? Length(key[j] >> F::kIndexBits) : start + kTurn;
    s.gap[j] = next - position;
    next = position;
  }
  const int64_t set = (problem < problems ? problem : problems - 1) / q.P;
#pragma unroll
  for (int j = 0; j < kKeys; ++j) {
    const int i = index(j);
    s.weight[j] = 0;
    if (!is_point(j)) continue;
    if constexpr (WEIGHTED)
      s.weight[j] = i < n ? weight_in_units(q.u_weights[set * n + i], bad) : -weight_in_units(q.v_weights[set * m + i - n], bad);
    else
      s.weight[j] = i < n ? units.up : -units.down;
  }
  const Level last = s.template accumulate<LANES>(0);
  const T poison = group_sum<LANES>(bad) ? T(NAN) : T(0);

  // The median: the smallest level with at least half the circle at or below it.
  Level M = -units.most, high = units.most;
  for (uint64_t width = 2 * uint64_t(units.most); width > 0; width /= 2) {
    const Level middle = M + (high - M) / 2;
    if (group_sum<LANES>(s.length_up_to(middle)) >= kTurn / 2) high = middle;
    else M = middle + 1;
  }

  Total total = 0;
#pragma unroll
  for (int j = 0; j < kKeys; ++j) {
    const Level before = lane == 0 && j == 0 ? last : s.level[j] - s.weight[j];
    const Level away = distance(s.level[j], M);
    total += Total(away) * Total(s.gap[j]);
    if (is_point(j)) x[index(j) * F::kPitch + column] = T(distance(before, M) - away) * T(units.unit) + poison;
  }
  total = group_sum<LANES>(total);
  if (lane == 0 && problem < problems) q.cost[problem] = T(double(total) * (units.unit / double(kTurn))) + poison;
  __syncthreads();
  if constexpr (COORDINATES) {  // a byte a thread: a problem has 8 LANES slots, and a tile 256 / LANES problems
    const int to = int(threadIdx.x) % F::kTile, byte = int(threadIdx.x) / F::kTile, bytes = (N + 7) / 8;
    if (to >= traffic.live || byte >= bytes) return;
    unsigned bits = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j)
      if (8 * byte + j < N && x[(8 * byte + j) * F::kPitch + to] > T(0)) bits |= 1u << j;
    q.rises[((first + to) / q.P * bytes + byte) * q.P + (first + to) % q.P] = uint8_t(bits);
    return;
  }
  traffic.for_each([&](bool of_u, int64_t to, int from) { (of_u ? q.u_slope : q.v_slope)[to] = x[from]; });

  if constexpr (WEIGHTED) {
    // The sign at the median's own gaps is the one with which all gaps times their signs sum to 0.
    const Length below = group_sum<LANES>(s.length_up_to(M - 1)), up_to = group_sum<LANES>(s.length_up_to(M));
    const double own = (double(below) - double(kTurn - up_to)) / double(up_to - below);
    double rise[kKeys], sum = 0, all;  // over the gaps up to each
#pragma unroll
    for (int j = 0; j < kKeys; ++j)
      rise[j] = sum += double(s.gap[j]) * (1.0 / double(kTurn)) * (s.level[j] > M ? 1.0 : s.level[j] < M ? -1.0 : own);
    const double ahead = group_scan<LANES>(sum, all);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      const double potential = all - ahead - (j ? rise[j - 1] : 0.0);  // over the gaps at or after the point
      if (is_point(j)) x[index(j) * F::kPitch + column] = T(index(j) < n ? potential : -potential) + poison;
    }
    __syncthreads();
    traffic.for_each([&](bool of_u, int64_t to, int from) { (of_u ? q.u_potential : q.v_potential)[to] = x[from]; });
  }
}

template <typename T, int LANES, bool WEIGHTED, bool COORDINATES = false>
cudaError_t solve_in_tiles(const CircularProblems<T>& q, int64_t problems, cudaStream_t stream) {
  using F = Form<T, LANES, WEIGHTED, COORDINATES>;
  if constexpr (LANES < (COORDINATES ? 32 : 512))
    if (q.n + q.m > F::kSlots) return solve_in_tiles<T, LANES * 2, WEIGHTED, COORDINATES>(q, problems, stream);
  using Level = typename F::Level;
  const unsigned blocks = unsigned((problems + F::kTile - 1) / F::kTile);
  return TS_LAUNCH((tile_kernel<T, LANES, WEIGHTED, COORDINATES>), blocks, F::kThreads, F::kShared, stream, q, problems,
                   (units<T, Level, WEIGHTED>(q.n, q.m)));
}

}  // namespace

template <typename T>
int64_t circular_wasserstein_workspace(int64_t points, int64_t problems) {
  if (points <= kTilePoints) return 0;
  return large::Space<T>(nullptr, large::at_once(points, problems), large::tiles_of(points)).bytes;
}

template <typename T>
cudaError_t circular_wasserstein_cuda(const CircularProblems<T>& q, int64_t problems, void* workspace, cudaStream_t stream) {
  if (problems == 0) return cudaSuccess;
  if (q.rises) return solve_in_tiles<T, 4, false, true>(q, problems, stream);
  const auto solve = [&](auto weighted) {
    if (q.n + q.m > kTilePoints) return large::solve<T, weighted>(q, problems, workspace, stream);
    return solve_in_tiles<T, 4, weighted>(q, problems, stream);
  };
  return q.u_weights ? solve(std::true_type()) : solve(std::false_type());
}

#define TS_INSTANTIATE(T)                                                    \
  template int64_t circular_wasserstein_workspace<T>(int64_t, int64_t);      \
  template cudaError_t circular_wasserstein_cuda(const CircularProblems<T>&, int64_t, void*, cudaStream_t);
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
