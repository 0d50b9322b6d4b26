#include "vmf_sample.h"

#include <algorithm>
#include <vector>

#include "fastmath.h"
#include "vmf_tau.h"
#include "wood.h"

namespace transphere {
namespace {

// Standard normals of the samples [first, first + count): plane t holds, sample by sample, the coordinates [t q, (t + 1) q).
template <typename T>
inline void normals(PhiloxKey key, int64_t first, int64_t count, int64_t q, T* planes, int64_t stride) {
  const int64_t total = count * q;
  int64_t sample = first, block = 0;
  for (int64_t base = 0; base < total; base += kLanes) {
    alignas(64) uint32_t c[4][kLanes];
    for (int l = 0; l < kLanes; ++l) {
      c[0][l] = uint32_t(block);
      c[1][l] = kNormalStream;
      c[2][l] = uint32_t(sample);
      c[3][l] = uint32_t(uint64_t(sample) >> 32);
      if (++block == q) block = 0, ++sample;
    }
    philox_lanes(key, c);
    for (int pair = 0; pair < 2; ++pair)
      for (int l = 0; l < kLanes; ++l) {
        const T radius2 = T(-2) * log_positive(uniform_positive<T>(c[2 * pair][l]));
        const T radius = std::sqrt(radius2 > kLeastRadius2 ? radius2 : T(kLeastRadius2));
        T sine, cosine;
        sincos_midpoint(uniform<T>(c[2 * pair + 1][l]), sine, cosine);
        planes[(2 * pair) * stride + base + l] = radius * cosine;
        planes[(2 * pair + 1) * stride + base + l] = radius * sine;
      }
  }
}

template <typename T>
inline T sum_lanes(const T (&a)[kLanes]) {
  T s = 0;
  for (int l = 0; l < kLanes; ++l) s += a[l];
  return s;
}

// acc_a += a.a, acc_b += a.b
template <typename T>
inline void square_and_dot(const T* a, const T* b, int64_t n, T (&aa)[kLanes], T (&ab)[kLanes]) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      aa[l] += a[i + l] * a[i + l];
      ab[l] += a[i + l] * b[i + l];
    }
  for (int l = 0; i < n; ++i, ++l) {
    aa[l] += a[i] * a[i];
    ab[l] += a[i] * b[i];
  }
}

template <typename T>
inline void sample_range(const T* mu_, const T* kappa, PhiloxKey key, T* z_, T* w_, T* v_, int64_t L, int64_t d, int64_t begin, int64_t end) {
  const int64_t q = (d + 3) / 4;
  const int64_t tile = std::max<int64_t>(1, 256 / q);  // draws whose normals are made together: full vectors at d = 3 as at d = 512
  const int64_t stride = (tile * q + kLanes - 1) / kLanes * kLanes;
  std::vector<T> planes(4 * stride);

  for (int64_t first = begin; first < end; first += tile) {
    const int64_t count = std::min(tile, end - first);
    normals(key, first, count, q, planes.data(), stride);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t sample = first + i, law = sample / L;
      const T* mu = mu_ + law * d;
      T* z = z_ + sample * d;
      if (std::isinf(kappa[law])) {
        std::copy(mu, mu + d, z);
        w_[sample] = 1;
        v_[sample] = 0;
        continue;
      }
      T* const g0 = planes.data() + i * q;
      const T first_normal = *g0;
      *g0 = 0;  // the rest of the vector, without a special case for its first coordinate
      T rest2_lanes[kLanes] = {}, dot_lanes[kLanes] = {};
      for (int t = 0; t < 4 && t * q < d; ++t) square_and_dot(g0 + t * stride, mu + t * q, std::min(q, d - t * q), rest2_lanes, dot_lanes);
      const T rest2 = sum_lanes(rest2_lanes), dot = sum_lanes(dot_lanes);

      double w, v;
      draw_w(Wood(kappa[law], d), key, uint64_t(sample), first_normal, rest2, w, v);
      const T sign = mu[0] < 0 ? T(-1) : T(1);
      const T r = T(std::sqrt(v / rest2));
      const T along = T(w) + sign * r * dot / (1 + std::abs(mu[0])), across = -sign * r;
      for (int t = 0; t < 4 && t * q < d; ++t) {
        const T *g = g0 + t * stride, *m = mu + t * q;
        T* out = z + t * q;
        const int64_t n = std::min(q, d - t * q);
        for (int64_t j = 0; j < n; ++j) out[j] = along * m[j] + across * g[j];
      }
      z[0] = T(w) * mu[0] + r * dot;
      w_[sample] = T(w);
      v_[sample] = T(v);
    }
  }
}

template <typename T>
inline void backward_range(const T* grad_z, const T* z_, const T* w_, const T* v_, const T* mu_, const T* kappa_, bool pathwise, T* sum_mu,
                           T* sum_kappa, int64_t L, int64_t d, int64_t begin, int64_t end) {
  const int64_t chunks = (L + kBackwardChunk - 1) / kBackwardChunk;
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t law = chunk / chunks, first = law * L + chunk % chunks * kBackwardChunk;
    const int64_t last = std::min(first + kBackwardChunk, (law + 1) * L);
    const T* mu = mu_ + law * d;
    T* acc = sum_mu + chunk * d;
    std::fill(acc, acc + d, T(0));
    const KappaGradient slope(double(kappa_[law]), d, pathwise);
    double total = 0;
    for (int64_t s = first; s < last; ++s) {
      const T *G = grad_z + s * d, *z = z_ + s * d;
      const T w = w_[s];
      T along_lanes[kLanes] = {}, across_lanes[kLanes] = {};
      int64_t i = 0;
      for (; i + kLanes <= d; i += kLanes)
        for (int l = 0; l < kLanes; ++l) {
          along_lanes[l] += G[i + l] * mu[i + l];
          across_lanes[l] += G[i + l] * (z[i + l] - w * mu[i + l]);
        }
      for (int l = 0; i < d; ++i, ++l) {
        along_lanes[l] += G[i] * mu[i];
        across_lanes[l] += G[i] * (z[i] - w * mu[i]);
      }
      const T along = sum_lanes(along_lanes), across = sum_lanes(across_lanes);
      for (int64_t j = 0; j < d; ++j) acc[j] += w * G[j] - along * z[j];
      if (v_[s] > 0) total += slope(w, v_[s]) * (along - double(w) / v_[s] * across);
    }
    sum_kappa[chunk] = T(total);
  }
}

template <typename T>
inline void reduce_range(const T* sum_mu, const T* sum_kappa, const T* mu_, T* grad_mu, T* grad_kappa, int64_t chunks, int64_t d, int64_t begin,
                         int64_t end) {
  for (int64_t law = begin; law < end; ++law) {
    const T* mu = mu_ + law * d;
    T* g = grad_mu + law * d;
    std::copy(sum_mu + law * chunks * d, sum_mu + law * chunks * d + d, g);
    double total = sum_kappa[law * chunks];
    for (int64_t c = 1; c < chunks; ++c) {
      const T* row = sum_mu + (law * chunks + c) * d;
      for (int64_t j = 0; j < d; ++j) g[j] += row[j];
      total += sum_kappa[law * chunks + c];
    }
    double normal = 0;
    for (int64_t j = 0; j < d; ++j) normal += double(g[j]) * mu[j];
    for (int64_t j = 0; j < d; ++j) g[j] -= T(normal) * mu[j];
    grad_kappa[law] = T(total);
  }
}

}  // namespace

#define TS_INSTANTIATE(T)                                                                                                                        \
  template <>                                                                                                                                    \
  TS_EVERY_ISA void vmf_sample_cpu(const T* mu, const T* kappa, PhiloxKey key, T* z, T* w, T* v, int64_t L, int64_t d, int64_t begin,            \
                                   int64_t end) {                                                                                                \
    sample_range(mu, kappa, key, z, w, v, L, d, begin, end);                                                                                     \
  }                                                                                                                                              \
  template <>                                                                                                                                    \
  TS_EVERY_ISA void vmf_sample_backward_cpu(const T* grad_z, const T* z, const T* w, const T* v, const T* mu, const T* kappa, bool pathwise,     \
                                            T* sum_mu, T* sum_kappa, int64_t L, int64_t d, int64_t begin, int64_t end) {                         \
    backward_range(grad_z, z, w, v, mu, kappa, pathwise, sum_mu, sum_kappa, L, d, begin, end);                                                   \
  }                                                                                                                                              \
  template <>                                                                                                                                    \
  TS_EVERY_ISA void vmf_sample_reduce_cpu(const T* sum_mu, const T* sum_kappa, const T* mu, T* grad_mu, T* grad_kappa, int64_t chunks,           \
                                          int64_t d, int64_t begin, int64_t end) {                                                               \
    reduce_range(sum_mu, sum_kappa, mu, grad_mu, grad_kappa, chunks, d, begin, end);                                                             \
  }
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
