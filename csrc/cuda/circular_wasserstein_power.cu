// One block per problem, in double, its arrays in shared memory, or in a workspace of the block where they do not fit. The names are those
// of csrc/circular_wasserstein_power.h; x is the larger set. Nothing is merged: who is whose partner at a level is found by a search.
#include "circular_wasserstein_power.h"

#include <numeric>
#include <utility>

#include "cuda/launch.cuh"
#include "cuda/warp.cuh"

namespace transphere {
namespace {

constexpr int kMaxThreads = 256;
constexpr int64_t kPointBytes = 20;
constexpr int64_t kSharedPoints = 2048;
constexpr int64_t kWorkspaceBlocks = 132;

__device__ inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

// c(d) = |d|^p, and its derivative over p.
template <bool kSquare>
struct Cost {
  double p;
  __device__ double cost(double d) const { return kSquare ? d * d : pow(fabs(d), p); }
  __device__ double slope(double d) const { return kSquare ? d : copysign(pow(fabs(d), p - 1), d); }
};

// Bitonic sort of (key, index) pairs by a block, ties by index; `size` a power of two.
__device__ void block_sort(double* key, int* index, int64_t size) {
  for (int64_t width = 2; width <= size; width *= 2)
    for (int64_t step = width / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
        const int64_t j = i ^ step;
        if (j <= i) continue;
        const bool greater = key[i] > key[j] || (key[i] == key[j] && index[i] > index[j]);
        if (greater == ((i & width) == 0)) {
          const double k = key[i];
          key[i] = key[j], key[j] = k;
          const int x = index[i];
          index[i] = index[j], index[j] = x;
        }
      }
    }
  __syncthreads();
}

// Inclusive sum of n values, in tiles of a block.
template <typename T, typename Load, typename Store>
__device__ void block_cumulate(int64_t n, Load load, Store store) {
  T carry = 0;
  for (int64_t base = 0; base < n; base += blockDim.x) {
    const int64_t i = base + threadIdx.x;
    T total;
    const T sum = block_scan(i < n ? load(i) : T(0), total);
    if (i < n) store(i, carry + sum);
    carry += total;
  }
  __syncthreads();
}

// A set in a block's memory, sorted. Point i + n is point i a turn later, and so are the levels.
template <bool kWeighted>
struct Set {
  int64_t n, size, step;  // size: n padded to a power of two; step: the mass of a point, without weights
  double* z;
  int64_t* level;
  int* order;

  __device__ double at(int64_t i) const {
    const int64_t turns = floor_div(i, n);
    return z[i - turns * n] + double(turns);
  }
  __device__ int64_t end(int64_t i) const {  // where the mass of point i ends
    if (!kWeighted) return (i + 1) * step;
    const int64_t turns = floor_div(i, n);
    return level[i - turns * n] + turns * kWeightUnit;
  }
  // The point whose mass holds a level, on its right or its left side.
  __device__ int64_t holder(int64_t where, bool right) const {
    const int64_t inside = right ? where : where - 1;
    if (!kWeighted) return floor_div(inside, step);
    const int64_t turns = floor_div(inside, kWeightUnit), within = inside - turns * kWeightUnit;  // the first level above it
    int64_t low = 0, high = n - 1;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (level[middle] > within) high = middle;
      else low = middle + 1;
    }
    return low + turns * n;
  }

  // Returns 0, or NaN when a point is not finite.
  template <typename T>
  __device__ double load(const T* points, int64_t P) {
    double bad = 0;
    for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
      double t = INFINITY;  // padding sorts to the end
      if (i < n) {
        const T r = points[i * P] - floor(points[i * P]);
        bad += double(r - r);
        t = r < T(1) ? double(r) : 0.0;
      }
      z[i] = t, order[i] = int(i);
    }
    block_sort(z, order, size);
    return block_sum(bad);
  }

  // The levels; what rounding leaves goes to the last weight. Returns 0, or NaN when the weights are none.
  template <typename T>
  __device__ double accumulate(const T* weights) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += weights[i] >= T(0) ? double(weights[i]) : double(NAN);
    sum = block_sum(sum);
    if (!(sum > 0 && sum - sum == 0)) return double(NAN);
    block_cumulate<int64_t>(
        n, [&](int64_t i) { return int64_t(double(weights[order[i]]) / sum * double(kWeightUnit)); },
        [&](int64_t i, int64_t upto) { level[i] = upto; });
    const int64_t last = level[n - 1];
    __syncthreads();
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
      if (level[i] >= last) level[i] = kWeightUnit;
    __syncthreads();
    return 0;
  }
};

template <bool kWeighted, bool kSquare>
struct Solver {
  const Cost<kSquare> c;
  const Set<kWeighted> x, y;
  const int64_t turn;

  // f'(k); how far the cut can move to the left without a change, and to the right before there is one.
  __device__ double slope(int64_t k, int64_t& left, int64_t& right) const {
    double sum = 0;
    left = right = kWeighted ? turn : 1;
    for (int64_t j = threadIdx.x; j < y.n; j += blockDim.x) {
      const int64_t t = y.end(j) + k, i = x.holder(t, true);
      const double a = x.at(i);
      sum += c.cost(a - y.z[j]) - c.cost(a - y.at(j + 1));
      if (kWeighted) {
        const int64_t to_right = x.end(i) - t, to_left = t - x.end(i - 1);
        right = to_right < right ? to_right : right;
        left = to_left < left ? to_left : left;
      }
    }
    if (kWeighted) right = block_min(right), left = block_min(left);
    else left = 0;
    return block_sum(sum);
  }

  __device__ int64_t best_cut() const {
    int64_t low = -turn, high = turn, left, right;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      const bool rises = slope(middle, left, right) >= 0;
      if (!rises) low = middle + right;
      else high = middle - left > low ? middle - left : low;
    }
    return high;
  }

  // Over the pieces of point i of a set, whose partners' cut is k: f(mass, difference).
  template <typename F>
  __device__ void pieces(const Set<kWeighted>& set, const Set<kWeighted>& partner, int64_t i, int64_t k, F f) const {
    int64_t from = set.end(i - 1);
    const int64_t end = set.end(i);
    for (int64_t j = partner.holder(from - k, true); from < end; ++j) {
      const int64_t next = partner.end(j) + k, to = next < end ? next : end;
      f(double(to - from) / double(turn), set.at(i) - partner.at(j));
      from = to;
    }
  }

  __device__ double cost(int64_t k) const {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < x.n; i += blockDim.x)
      pieces(x, y, i, k, [&](double mass, double d) { sum += mass * c.cost(d); });
    return block_sum(sum);
  }

  template <typename T>
  __device__ void slopes(const Set<kWeighted>& set, const Set<kWeighted>& partner, int64_t k, double scale, T* out, int64_t P) const {
    for (int64_t i = threadIdx.x; i < set.n; i += blockDim.x) {
      double sum = 0;
      pieces(set, partner, i, k, [&](double mass, double d) { sum += mass * c.slope(d); });
      out[set.order[i] * P] = T(sum * scale);
    }
  }

  // `share` is that of the cut k, the rest that of the one before it, `toward` whether the partner's levels move up with the cut or down.
  template <typename T>
  __device__ void potentials(const Set<kWeighted>& set, const Set<kWeighted>& partner, int64_t k, int64_t toward, double share,
                             double scale, T* out, int64_t P) const {
    const auto climb = [&](int64_t i) {
      if (i == 0) return 0.0;
      const double here = set.z[i - 1], next = set.z[i];
      double sum = 0;
      for (int side = 0; side < 2; ++side) {
        const double a = partner.at(partner.holder(set.end(i - 1) - toward * (k - side), toward < 0));
        sum += (side ? 1 - share : share) * (c.cost(next - a) - c.cost(here - a));
      }
      return sum;
    };
    block_cumulate<double>(set.n, climb, [&](int64_t i, double sum) { out[set.order[i] * P] = T(sum * scale); });
  }
};

template <typename T, bool kWeighted, bool kSquare>
__global__ void __launch_bounds__(kMaxThreads, 2)
    circular_wasserstein_power_kernel(CircularPowerProblems<T> q, int64_t problems, int64_t turn, int64_t size_x, int64_t size_y,
                                      char* workspace) {
  TS_DYNAMIC_SHARED(double, shared);
  double* const memory = workspace ? reinterpret_cast<double*>(workspace + blockIdx.x * (size_x + size_y) * kPointBytes) : shared;
  int64_t* const levels = reinterpret_cast<int64_t*>(memory + size_x + size_y);
  int* const orders = reinterpret_cast<int*>(levels + size_x + size_y);
  Set<kWeighted> x{q.n, size_x, turn / q.n, memory, levels, orders};
  Set<kWeighted> y{q.m, size_y, turn / q.m, memory + size_x, levels + size_x, orders + size_x};

  for (int64_t problem = blockIdx.x; problem < problems; problem += gridDim.x) {
    const int64_t b = problem / q.P, at_x = b * q.n * q.P + problem % q.P, at_y = b * q.m * q.P + problem % q.P;
    double bad = x.load(q.u + at_x, q.P);
    bad += y.load(q.v + at_y, q.P);
    if (kWeighted) {
      bad += x.accumulate(q.u_weights + b * q.n);
      bad += y.accumulate(q.v_weights + b * q.m);
    }
    if (bad != 0) {  // NaN
      if (threadIdx.x == 0) q.distance[problem] = T(bad);
      for (int64_t i = threadIdx.x; i < q.n; i += blockDim.x) {
        q.u_slope[at_x + i * q.P] = T(bad);
        if (kWeighted) q.u_potential[at_x + i * q.P] = T(bad);
      }
      for (int64_t j = threadIdx.x; j < q.m; j += blockDim.x) {
        q.v_slope[at_y + j * q.P] = T(bad);
        if (kWeighted) q.v_potential[at_y + j * q.P] = T(bad);
      }
      __syncthreads();
      continue;
    }
    const Solver<kWeighted, kSquare> solver{{q.p}, x, y, turn};
    const int64_t k = solver.best_cut();
    const double cost = solver.cost(k), distance = kSquare ? sqrt(cost) : pow(cost, 1 / q.p);
    const double scale = distance > 0 ? (kSquare ? 1 / distance : pow(distance, 1 - q.p)) : 0.0;  // of d distance, from d cost / p
    if (threadIdx.x == 0) q.distance[problem] = T(distance);
    solver.slopes(x, y, k, scale, q.u_slope + at_x, q.P);
    solver.slopes(y, x, -k, scale, q.v_slope + at_y, q.P);
    if (kWeighted) {
      int64_t left, right;
      const double before = solver.slope(k - 1, left, right), after = solver.slope(k, left, right);
      const double share = after > before ? -before / (after - before) : 0.5;
      solver.potentials(x, y, k, 1, share, scale / q.p, q.u_potential + at_x, q.P);
      solver.potentials(y, x, k, -1, share, scale / q.p, q.v_potential + at_y, q.P);
    }
    __syncthreads();
  }
}

int64_t padded(int64_t n) {
  int64_t size = 2;
  while (size < n) size *= 2;
  return size;
}

int64_t bytes(int64_t n, int64_t m) { return (padded(n) + padded(m)) * kPointBytes; }

}  // namespace

int64_t circular_wasserstein_power_workspace(int64_t n, int64_t m, int64_t problems) {
  if (padded(n) + padded(m) <= kSharedPoints) return 0;
  return bytes(n, m) * (problems < kWorkspaceBlocks ? problems : kWorkspaceBlocks);
}

template <typename T>
cudaError_t circular_wasserstein_power_cuda(const CircularPowerProblems<T>& problems, int64_t count, void* workspace, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  CircularPowerProblems<T> q = problems;
  if (q.n < q.m) {
    std::swap(q.n, q.m), std::swap(q.u, q.v), std::swap(q.u_weights, q.v_weights);
    std::swap(q.u_slope, q.v_slope), std::swap(q.u_potential, q.v_potential);
  }
  const int64_t turn = q.u_weights ? kWeightUnit : q.n / std::gcd(q.n, q.m) * q.m, limit = workspace ? kWorkspaceBlocks : 65535;
  const unsigned blocks = unsigned(std::min<int64_t>(count, limit));
  const unsigned threads = unsigned(std::min<int64_t>(std::max<int64_t>(padded(q.n), 32), kMaxThreads));
  const auto run = [&](auto kernel) {
    return TS_LAUNCH(kernel, blocks, threads, workspace ? 0 : size_t(bytes(q.n, q.m)), stream, q, count, turn, padded(q.n), padded(q.m),
                     static_cast<char*>(workspace));
  };
  if (q.u_weights) {
    if (q.p == 2) return run(circular_wasserstein_power_kernel<T, true, true>);
    return run(circular_wasserstein_power_kernel<T, true, false>);
  }
  return q.p == 2 ? run(circular_wasserstein_power_kernel<T, false, true>) : run(circular_wasserstein_power_kernel<T, false, false>);
}

template cudaError_t circular_wasserstein_power_cuda(const CircularPowerProblems<float>&, int64_t, void*, cudaStream_t);
template cudaError_t circular_wasserstein_power_cuda(const CircularPowerProblems<double>&, int64_t, void*, cudaStream_t);

}  // namespace transphere
