// One block per problem, in double: sort the points, scan the levels, sort the levels for their median, write cost and slopes. The arrays of a
// problem lie in shared memory, or in a workspace of the block where they do not fit. The formulas are in csrc/circular_wasserstein.h.
#include "circular_wasserstein.h"

#include "cuda/launch.cuh"
#include "cuda/warp.cuh"

namespace transphere {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kSharedPoints = 1024;  // 24 bytes each
constexpr int64_t kWorkspaceBlocks = 132;

// The arrays of one problem, `size` a power of two.
struct Rows {
  double *t, *level;     // sorted positions; levels, then sorted levels
  int *point, *segment;  // whose position; whose level
  __device__ Rows(void* memory, int64_t size)
      : t(static_cast<double*>(memory)), level(t + size), point(reinterpret_cast<int*>(level + size)), segment(point + size) {}
};

// Bitonic sort of (key, index) pairs by a block, ties by index.
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

// Inclusive sum of values[0, n) in place, in tiles of a block.
template <typename Load, typename Store>
__device__ void block_cumulate(int64_t n, Load load, Store store) {
  double carry = 0;
  for (int64_t base = 0; base < n; base += blockDim.x) {
    const int64_t k = base + threadIdx.x;
    double total;
    const double sum = block_scan(k < n ? load(k) : 0.0, total);
    if (k < n) store(k, carry + sum);
    carry += total;
  }
  __syncthreads();
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) circular_wasserstein_kernel(CircularProblems<T> q, int64_t problems, int64_t size, char* workspace) {
  TS_DYNAMIC_SHARED(double, shared);
  const int64_t n = q.n, m = q.m, N = n + m;
  const Rows s(workspace ? static_cast<void*>(workspace + blockIdx.x * size * 24) : static_cast<void*>(shared), size);
  const bool weighted = q.u_weights != nullptr;
  const double unit = weighted ? 1.0 : 1.0 / (double(n) * double(m));

  for (int64_t problem = blockIdx.x; problem < problems; problem += gridDim.x) {
    const int64_t b = problem / q.P, p = problem % q.P, at_u = b * n * q.P + p, at_v = b * m * q.P + p;
    const auto place = [&](int64_t i) { return i < n ? at_u + i * q.P : at_v + (i - n) * q.P; };
    double bad = 0;
    for (int64_t i = threadIdx.x; i < size; i += kThreads) {
      double t = INFINITY;  // padding sorts to the end
      if (i < N) {
        const T x = i < n ? q.u[place(i)] : q.v[place(i)], r = x - floor(x);
        t = r >= T(1) ? 0.0 : double(r);
        bad += t - t;
      }
      s.t[i] = t == t ? t : 0.0;
      s.point[i] = int(i);
    }
    bad = block_sum(bad);  // 0, or NaN when any point is not finite
    block_sort(s.t, s.point, size);

    const auto gap = [&](int64_t k) { return (k + 1 < N ? s.t[k + 1] : 1.0 + s.t[0]) - s.t[k]; };
    const auto signed_weight = [&](int64_t k) {
      const int64_t i = s.point[k];
      if (weighted) return i < n ? double(q.u_weights[b * n + i]) : -double(q.v_weights[b * m + i - n]);
      return i < n ? double(m) : -double(n);
    };
    block_cumulate(N, signed_weight, [&](int64_t k, double sum) { s.level[k] = sum; });

    // The median: the smallest level with at least half the circle at or below it. Levels are sorted in place and rebuilt after.
    for (int64_t k = threadIdx.x; k < size; k += kThreads) {
      if (k >= N) s.level[k] = INFINITY;
      s.segment[k] = int(k);
    }
    block_sort(s.level, s.segment, size);
    double before = 0;
    int first = int(N - 1);
    for (int64_t base = 0; base < N; base += kThreads) {
      const int64_t k = base + threadIdx.x;
      double total;
      const double upto = before + block_scan(k < N ? gap(s.segment[k]) : 0.0, total);
      if (k < first && upto >= 0.5) first = int(k);
      before += total;
    }
    const double M = s.level[block_min(first)];
    __syncthreads();
    block_cumulate(N, signed_weight, [&](int64_t k, double sum) { s.level[k] = sum; });

    double cost = 0, balance = 0, own = 0;
    for (int64_t k = threadIdx.x; k < N; k += kThreads) {
      const double d = gap(k), after = fabs(s.level[k] - M), ahead = fabs(s.level[k ? k - 1 : N - 1] - M);
      const int64_t i = s.point[k];
      cost += after * d;
      if (s.level[k] == M) own += d;
      else balance += s.level[k] > M ? d : -d;
      (i < n ? q.u_slope : q.v_slope)[place(i)] = T((ahead - after) * unit + bad);
    }
    cost = block_sum(cost);
    if (threadIdx.x == 0) q.cost[problem] = T(cost * unit + bad);
    if (weighted) {
      own = block_sum(own);
      balance = block_sum(balance);
      const double at_median = own > 0 ? -balance / own : 0;  // the sign at the median's own gaps, with which all sum to 0
      const auto rise = [&](int64_t k) { return gap(k) * (s.level[k] == M ? at_median : s.level[k] > M ? 1.0 : -1.0); };
      double sum_all = 0;
      for (int64_t k = threadIdx.x; k < N; k += kThreads) sum_all += rise(k);
      sum_all = block_sum(sum_all);
      block_cumulate(N, rise, [&](int64_t k, double upto) {
        const int64_t i = s.point[k];
        const double potential = sum_all - upto + rise(k);  // over the gaps at or after t_k
        (i < n ? q.u_potential : q.v_potential)[place(i)] = T((i < n ? potential : -potential) + bad);
      });
    }
    __syncthreads();
  }
}

int64_t padded(int64_t n) {
  int64_t size = 2;
  while (size < n) size *= 2;
  return size;
}

}  // namespace

int64_t circular_wasserstein_workspace(int64_t points, int64_t problems) {
  if (points <= kSharedPoints) return 0;
  return padded(points) * 24 * (problems < kWorkspaceBlocks ? problems : kWorkspaceBlocks);
}

template <typename T>
cudaError_t circular_wasserstein_cuda(const CircularProblems<T>& q, int64_t problems, void* workspace, cudaStream_t stream) {
  if (problems == 0) return cudaSuccess;
  const int64_t size = padded(q.n + q.m), limit = workspace ? kWorkspaceBlocks : 65535;
  return TS_LAUNCH(circular_wasserstein_kernel<T>, unsigned(problems < limit ? problems : limit), kThreads, workspace ? 0 : size_t(size) * 24,
                   stream, q, problems, size, static_cast<char*>(workspace));
}

template cudaError_t circular_wasserstein_cuda(const CircularProblems<float>&, int64_t, void*, cudaStream_t);
template cudaError_t circular_wasserstein_cuda(const CircularProblems<double>&, int64_t, void*, cudaStream_t);

}  // namespace transphere
