// Problems of any size, in device memory: tiles of 4096 points are sorted by a block each and merged in passes; the levels' median is found
// digit by digit; cost and slopes follow in two more passes. A block is a tile of one problem, and neighbouring blocks are neighbouring
// problems, whose points share cache lines. No launch depends on data. Sums over tiles are made in one order; only whole numbers are added
// by atomics.
#pragma once
#include <algorithm>
#include <type_traits>
#include <utility>

#include "circular_wasserstein.h"
#include "cuda/circular_wasserstein.cuh"
#include "cuda/lanes.cuh"
#include "cuda/launch.cuh"

namespace transphere {
namespace large {

constexpr int kThreads = 512, kPoints = kThreads * kKeys, kIndexBits = 12;  // of a tile
constexpr int kDigitBits = 9, kBins = 1 << kDigitBits, kMostDigits = 7;     // a thread a bin; 62 bits of a level
constexpr int64_t kAtOnce = 1 << 22;                                        // points: enough to fill a device

using Total = unsigned long long;

// Positions in turns: 31 bits, or what a tile's key has beside the index.
template <typename T>
using Position = typename std::conditional<sizeof(T) == 4, uint32_t, uint64_t>::type;
template <typename T>
constexpr int kTurnBits = sizeof(T) == 4 ? 31 : 63 - kIndexBits;
template <typename T>
constexpr Position<T> kTurn = Position<T>(1) << kTurnBits<T>;

// The workspace of `count` problems; their points are padded to whole tiles.
template <typename T>
struct Space {
  int64_t count, tiles;
  Total* histogram;  // (count, kMostDigits, kBins): length of the circle by digit of the level
  int* bad;          // (count) padded to even: whether there is a NaN or an infinity
  int64_t* weight;   // (count, tiles) sums over a tile, as the next two
  double *cost, *rise;
  Position<T>*position, *next_position;  // (count, tiles * kPoints): sorted in runs, and what a merge makes of them
  int *index, *next_index;

  Space(void* memory, int64_t count, int64_t tiles) : count(count), tiles(tiles) {
    char* at = static_cast<char*>(memory);
    const auto take = [&](auto*& array, int64_t size) {
      array = reinterpret_cast<typename std::remove_reference<decltype(array)>::type>(at);
      at += (size * int64_t(sizeof(*array)) + 15) / 16 * 16;
    };
    take(histogram, count * kMostDigits * kBins);
    take(bad, count);
    take(weight, count * tiles);
    take(cost, count * tiles);
    take(rise, count * tiles);
    for (auto* array : {&position, &next_position}) take(*array, count * tiles * kPoints);
    for (auto* array : {&index, &next_index}) take(*array, count * tiles * kPoints);
    bytes = at - static_cast<char*>(memory);
  }
  int64_t bytes;
};

// What a block works on.
struct Block {
  int64_t local, tile, problem, b, p;  // problem `local` of the workspace's, circle p of set b of all
  template <typename T>
  __device__ Block(const Space<T>& space, int64_t first, int64_t P)
      : local(blockIdx.x % space.count), tile(blockIdx.x / space.count), problem(first + local), b(problem / P), p(problem % P) {}
  __device__ int64_t slot() const { return tile * kPoints + threadIdx.x * kKeys; }  // the thread's first sorted point
};

// Eight neighbours, aligned to 16 bytes.
template <typename V>
struct alignas(16) Words {
  V value[16 / sizeof(V)];
};
template <typename V>
__device__ void load(V (&to)[kKeys], const V* from) {
#pragma unroll
  for (int j = 0; j < kKeys; j += 16 / sizeof(V)) {
    const Words<V> words = *reinterpret_cast<const Words<V>*>(from + j);
#pragma unroll
    for (int k = 0; k < int(16 / sizeof(V)); ++k) to[j + k] = words.value[k];
  }
}
template <typename V>
__device__ void store(V* to, const V (&from)[kKeys]) {
#pragma unroll
  for (int j = 0; j < kKeys; j += 16 / sizeof(V)) {
    Words<V> words;
#pragma unroll
    for (int k = 0; k < int(16 / sizeof(V)); ++k) words.value[k] = from[j + k];
    *reinterpret_cast<Words<V>*>(to + j) = words;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) sort_kernel(CircularProblems<T> q, Space<T> space, int64_t first) {
  TS_DYNAMIC_SHARED(uint64_t, through);
  const Block at(space, first, q.P);
  const int64_t n = q.n, m = q.m, base = at.tile * kPoints;
  int bad = 0;
  uint64_t key[kKeys];
#pragma unroll
  for (int j = 0; j < kKeys; ++j) {
    const int k = j * kThreads + int(threadIdx.x);
    const int64_t i = base + k;
    key[j] = ~uint64_t(0);
    if (i >= n + m) continue;
    const T x = i < n ? q.u[(at.b * n + i) * q.P + at.p] : q.v[(at.b * m + i - n) * q.P + at.p];
    key[j] = uint64_t(fixed_point<Position<T>>(x, kTurnBits<T>, bad)) << kIndexBits | uint64_t(k);
  }
  if (bad) atomicOr(&space.bad[at.local], 1);
  group_sort<kThreads>(key, through);
  Position<T> position[kKeys];
  int index[kKeys];
#pragma unroll
  for (int j = 0; j < kKeys; ++j) {
    position[j] = Position<T>(key[j] >> kIndexBits);
    index[j] = int(base) + int(key[j] & (kPoints - 1));
  }
  const int64_t slot = at.local * space.tiles * kPoints + at.slot();
  store(space.position + slot, position);
  store(space.index + slot, index);
}

// How many of the first d of two merged runs come from a, equal ones from a first.
template <typename P, typename I>
__device__ I merge_path(const P* a, I a_size, const P* b, I b_size, I d) {
  I low = d > b_size ? d - b_size : 0, high = d < a_size ? d : a_size;
  while (low < high) {
    const I middle = (low + high) / 2;
    if (a[middle] <= b[d - 1 - middle]) low = middle + 1;
    else high = middle;
  }
  return low;
}

// Pairs of runs of `width` points into one; a block writes a tile.
template <typename T>
__global__ void __launch_bounds__(kThreads) merge_kernel(Space<T> space, int64_t points, int64_t width) {
  TS_DYNAMIC_SHARED(Position<T>, a);  // the block's part of both runs
  const Block at(space, 0, 1);
  const int64_t row = at.local * space.tiles * kPoints, start = at.tile * kPoints / (2 * width) * (2 * width);
  const int64_t a_size = std::min(width, points - start), b_size = std::min(2 * width, points - start) - a_size;
  const Position<T>* const run = space.position + row + start;
  const int64_t begin = at.tile * kPoints - start, end = std::min(begin + kPoints, a_size + b_size);
  __shared__ int64_t cut[2];
  if (threadIdx.x % 32 == 0 && threadIdx.x < 64)
    cut[threadIdx.x / 32] = merge_path(run, a_size, run + a_size, b_size, threadIdx.x ? end : begin);
  __syncthreads();
  const int64_t a_begin = cut[0], b_begin = a_size + begin - a_begin;
  const int a_part = int(cut[1] - a_begin), part = int(end - begin);
  for (int i = int(threadIdx.x); i < part; i += kThreads) a[i] = run[i < a_part ? a_begin + i : b_begin + i - a_part];
  __syncthreads();

  const Position<T>* const b = a + a_part;
  const int d = std::min(int(threadIdx.x) * kKeys, part), b_part = part - a_part;
  int i = merge_path(a, a_part, b, b_part, d), k = d - i;
  const int* const runs_index = space.index + row + start;
  Position<T> position[kKeys];
  int index[kKeys];
#pragma unroll
  for (int j = 0; j < kKeys; ++j) {
    position[j] = 0, index[j] = 0;
    if (d + j >= part) continue;
    const bool of_a = k >= b_part || (i < a_part && a[i] <= b[k]);
    position[j] = of_a ? a[i] : b[k];
    index[j] = runs_index[of_a ? a_begin + i : b_begin + k];
    if (of_a) ++i;
    else ++k;
  }
  store(space.next_position + row + at.slot(), position);
  store(space.next_index + row + at.slot(), index);
}

template <typename T, bool WEIGHTED>
struct Tile {
  Share<Position<T>, int64_t> share;
  int index[kKeys];
  int points;  // of the thread's

  // Sorted points, gaps and weights.
  __device__ Tile(const CircularProblems<T>& q, const Units<int64_t>& units, const Space<T>& space, const Block& at, int& bad) {
    const int64_t N = q.n + q.m, slot = at.slot();
    const Position<T>* const row = space.position + at.local * space.tiles * kPoints;
    Position<T> position[kKeys];
    load(position, row + slot);
    load(index, space.index + at.local * space.tiles * kPoints + slot);
    points = int(std::min<int64_t>(kKeys, std::max<int64_t>(N - slot, 0)));
    const Position<T> end = row[0] + kTurn<T>;
    Position<T> next = slot + kKeys < N ? row[slot + kKeys] : end;
#pragma unroll
    for (int j = kKeys - 1; j >= 0; --j) {
      const Position<T> here = j < points ? position[j] : end;
      share.gap[j] = next - here;
      next = here;
    }
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      const int64_t i = index[j];
      share.weight[j] = 0;
      if (j >= points) continue;
      if constexpr (WEIGHTED)
        share.weight[j] = i < q.n ? weight_in_units(q.u_weights[at.b * q.n + i], bad)
                                  : -weight_in_units(q.v_weights[at.b * q.m + i - q.n], bad);
      else
        share.weight[j] = i < q.n ? units.up : -units.down;
    }
  }
};

// The sums over the problem's tiles before `end`, in one order.
template <typename V>
__device__ V sum_of_tiles(const V* sums, int64_t end) {
  V sum = 0;
  for (int64_t t = threadIdx.x; t < end; t += kThreads) sum += sums[t];
  return group_sum<kThreads>(sum);
}

template <typename T, bool WEIGHTED>
__global__ void __launch_bounds__(kThreads) weigh_kernel(CircularProblems<T> q, Units<int64_t> units, Space<T> space, int64_t first) {
  const Block at(space, first, q.P);
  int bad = 0;
  const Tile<T, WEIGHTED> tile(q, units, space, at, bad);
  if (bad) atomicOr(&space.bad[at.local], 1);
  int64_t sum = 0;
#pragma unroll
  for (int j = 0; j < kKeys; ++j) sum += tile.share.weight[j];
  sum = group_sum<kThreads>(sum);
  if (threadIdx.x == 0) space.weight[at.local * space.tiles + at.tile] = sum;
}

// The leading digits of the median level: the smallest with half the circle at or below it.
struct Median {
  uint64_t digits = 0;  // of the level above the lowest one
  Total below = 0, own = 0;

  template <typename T>
  __device__ Median(const Space<T>& space, const Block& at, int known) {
    __shared__ uint64_t found[3];
    for (int k = 0; k < known; ++k) {
      const Total length = space.histogram[(at.local * kMostDigits + k) * kBins + threadIdx.x];
      Total all;
      const Total before = below + group_scan<kThreads>(length, all);
      if (before < kTurn<T> / 2 && before + length >= kTurn<T> / 2) found[0] = threadIdx.x, found[1] = before, found[2] = length;
      __syncthreads();
      digits = digits << kDigitBits | found[0], below = found[1], own = found[2];
      __syncthreads();
    }
  }
};

// Digit `known` of the levels whose digits before are the median's, counted by length of the circle.
template <typename T, bool WEIGHTED>
__global__ void __launch_bounds__(kThreads)
    count_kernel(CircularProblems<T> q, Units<int64_t> units, Space<T> space, int64_t first, int known, int digits) {
  __shared__ Total bins[kBins];
  const Block at(space, first, q.P);
  const Median median(space, at, known);
  bins[threadIdx.x] = 0;
  int bad = 0;
  Tile<T, WEIGHTED> tile(q, units, space, at, bad);
  tile.share.template accumulate<kThreads>(sum_of_tiles(space.weight + at.local * space.tiles, at.tile));
  const int shift = kDigitBits * (digits - 1 - known);
  int bin = -1;  // neighbouring levels are close: what falls into one bin is added at once
  Total length = 0;
#pragma unroll
  for (int j = 0; j < kKeys; ++j) {
    const uint64_t level = uint64_t(tile.share.level[j] + units.most) >> shift;
    if (tile.share.gap[j] == 0 || level >> kDigitBits != median.digits) continue;
    const int of = int(level & (kBins - 1));
    if (of != bin && bin >= 0) atomicAdd(&bins[bin], length), length = 0;
    bin = of;
    length += tile.share.gap[j];
  }
  if (bin >= 0) atomicAdd(&bins[bin], length);
  __syncthreads();
  if (bins[threadIdx.x]) atomicAdd(&space.histogram[(at.local * kMostDigits + known) * kBins + threadIdx.x], bins[threadIdx.x]);
}

// The sign of a level less the median, and at the median the one with which all gaps times their signs sum to 0.
template <typename T>
struct Sign {
  int64_t M;
  double own;
  __device__ Sign(const Median& median, int64_t most)
      : M(int64_t(median.digits) - most), own((double(median.below) - double(kTurn<T> - median.below - median.own)) / double(median.own)) {}
  __device__ double operator()(int64_t level) const { return level > M ? 1.0 : level < M ? -1.0 : own; }
};

// A tile's cost and, with weights, its gaps times their signs.
template <typename T, bool WEIGHTED>
__global__ void __launch_bounds__(kThreads)
    measure_kernel(CircularProblems<T> q, Units<int64_t> units, Space<T> space, int64_t first, int digits) {
  const Block at(space, first, q.P);
  const Median median(space, at, digits);
  const Sign<T> sign(median, units.most);
  int bad = 0;
  Tile<T, WEIGHTED> tile(q, units, space, at, bad);
  tile.share.template accumulate<kThreads>(sum_of_tiles(space.weight + at.local * space.tiles, at.tile));
  double cost = 0, rise = 0;
#pragma unroll
  for (int j = 0; j < kKeys; ++j) {
    const double gap = double(tile.share.gap[j]), level = double(distance(tile.share.level[j], sign.M));
    cost += level * gap;
    if constexpr (WEIGHTED) rise += sign(tile.share.level[j]) * gap;
  }
  cost = group_sum<kThreads>(cost);
  if (threadIdx.x == 0) space.cost[at.local * space.tiles + at.tile] = cost;
  if constexpr (WEIGHTED) {
    rise = group_sum<kThreads>(rise);
    if (threadIdx.x == 0) space.rise[at.local * space.tiles + at.tile] = rise;
  }
}

template <typename T, bool WEIGHTED>
__global__ void __launch_bounds__(kThreads)
    write_kernel(CircularProblems<T> q, Units<int64_t> units, Space<T> space, int64_t first, int digits) {
  const Block at(space, first, q.P);
  const int64_t n = q.n, m = q.m, sums = at.local * space.tiles;
  const T poison = space.bad[at.local] ? T(NAN) : T(0);
  const auto place = [&](int64_t i, T* u, T* v) { return i < n ? u + (at.b * n + i) * q.P + at.p : v + (at.b * m + i - n) * q.P + at.p; };
  if (at.tile == 0) {
    const double cost = sum_of_tiles(space.cost + sums, space.tiles);
    if (threadIdx.x == 0) q.cost[at.problem] = T(cost * (units.unit / double(kTurn<T>))) + poison;
  }
  const Median median(space, at, digits);
  const Sign<T> sign(median, units.most);
  int bad = 0;
  Tile<T, WEIGHTED> tile(q, units, space, at, bad);
  tile.share.template accumulate<kThreads>(sum_of_tiles(space.weight + sums, at.tile));
  const int64_t last = WEIGHTED ? sum_of_tiles(space.weight + sums, space.tiles) : 0;
#pragma unroll
  for (int j = 0; j < kKeys; ++j) {
    if (j >= tile.points) continue;
    const int64_t level = tile.share.level[j], before = at.slot() + j == 0 ? last : level - tile.share.weight[j];
    *place(tile.index[j], q.u_slope, q.v_slope) = T(distance(before, sign.M) - distance(level, sign.M)) * T(units.unit) + poison;
  }
  if constexpr (WEIGHTED) {
    const double all = sum_of_tiles(space.rise + sums, space.tiles);
    double rise[kKeys], sum = 0, total;  // over the gaps before each
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      rise[j] = sum;
      sum += sign(tile.share.level[j]) * double(tile.share.gap[j]);
    }
    const double ahead = sum_of_tiles(space.rise + sums, at.tile) + group_scan<kThreads>(sum, total);
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      if (j >= tile.points) continue;
      const double potential = (all - ahead - rise[j]) / double(kTurn<T>);  // over the gaps at or after the point
      *place(tile.index[j], q.u_potential, q.v_potential) = T(tile.index[j] < n ? potential : -potential) + poison;
    }
  }
}

inline int64_t tiles_of(int64_t points) { return (points + kPoints - 1) / kPoints; }
inline int64_t at_once(int64_t points, int64_t problems) { return std::min(problems, std::max<int64_t>(1, kAtOnce / points)); }

template <typename T, bool WEIGHTED>
cudaError_t solve(const CircularProblems<T>& q, int64_t problems, void* workspace, cudaStream_t stream) {
  const int64_t N = q.n + q.m, tiles = tiles_of(N), most = at_once(N, problems);
  const Units<int64_t> u = units<T, int64_t, WEIGHTED>(q.n, q.m);
  int digits = 1;
  while (2 * uint64_t(u.most) >> (kDigitBits * digits)) ++digits;
  for (int64_t first = 0; first < problems; first += most) {
    Space<T> space(workspace, std::min(most, problems - first), tiles);
    const unsigned blocks = unsigned(space.count * tiles);
    const size_t shared = kPoints * sizeof(uint64_t);
    const int64_t zeroed = reinterpret_cast<char*>(space.weight) - static_cast<char*>(workspace);  // the histogram and bad
    cudaError_t error = cudaMemsetAsync(workspace, 0, size_t(zeroed), stream);
    const auto run = [&](auto launch) {
      if (error == cudaSuccess) error = launch();
    };
    run([&] { return TS_LAUNCH(sort_kernel<T>, blocks, kThreads, shared, stream, q, space, first); });
    for (int64_t width = kPoints; width < N; width *= 2) {
      run([&] { return TS_LAUNCH(merge_kernel<T>, blocks, kThreads, kPoints * sizeof(Position<T>), stream, space, N, width); });
      std::swap(space.position, space.next_position);
      std::swap(space.index, space.next_index);
    }
    run([&] { return TS_LAUNCH((weigh_kernel<T, WEIGHTED>), blocks, kThreads, 0, stream, q, u, space, first); });
    for (int known = 0; known < digits; ++known)
      run([&] { return TS_LAUNCH((count_kernel<T, WEIGHTED>), blocks, kThreads, 0, stream, q, u, space, first, known, digits); });
    run([&] { return TS_LAUNCH((measure_kernel<T, WEIGHTED>), blocks, kThreads, 0, stream, q, u, space, first, digits); });
    run([&] { return TS_LAUNCH((write_kernel<T, WEIGHTED>), blocks, kThreads, 0, stream, q, u, space, first, digits); });
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace large
}  // namespace transphere
