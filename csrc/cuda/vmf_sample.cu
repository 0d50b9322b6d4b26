// Forward: a warp a draw, or a block where d is large; normals and mu stay in registers and z is written once, 16 bytes at a time where
// rows are aligned. Backward: a block a law, a warp a draw at a time. The formulas are in csrc/vmf_sample.h.
#include "vmf_sample.h"

#include <cstdint>

#include "cuda/launch.cuh"
#include "cuda/warp.cuh"
#include "fastmath.h"
#include "vmf_tau.h"
#include "wood.h"

namespace transphere {
namespace {

constexpr int kThreads = 128, kMostThreads = 256, kBackwardWarps = 8;
constexpr int64_t kTeams = 1 << 14;  // enough warps to fill a GPU: beyond, each makes several draws of a law

// Read and written 16 bytes at a time, if it is as long: no pointer is known to be aligned to more.
template <typename T, int V>
struct alignas(V * sizeof(T) < 16 ? V * sizeof(T) : 16) Pack {
  T x[V];
};

// The four coordinates j, j + q, j + 2q, j + 3q of a draw's Gaussian vector.
template <typename T>
__device__ void normals(PhiloxKey key, uint64_t sample, uint32_t block, T (&g)[4]) {
  const Words r = philox(key, block, kNormalStream, uint32_t(sample), uint32_t(sample >> 32));
  for (int pair = 0; pair < 2; ++pair) {
    const T radius2 = T(-2) * log_positive(uniform_positive<T>(r.w[2 * pair]));
    const T radius = sqrt(radius2 > T(kLeastRadius2) ? radius2 : T(kLeastRadius2));
    T sine, cosine;
    sincos_midpoint(uniform<T>(r.w[2 * pair + 1]), sine, cosine);
    g[2 * pair] = radius * cosine;
    g[2 * pair + 1] = radius * sine;
  }
}

// w and 1 - w^2 by one warp, all lanes alike: the first attempt, then 31 more at once, of which the first that is accepted counts.
__device__ inline void draw_w_by_warp(const Wood& wood, PhiloxKey key, uint64_t sample, double g0, double rest2, double& w, double& v) {
  const uint32_t low = uint32_t(sample), high = uint32_t(sample >> 32), attempt = lane_rank() + 1;
  Words r = philox(key, 0, kAttemptStream, low, high);
  if (attempt_w(wood, r.w[0], r.w[1], r.w[2], true, g0, rest2, w, v)) return;
  r = philox(key, attempt, kAttemptStream, low, high);
  const bool accepted = attempt_w(wood, r.w[0], r.w[1], r.w[2], false, g0, rest2, w, v);
  const int first = __ffs(int(__ballot_sync(0xFFFFFFFFu, accepted && attempt < kMaxAttempts)));
  const int source = first ? first - 1 : kMaxAttempts - 2;
  w = __shfl_sync(0xFFFFFFFFu, w, source);
  v = __shfl_sync(0xFFFFFFFFu, v, source);
}

// The coordinates of one thread: K blocks of four, V in a row at a time. Thread `rank` of `team` has the blocks
// base + (r team + rank) V + i for r < K / V, i < V.
template <int K, int V, typename F>
__device__ void for_blocks(int base, int rank, int team, F&& f) {
#pragma unroll
  for (int r = 0; r < K / V; ++r) f(r * V, base + (r * team + rank) * V);
}

// per: draws in a row by one team. A team is a warp where blockDim.x is kThreads, else the block.
template <typename T, typename Z, int K, int V, bool kBlock>
__global__ void __launch_bounds__(kBlock ? kMostThreads : kThreads, kBlock ? 1 : 3)
    vmf_sample_kernel(const T* __restrict__ mu_, const T* __restrict__ kappa, const int64_t* __restrict__ seed, int64_t offset,
                      Z* __restrict__ z_, T* __restrict__ w_, T* __restrict__ v_, int64_t draws, int64_t L, int d, int per) {
  const int team = kBlock ? int(blockDim.x) : 32, rank = kBlock ? int(threadIdx.x) : lane_rank(), q = (d + 3) / 4;
  const int64_t teams = kBlock ? gridDim.x : gridDim.x * int64_t(kThreads / 32);
  const int64_t me = kBlock ? blockIdx.x : blockIdx.x * int64_t(kThreads / 32) + warp_rank();
  const PhiloxKey key{uint32_t(seed[0]), uint32_t(seed[1])};
  const int tiles = (q + team * K - 1) / (team * K);
  T g[K][4], m[K][4];  // of one tile
  int64_t held = -1;   // the law in m, if there is one tile

  const auto load_mu = [&](int base, const T* mu) {
    for_blocks<K, V>(base, rank, team, [&](int k, int j) {
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        if (V > 1 && j < q) {  // whole rows are aligned: d = 4q, and V divides q
          const auto pack = *reinterpret_cast<const Pack<T, V>*>(mu + t * q + j);
#pragma unroll
          for (int i = 0; i < V; ++i) m[k + i][t] = pack.x[i];
        } else {
#pragma unroll
          for (int i = 0; i < V; ++i) m[k + i][t] = j + i < q && t * q + j + i < d ? mu[t * q + j + i] : T(0);
        }
      }
    });
  };
  const auto make_normals = [&](int base, uint64_t sample) {
    for_blocks<K, V>(base, rank, team, [&](int k, int j) {
#pragma unroll
      for (int i = 0; i < V; ++i)
        if (j + i < q) normals(key, sample, uint32_t(j + i), g[k + i]);
    });
  };
  // f(k, t, coordinate) for the coordinates there are
  const auto for_each = [&](int base, auto&& f) {
    for_blocks<K, V>(base, rank, team, [&](int k, int j) {
#pragma unroll
      for (int t = 0; t < 4; ++t)
#pragma unroll
        for (int i = 0; i < V; ++i)
          if (j + i < q && t * q + j + i < d) f(k + i, t, t * q + j + i);
    });
  };

  for (int64_t group = me; group * per < draws; group += teams)
    for (int64_t s = group * per; s < (group + 1) * per && s < draws; ++s) {
      const int64_t law = s / L;
      const uint64_t sample = uint64_t(offset + s);
      const T* mu = mu_ + law * d;
      const double k = double(kappa[law]);
      T rest2 = 0, dot = 0, first = 0;
      for (int tile = 0; tile < tiles; ++tile) {
        const int base = tile * team * K;
        if (held != law) load_mu(base, mu);
        make_normals(base, sample);
        for_each(base, [&](int b, int t, int i) {
          if (i == 0) {
            first = g[b][t];
            g[b][t] = 0;
          }
          rest2 += g[b][t] * g[b][t];
          dot += g[b][t] * m[b][t];
        });
      }
      if (tiles == 1) held = law;
      if (kBlock) {
        rest2 = block_sum(rest2);
        dot = block_sum(dot);
        first = block_sum(first);
      } else {
        rest2 = warp_sum(rest2);
        dot = warp_sum(dot);
        first = __shfl_sync(0xFFFFFFFFu, first, 0);
      }
      double w = 1, v = 0;
      const bool at_mu = infinite(k);
      if (!at_mu) draw_w_by_warp(Wood(k, double(d)), key, sample, double(first), double(rest2), w, v);
      const T mu0 = mu[0], sign = mu0 < 0 ? T(-1) : T(1), r = T(sqrt(v / double(rest2)));
      const T along = at_mu ? T(1) : T(w) + sign * r * dot / (1 + fabs(mu0)), across = -sign * r;
      const T head = T(w) * mu0 + r * dot;
      Z* z = z_ + s * d;
      for (int tile = tiles - 1; tile >= 0; --tile) {  // the last one's normals are at hand
        const int base = tile * team * K;
        if (tile < tiles - 1) {
          load_mu(base, mu);
          make_normals(base, sample);
        }
        for_blocks<K, V>(base, rank, team, [&](int b, int j) {
#pragma unroll
          for (int t = 0; t < 4; ++t) {
            Pack<Z, V> pack;
#pragma unroll
            for (int i = 0; i < V; ++i) narrow(t * q + j + i == 0 ? head : along * m[b + i][t] + across * g[b + i][t], pack.x[i]);
            if (V > 1 && j < q) {
              *reinterpret_cast<Pack<Z, V>*>(z + t * q + j) = pack;
            } else if (V == 1 && j < q && t * q + j < d) {
              z[t * q + j] = pack.x[0];
            }
          }
        });
      }
      if (rank == 0) w_[s] = T(w), v_[s] = T(v);
    }
}

// One block a law. kColumns > 0: a warp a draw, whose lanes keep up to kColumns columns each of G, z, mu and of the sum in registers, so
// that G and z are read once. 0: the block a draw, for any d, its sum in grad_mu.
template <typename T, typename Z, int kColumns, int V>
__global__ void __launch_bounds__(32 * kBackwardWarps, kColumns > 8 ? 1 : 2)
    vmf_sample_backward_kernel(const Z* __restrict__ grad_z, const Z* __restrict__ z_, const T* __restrict__ w_, const T* __restrict__ v_,
                               const T* __restrict__ mu_, const T* __restrict__ kappa, bool pathwise, T* __restrict__ grad_mu_,
                               T* __restrict__ grad_kappa, int64_t L, int d) {
  TS_DYNAMIC_SHARED(T, sums);  // (kBackwardWarps, d) where warps take draws
  constexpr int C = kColumns > 0 ? kColumns : V;
  const int64_t law = blockIdx.x;
  const T* mu = mu_ + law * d;
  T* grad_mu = grad_mu_ + law * d;
  const int lane = lane_rank(), warp = warp_rank(), thread = int(threadIdx.x);
  // Slopes take long: each thread keeps the term of one draw until all threads have one.
  const int keepers = kColumns > 0 ? 32 : int(blockDim.x), keeper = kColumns > 0 ? lane : thread;
  double total = 0, w_kept = 0, v_kept = 0, term = 0;
  const auto settle = [&] {
    if (v_kept > 0) total += vmf_tau(w_kept, v_kept, double(kappa[law]), d, pathwise) * term;
    v_kept = 0;
  };
  const auto keep = [&](int64_t turn, double w, double v, double along, double across) {
    if (turn % keepers == keeper) {
      w_kept = w;
      v_kept = v;
      term = along - w / v * across;
    }
    if (turn % keepers == keepers - 1) settle();
  };

  if constexpr (kColumns > 0) {
    T m[C], sum[C];
    const auto column = [&](int c) { return (c / V * 32 + lane) * V + c % V; };
#pragma unroll
    for (int c = 0; c < C; ++c) {
      m[c] = column(c) < d ? mu[column(c)] : T(0);
      sum[c] = 0;
    }
    for (int64_t turn = 0, l = warp; l < L; l += kBackwardWarps, ++turn) {
      const int64_t s = law * L + l;
      T G[C], z[C], along = 0, across = 0;
      const T w = w_[s], v = v_[s];
#pragma unroll
      for (int c = 0; c < C; c += V) {
        const int i = column(c);
        Pack<Z, V> packed_G = {}, packed_z = {};
        if (i < d) {
          packed_G = *reinterpret_cast<const Pack<Z, V>*>(grad_z + s * d + i);
          packed_z = *reinterpret_cast<const Pack<Z, V>*>(z_ + s * d + i);
        }
#pragma unroll
        for (int e = 0; e < V; ++e) {
          G[c + e] = widen(packed_G.x[e]);
          z[c + e] = widen(packed_z.x[e]);
          along += G[c + e] * m[c + e];
          across += G[c + e] * (z[c + e] - w * m[c + e]);
        }
      }
      along = warp_sum(along);
      across = warp_sum(across);
#pragma unroll
      for (int c = 0; c < C; ++c) sum[c] += w * G[c] - along * z[c];
      keep(turn, double(w), double(v), double(along), double(across));
    }
    settle();
#pragma unroll
    for (int c = 0; c < C; ++c)
      if (column(c) < d) sums[warp * d + column(c)] = sum[c];
    __syncthreads();
    for (int i = thread; i < d; i += blockDim.x) {
      T all = 0;
      for (int other = 0; other < kBackwardWarps; ++other) all += sums[other * d + i];
      grad_mu[i] = all;
    }
  } else {
    for (int i = thread; i < d; i += blockDim.x) grad_mu[i] = 0;
    for (int64_t l = 0; l < L; ++l) {
      const int64_t s = law * L + l;
      const Z *G = grad_z + s * d, *z = z_ + s * d;
      const T w = w_[s], v = v_[s];
      T along = 0, across = 0;
      for (int i = thread; i < d; i += blockDim.x) {
        along += widen(G[i]) * mu[i];
        across += widen(G[i]) * (widen(z[i]) - w * mu[i]);
      }
      along = block_sum(along);
      across = block_sum(across);
      for (int i = thread; i < d; i += blockDim.x) grad_mu[i] += w * widen(G[i]) - along * widen(z[i]);
      keep(l, double(w), double(v), double(along), double(across));
    }
    settle();
  }
  T normal = 0;
  for (int i = thread; i < d; i += blockDim.x) normal += grad_mu[i] * mu[i];
  normal = block_sum(normal);
  for (int i = thread; i < d; i += blockDim.x) grad_mu[i] -= normal * mu[i];
  total = block_sum(total);
  if (thread == 0) grad_kappa[law] = T(total);
}

bool aligned(const void* a, const void* b) { return (reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b)) % 16 == 0; }

template <typename T, typename Z, int V>
cudaError_t forward(const T* mu, const T* kappa, const int64_t* seed, int64_t offset, Z* z, T* w, T* v, int64_t draws, int64_t L, int64_t d,
                    cudaStream_t stream) {
  constexpr int K = 16 / sizeof(Z) < 4 ? 4 : 16 / sizeof(Z);
  const int64_t q = (d + 3) / 4;
  int threads = 32;
  while (threads < kMostThreads && threads * K < q) threads *= 2;
  const int per = int(std::min(L, std::max<int64_t>(1, draws / kTeams)));
  const int64_t groups = (draws + per - 1) / per, most = 1 << 20;
  if (threads == 32) {
    constexpr int warps = kThreads / 32;
    return TS_LAUNCH((vmf_sample_kernel<T, Z, K, V, false>), unsigned(std::min((groups + warps - 1) / warps, most)), kThreads, 0, stream, mu,
                     kappa, seed, offset, z, w, v, draws, L, int(d), per);
  }
  return TS_LAUNCH((vmf_sample_kernel<T, Z, K, V, true>), unsigned(std::min(groups, most)), threads, 0, stream, mu, kappa, seed, offset,
                   z, w, v, draws, L, int(d), per);
}

template <typename T, typename Z, int V>
cudaError_t backward(const Z* grad_z, const Z* z, const T* w, const T* v, const T* mu, const T* kappa, bool pathwise, T* grad_mu,
                     T* grad_kappa, int64_t B, int64_t L, int64_t d, cudaStream_t stream) {
  const unsigned threads = 32 * kBackwardWarps;
  const size_t shared = kBackwardWarps * size_t(d) * sizeof(T);
  if (d <= 128)
    return TS_LAUNCH((vmf_sample_backward_kernel<T, Z, (V < 4 ? 4 : V), V>), unsigned(B), threads, shared, stream, grad_z, z, w, v, mu,
                     kappa, pathwise, grad_mu, grad_kappa, L, int(d));
  if (d <= 512)
    return TS_LAUNCH((vmf_sample_backward_kernel<T, Z, 16, V>), unsigned(B), threads, shared, stream, grad_z, z, w, v, mu, kappa, pathwise,
                     grad_mu, grad_kappa, L, int(d));
  return TS_LAUNCH((vmf_sample_backward_kernel<T, Z, 0, 1>), unsigned(B), threads, 0, stream, grad_z, z, w, v, mu, kappa, pathwise, grad_mu,
                   grad_kappa, L, int(d));
}

}  // namespace

template <typename T, typename Z>
cudaError_t vmf_sample_cuda(const T* mu, const T* kappa, const int64_t* seed, int64_t offset, Z* z, T* w, T* v, int64_t B, int64_t L,
                            int64_t d, cudaStream_t stream) {
  constexpr int V = 16 / sizeof(Z);
  if (B * L == 0) return cudaSuccess;
  if (d % (4 * V) == 0 && aligned(mu, z)) return forward<T, Z, V>(mu, kappa, seed, offset, z, w, v, B * L, L, d, stream);
  return forward<T, Z, 1>(mu, kappa, seed, offset, z, w, v, B * L, L, d, stream);
}

template <typename T, typename Z>
cudaError_t vmf_sample_backward_cuda(const Z* grad_z, const Z* z, const T* w, const T* v, const T* mu, const T* kappa, bool pathwise,
                                     T* grad_mu, T* grad_kappa, int64_t B, int64_t L, int64_t d, cudaStream_t stream) {
  constexpr int V = 16 / sizeof(Z);
  if (B == 0) return cudaSuccess;
  if (d % V == 0 && aligned(grad_z, z))
    return backward<T, Z, V>(grad_z, z, w, v, mu, kappa, pathwise, grad_mu, grad_kappa, B, L, d, stream);
  return backward<T, Z, 1>(grad_z, z, w, v, mu, kappa, pathwise, grad_mu, grad_kappa, B, L, d, stream);
}

#define TS_INSTANTIATE(T, Z)                                                                                                              \
  template cudaError_t vmf_sample_cuda(const T*, const T*, const int64_t*, int64_t, Z*, T*, T*, int64_t, int64_t, int64_t, cudaStream_t); \
  template cudaError_t vmf_sample_backward_cuda(const Z*, const Z*, const T*, const T*, const T*, const T*, bool, T*, T*, int64_t, int64_t,\
                                                int64_t, cudaStream_t);
TS_INSTANTIATE(float, float)
TS_INSTANTIATE(float, BFloat16)
TS_INSTANTIATE(float, Half)
TS_INSTANTIATE(double, double)

}  // namespace transphere
