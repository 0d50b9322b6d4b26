// Forward: one warp per draw. Backward: one block per law, its threads own the columns of grad_mu. The formulas are in csrc/vmf_sample.h.
#include "vmf_sample.h"

#include "cuda/launch.cuh"
#include "cuda/warp.cuh"
#include "fastmath.h"
#include "vmf_tau.h"
#include "wood.h"

namespace transphere {
namespace {

constexpr int kWarps = 4, kBackwardThreads = 256;

__device__ inline PhiloxKey read_key(const int64_t* seed) { return {uint32_t(seed[0]), uint32_t(seed[1])}; }

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

template <typename T>
__global__ void __launch_bounds__(32 * kWarps, 2)
    vmf_sample_kernel(const T* __restrict__ mu_, const T* __restrict__ kappa, const int64_t* __restrict__ seed, T* __restrict__ z_,
                      T* __restrict__ w_, T* __restrict__ v_, int64_t draws, int64_t L, int d) {
  const int lane = threadIdx.x % 32, q = (d + 3) / 4;
  const PhiloxKey key = read_key(seed);
  for (int64_t sample = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32; sample < draws; sample += int64_t(gridDim.x) * kWarps) {
    const int64_t law = sample / L;
    const T* mu = mu_ + law * d;
    T* z = z_ + sample * d;
    if (double(kappa[law]) > kLargest) {  // infinite: mu itself
      for (int i = lane; i < d; i += 32) z[i] = mu[i];
      if (lane == 0) w_[sample] = 1, v_[sample] = 0;
      continue;
    }
    // The normals wait in z, each written and read by the same lane.
    T rest2 = 0, dot = 0, first = 0;
    for (int j = lane; j < q; j += 32) {
      T g[4];
      normals(key, uint64_t(sample), uint32_t(j), g);
      for (int t = 0; t < 4; ++t) {
        const int i = t * q + j;
        if (i == 0) first = g[0];
        else if (i < d) {
          rest2 += g[t] * g[t];
          dot += g[t] * mu[i];
          z[i] = g[t];
        }
      }
    }
    rest2 = warp_sum(rest2);
    dot = warp_sum(dot);
    double w = 0, v = 0;
    if (lane == 0) draw_w(Wood(double(kappa[law]), d), key, uint64_t(sample), double(first), double(rest2), w, v);
    w = __shfl_sync(0xFFFFFFFFu, w, 0);
    v = __shfl_sync(0xFFFFFFFFu, v, 0);
    const T sign = mu[0] < 0 ? T(-1) : T(1), r = T(sqrt(v / double(rest2)));
    const T along = T(w) + sign * r * dot / (1 + fabs(mu[0])), across = -sign * r;
    for (int j = lane; j < q; j += 32)
      for (int t = 0; t < 4; ++t) {
        const int i = t * q + j;
        if (i == 0) z[0] = T(w) * mu[0] + r * dot;
        else if (i < d) z[i] = along * mu[i] + across * z[i];
      }
    if (lane == 0) w_[sample] = T(w), v_[sample] = T(v);
  }
}

template <typename T>
__global__ void __launch_bounds__(kBackwardThreads, 2)
    vmf_sample_backward_kernel(const T* __restrict__ grad_z, const T* __restrict__ z_, const T* __restrict__ w_, const T* __restrict__ v_,
                               const T* __restrict__ mu_, const T* __restrict__ kappa_, bool pathwise, T* __restrict__ grad_mu_,
                               T* __restrict__ grad_kappa, int64_t L, int d) {
  const int64_t law = blockIdx.x;
  const T* mu = mu_ + law * d;
  T* grad_mu = grad_mu_ + law * d;
  for (int i = threadIdx.x; i < d; i += blockDim.x) grad_mu[i] = 0;

  const KappaGradient slope(double(kappa_[law]), d, pathwise);
  double total = 0;
  for (int64_t s = law * L; s < (law + 1) * L; ++s) {
    const T *G = grad_z + s * d, *z = z_ + s * d;
    const T w = w_[s], v = v_[s];
    T along = 0, across = 0;
    for (int i = threadIdx.x; i < d; i += blockDim.x) {
      along += G[i] * mu[i];
      across += G[i] * (z[i] - w * mu[i]);
    }
    along = block_sum(along);
    across = block_sum(across);
    for (int i = threadIdx.x; i < d; i += blockDim.x) grad_mu[i] += w * G[i] - along * z[i];
    if (threadIdx.x == 0 && v > 0) total += slope(double(w), double(v)) * (double(along) - double(w) / double(v) * double(across));
  }
  T normal = 0;
  for (int i = threadIdx.x; i < d; i += blockDim.x) normal += grad_mu[i] * mu[i];
  normal = block_sum(normal);
  for (int i = threadIdx.x; i < d; i += blockDim.x) grad_mu[i] -= normal * mu[i];
  if (threadIdx.x == 0) grad_kappa[law] = T(total);
}

}  // namespace

template <typename T>
cudaError_t vmf_sample_cuda(const T* mu, const T* kappa, const int64_t* seed, T* z, T* w, T* v, int64_t B, int64_t L, int64_t d,
                            cudaStream_t stream) {
  const int64_t draws = B * L, blocks = (draws + kWarps - 1) / kWarps;
  if (draws == 0) return cudaSuccess;
  return TS_LAUNCH(vmf_sample_kernel<T>, unsigned(blocks < 65535 ? blocks : 65535), 32 * kWarps, 0, stream, mu, kappa, seed, z, w, v, draws, L,
                   int(d));
}

template <typename T>
cudaError_t vmf_sample_backward_cuda(const T* grad_z, const T* z, const T* w, const T* v, const T* mu, const T* kappa, bool pathwise, T* grad_mu,
                                     T* grad_kappa, int64_t B, int64_t L, int64_t d, cudaStream_t stream) {
  if (B == 0) return cudaSuccess;
  return TS_LAUNCH(vmf_sample_backward_kernel<T>, unsigned(B), kBackwardThreads, 0, stream, grad_z, z, w, v, mu, kappa, pathwise, grad_mu,
                   grad_kappa, L, int(d));
}

#define TS_INSTANTIATE(T)                                                                                                                 \
  template cudaError_t vmf_sample_cuda(const T*, const T*, const int64_t*, T*, T*, T*, int64_t, int64_t, int64_t, cudaStream_t);          \
  template cudaError_t vmf_sample_backward_cuda(const T*, const T*, const T*, const T*, const T*, const T*, bool, T*, T*, int64_t, int64_t, \
                                                int64_t, cudaStream_t);
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
