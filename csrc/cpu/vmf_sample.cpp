#include "vmf_sample.h"

#include <algorithm>
#include <vector>

#include "cpu/normals.h"
#include "cpu/philox_lanes.h"
#include "vmf_tau.h"
#include "wood.h"

namespace transphere {
namespace {

int64_t whole_lanes(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// In pairs, so that the order of the additions is fixed and the compiler may use vectors.
template <typename T>
inline T sum_lanes(const T (&a)[kLanes]) {
  T b[8], c[4];
  for (int l = 0; l < 8; ++l) b[l] = a[l] + a[l + 8];
  for (int l = 0; l < 4; ++l) c[l] = b[l] + b[l + 4];
  return (c[0] + c[2]) + (c[1] + c[3]);
}

// Attempt `attempt` of up to kLanes draws, in vectors.
struct Attempts {
  double k[kLanes], g0[kLanes], rest2[kLanes], w[kLanes], v[kLanes];
  uint32_t low[kLanes], high[kLanes];
  double accepted[kLanes];

  inline void make(PhiloxKey key, uint32_t attempt, int64_t d) {
    alignas(64) uint32_t c[4][kPhiloxBatch] = {};
    TS_SIMD
    for (int l = 0; l < kLanes; ++l) {
      c[0][l] = attempt;
      c[1][l] = kAttemptStream;
      c[2][l] = low[l];
      c[3][l] = high[l];
    }
    philox_lanes(key, c[0], kPhiloxBatch, kPhiloxBatch);
    if (attempt == 0) of_words<true>(c, d);
    else of_words<false>(c, d);
  }

 private:
  template <bool kFirst>
  inline void of_words(const uint32_t (&c)[4][kPhiloxBatch], int64_t d) {
    TS_SIMD
    for (int l = 0; l < kLanes; ++l) {
      double w_, v_;
      accepted[l] = attempt_w(Wood(k[l], double(d)), c[0][l], c[1][l], c[2][l], kFirst, g0[l], rest2[l], w_, v_) ? 1 : 0;
      w[l] = w_;
      v[l] = v_;
    }
  }
};

constexpr int kGroup = 256;

// Draws first .. first + count, at most `size`, made step by step for all of them: their normals, w and 1 - w^2, and what z is made of.
template <typename T>
class Group {
 public:
  const int64_t d, q = (d + 3) / 4, width = whole_lanes(d), size = std::clamp<int64_t>(8192 / width, 1, kGroup);
  int64_t law[kGroup];
  T w[kGroup], v[kGroup], head[kGroup], along[kGroup], across[kGroup];  // z = along mu + across g, but for z0 = head

  explicit Group(int64_t d_)
      : d(d_), stride_(whole_lanes(size * q) + kPhiloxBatch), planes_(4 * stride_), rows_(whole_ ? 0 : (size + 1) * width + 2 * kLanes),
        mu_(width) {}

  // f(g, offset, count): the runs of whole vectors that make draw i's g. The first number is 0, as is what lies beyond d.
  template <typename F>
  inline void for_runs(int64_t i, F&& f) {
    if (whole_) {
      for (int t = 0; t < 4; ++t) f(planes_.data() + t * stride_ + i * q, t * q, q);
    } else {
      f(rows_.data() + i * width, int64_t(0), width);
    }
  }

  inline void draw(PhiloxKey key, int64_t offset, const T* mus, const T* kappa, int64_t L, int64_t first, int64_t count) {
    normals(key, uint64_t(offset + first), count, q, planes_.data(), stride_);
    for (int64_t i = 0; i < count && !whole_; ++i) {
      T* row = rows_.data() + i * width;
      for (int t = 0; t < 4; ++t)  // whole vectors: what runs over is overwritten by the next
        for (int64_t j = 0; j < q; j += kLanes)
          TS_SIMD
          for (int l = 0; l < kLanes; ++l) row[t * q + j + l] = planes_[t * stride_ + i * q + j + l];
      TS_SIMD
      for (int l = 0; l < kLanes; ++l) row[d + l] = 0;
    }
    for (int64_t i = 0, now = first / L, left = L - first % L; i < count; ++i) {
      law[i] = now;
      if (--left == 0) ++now, left = L;
      const double k = double(kappa[law[i]]);
      at_mu_[i] = infinite(k) ? 1 : 0;
      kappa_[i] = infinite(k) ? 0 : k;
      mu0_[i] = mus[law[i] * d];
      T& g0 = whole_ ? planes_[i * q] : rows_[i * width];
      g0_[i] = g0;
      g0 = 0;
    }
    for (int64_t i = 0; i < count; ++i) {
      const T* mu = mu_of(mus, law[i]);
      alignas(64) T square[kLanes] = {}, product[kLanes] = {};
      for_runs(i, [&](const T* g, int64_t offset, int64_t numbers) {
        const T* m = mu + offset;
        for (int64_t j = 0; j < numbers; j += kLanes)
          TS_SIMD
          for (int l = 0; l < kLanes; ++l) {
            square[l] += g[j + l] * g[j + l];
            product[l] += g[j + l] * m[j + l];
          }
      });
      rest2_[i] = sum_lanes(square);
      dot_[i] = sum_lanes(product);
    }
    reject(key, uint64_t(offset + first), count);
    TS_SIMD
    for (int64_t i = 0; i < count; ++i) {
      const T sign = mu0_[i] < 0 ? T(-1) : T(1), r = std::sqrt(v[i] / rest2_[i]);
      const T a = w[i] + sign * r * dot_[i] / (1 + sign * mu0_[i]), h = w[i] * mu0_[i] + r * dot_[i];
      const bool at_mu = at_mu_[i] != 0;
      along[i] = at_mu ? T(1) : a;
      across[i] = at_mu ? T(0) : -sign * r;
      head[i] = at_mu ? mu0_[i] : h;
      w[i] = at_mu ? T(1) : w[i];
      v[i] = at_mu ? T(0) : v[i];
    }
  }

  // A law's mean direction, where its last vector is whole: copied if need be.
  inline const T* mu_of(const T* mus, int64_t index) {
    if (d == width) return mus + index * d;
    if (index != held_) std::copy(mus + index * d, mus + (index + 1) * d, mu_.begin());
    held_ = index;
    return mu_.data();
  }

 private:
  const bool whole_ = d % (4 * kLanes) == 0;  // planes need not be gathered to rows
  int64_t stride_, held_ = -1;
  std::vector<T> planes_, rows_, mu_;
  T g0_[kGroup], mu0_[kGroup], rest2_[kGroup], dot_[kGroup], at_mu_[kGroup];
  double kappa_[kGroup];

  inline void reject(PhiloxKey key, uint64_t first, int64_t count) {
    int16_t pending[kGroup], left = int16_t(count);
    for (int16_t i = 0; i < left; ++i) pending[i] = i;
    for (uint32_t attempt = 0; attempt < kMaxAttempts && left > 0; ++attempt) {
      int16_t rejected = 0;
      for (int16_t at = 0; at < left; at += kLanes) {
        Attempts a;
        const int lanes = std::min<int>(kLanes, left - at);
        for (int l = 0; l < kLanes; ++l) {
          const int16_t i = pending[at + (l < lanes ? l : 0)];
          const uint64_t sample = first + uint64_t(i);
          a.k[l] = kappa_[i];
          a.g0[l] = double(g0_[i]);
          a.rest2[l] = double(rest2_[i]);
          a.low[l] = uint32_t(sample);
          a.high[l] = uint32_t(sample >> 32);
        }
        a.make(key, attempt, d);
        for (int l = 0; l < lanes; ++l) {
          const int16_t i = pending[at + l];
          w[i] = T(a.w[l]);
          v[i] = T(a.v[l]);
          pending[rejected] = i;
          rejected += a.accepted[l] == 0;
        }
      }
      left = rejected;
    }
  }
};

template <typename T, typename Z>
inline void sample_range(const T* mu, const T* kappa, PhiloxKey key, int64_t offset, Z* z_, T* w, T* v, int64_t L, int64_t d, int64_t begin,
                         int64_t end) {
  Group<T> group(d);
  for (int64_t first = begin; first < end; first += group.size) {
    const int64_t count = std::min(group.size, end - first);
    group.draw(key, offset, mu, kappa, L, first, count);
    std::copy(group.w, group.w + count, w + first);
    std::copy(group.v, group.v + count, v + first);
    for (int64_t i = 0; i < count; ++i) {
      const T* law_mu = group.mu_of(mu, group.law[i]);
      const T along = group.along[i], across = group.across[i];
      Z* z = z_ + (first + i) * d;
      if ((end - first - i) * d >= group.width) {  // what runs over is overwritten by the next draw
        group.for_runs(i, [&](const T* g, int64_t offset, int64_t numbers) {
          const T* m = law_mu + offset;
          for (int64_t j = 0; j < numbers; j += kLanes)
            TS_SIMD
            for (int l = 0; l < kLanes; ++l) narrow(along * m[j + l] + across * g[j + l], z[offset + j + l]);
        });
      } else {
        group.for_runs(i, [&](const T* g, int64_t, int64_t) {  // one, of rows
          for (int64_t j = 0; j < d; ++j) narrow(along * law_mu[j] + across * g[j], z[j]);
        });
      }
      narrow(group.head[i], z[0]);
    }
  }
}

template <typename T, typename Z>
inline void backward_range(const Z* grad_z, const Z* z_, const T* w_, const T* v_, const T* mu_, const T* kappa_, bool pathwise, T* sum_mu,
                           T* sum_kappa, int64_t L, int64_t d, int64_t begin, int64_t end) {
  const int64_t chunks = (L + kBackwardChunk - 1) / kBackwardChunk;
  std::vector<double> terms;  // G.mu - w / v G.(z - w mu) of each draw, for the slopes of many at once
  terms.reserve((end - begin) * std::min(L, kBackwardChunk));
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t law = chunk / chunks, first = law * L + chunk % chunks * kBackwardChunk;
    const int64_t last = std::min(first + kBackwardChunk, (law + 1) * L);
    const T* mu = mu_ + law * d;
    T* acc = sum_mu + chunk * d;
    std::fill(acc, acc + d, T(0));
    for (int64_t s = first; s < last; ++s) {
      const Z *G = grad_z + s * d, *z = z_ + s * d;
      const T w = w_[s];
      alignas(64) T along_lanes[kLanes] = {}, across_lanes[kLanes] = {};
      int64_t i = 0;
      for (; i + kLanes <= d; i += kLanes)
        TS_SIMD
        for (int l = 0; l < kLanes; ++l) {
          along_lanes[l] += widen(G[i + l]) * mu[i + l];
          across_lanes[l] += widen(G[i + l]) * (widen(z[i + l]) - w * mu[i + l]);
        }
      for (int l = 0; i < d; ++i, ++l) {
        along_lanes[l] += widen(G[i]) * mu[i];
        across_lanes[l] += widen(G[i]) * (widen(z[i]) - w * mu[i]);
      }
      const T along = sum_lanes(along_lanes), across = sum_lanes(across_lanes);
      for (int64_t j = 0; j < d; ++j) acc[j] += w * widen(G[j]) - along * widen(z[j]);
      terms.push_back(v_[s] > 0 ? along - double(w) / v_[s] * across : 0.0);
    }
  }

  // The draws of these chunks lie one after another.
  const int64_t first = begin / chunks * L + begin % chunks * kBackwardChunk;
  const int64_t count = int64_t(terms.size());
  for (int64_t at = 0; at < count; at += kLanes) {
    double w[kLanes], v[kLanes], k[kLanes], slope[kLanes];
    TS_SIMD
    for (int l = 0; l < kLanes; ++l) {
      const int64_t s = first + std::min(at + l, count - 1);
      w[l] = double(w_[s]);
      v[l] = double(v_[s]);
      k[l] = double(kappa_[s / L]);
    }
    vmf_tau_lanes(w, v, k, d, pathwise, slope);
    for (int l = 0; l < kLanes && at + l < count; ++l) terms[at + l] *= slope[l];
  }
  for (int64_t chunk = begin, at = 0; chunk < end; ++chunk) {
    const int64_t draws = std::min(kBackwardChunk, L - chunk % chunks * kBackwardChunk);
    double total = 0;
    for (int64_t i = 0; i < draws; ++i) total += terms[at++];
    sum_kappa[chunk] = T(total);
  }
}

template <typename T>
inline void reduce_range(const T* sum_mu, const T* sum_kappa, const T* mu_, T* grad_mu, T* grad_kappa, int64_t chunks, int64_t d,
                         int64_t begin, int64_t end) {
  for (int64_t law = begin; law < end; ++law) {
    const T* mu = mu_ + law * d;
    T* g = grad_mu + law * d;
    if (chunks > 1) std::copy(sum_mu + law * chunks * d, sum_mu + law * chunks * d + d, g);
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

#define TS_INSTANTIATE(T, Z)                                                                                                              \
  template <>                                                                                                                             \
  TS_EVERY_ISA void vmf_sample_cpu(const T* mu, const T* kappa, PhiloxKey key, int64_t offset, Z* z, T* w, T* v, int64_t L, int64_t d,    \
                                   int64_t begin, int64_t end) {                                                                          \
    sample_range(mu, kappa, key, offset, z, w, v, L, d, begin, end);                                                                      \
  }                                                                                                                                       \
  template <>                                                                                                                             \
  TS_EVERY_ISA void vmf_sample_backward_cpu(const Z* grad_z, const Z* z, const T* w, const T* v, const T* mu, const T* kappa,             \
                                            bool pathwise, T* sum_mu, T* sum_kappa, int64_t L, int64_t d, int64_t begin, int64_t end) {   \
    backward_range(grad_z, z, w, v, mu, kappa, pathwise, sum_mu, sum_kappa, L, d, begin, end);                                            \
  }
#define TS_INSTANTIATE_REDUCE(T)                                                                                                          \
  template <>                                                                                                                             \
  TS_EVERY_ISA void vmf_sample_reduce_cpu(const T* sum_mu, const T* sum_kappa, const T* mu, T* grad_mu, T* grad_kappa, int64_t chunks,    \
                                          int64_t d, int64_t begin, int64_t end) {                                                        \
    reduce_range(sum_mu, sum_kappa, mu, grad_mu, grad_kappa, chunks, d, begin, end);                                                      \
  }
TS_INSTANTIATE(float, float)
TS_INSTANTIATE(float, BFloat16)
TS_INSTANTIATE(float, Half)
TS_INSTANTIATE(double, double)
TS_INSTANTIATE_REDUCE(float)
TS_INSTANTIATE_REDUCE(double)

}  // namespace transphere
