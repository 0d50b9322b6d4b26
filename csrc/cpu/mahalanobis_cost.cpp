#include "mahalanobis_cost.h"

#include <algorithm>
#include <cmath>

namespace transphere {
namespace {

// Calls f(k, lane) for all k < d, in lanes where there are kLanes of them left.
template <typename F>
inline void in_lanes(int64_t d, F f) {
  int64_t k = 0;
  for (; k + kLanes <= d; k += kLanes) {
    TS_SIMD
    for (int l = 0; l < kLanes; ++l) f(k + l, l);
  }
  for (; k < d; ++k) f(k, 0);
}

template <typename T>
inline T total(const T (&lanes)[kLanes]) {
  T sum = 0;
  for (int l = 0; l < kLanes; ++l) sum += lanes[l];
  return sum;
}

template <typename T>
inline void norms(const MahalanobisCost<T>& q, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const T *z = q.z + i * q.d, *zM = q.zM + i * q.d;
    T p[kLanes] = {}, a[kLanes] = {};
    in_lanes(q.d, [&](int64_t k, int l) {
      const T term = z[k] * zM[k];
      p[l] += term;
      a[l] += std::fabs(term);
    });
    q.norms[i] = total(p);
    q.norms[q.B * (q.n + q.m) + i] = total(a);
  }
}

template <typename T>
inline T direct(const T* x, const T* xM, const T* y, const T* yM, int64_t d) {
  T sum[kLanes] = {};
  in_lanes(d, [&](int64_t k, int l) { sum[l] += (x[k] - y[k]) * (xM[k] - yM[k]); });
  return total(sum);
}

// Entries [base, base + lanes) of a row, whose point is x; the row's first partner is the point y.
template <typename T>
inline void entries(const MahalanobisCost<T>& q, int64_t row, int64_t x, int64_t y, int64_t base, int lanes) {
  const T cancelled = T(kCancelled);
  const T *p = q.norms, *a = q.norms + q.B * (q.n + q.m);
  const T *__restrict__ p_y = p + y + base, *__restrict__ a_y = a + y + base, *__restrict__ G = q.G + row * q.m + base;
  T safe[kLanes] = {}, lost[kLanes] = {}, any = 0;
  for (int l = 0; l < lanes; ++l) {
    const T value = p[x] + p_y[l] - 2 * G[l], size = cancelled * (a[x] + a_y[l]);
    safe[l] = value > size ? value : T(0);
    lost[l] = value > size || value < -size ? T(0) : T(1);  // also where it is NaN
  }
  for (int l = 0; l < lanes; ++l) any = lost[l] > any ? lost[l] : any;
  if (any != T(0))
    for (int l = 0; l < lanes; ++l) {
      if (lost[l] == T(0)) continue;
      const int64_t j = y + base + l;
      const T exact = direct(q.z + x * q.d, q.zM + x * q.d, q.z + j * q.d, q.zM + j * q.d, q.d);
      safe[l] = exact < T(0) ? T(0) : exact;
    }
  T* __restrict__ out = q.cost + row * q.m + base;
  if (q.squared)
    for (int l = 0; l < lanes; ++l) out[l] = safe[l];
  else
    for (int l = 0; l < lanes; ++l) out[l] = std::sqrt(safe[l]);
}

template <typename T>
inline void cost(const MahalanobisCost<T>& q, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row / q.n * (q.n + q.m), x = first + row % q.n, y = first + q.n;
    int64_t base = 0;
    for (; base + kLanes <= q.m; base += kLanes) entries(q, row, x, y, base, kLanes);
    if (base < q.m) entries(q, row, x, y, base, int(q.m - base));
  }
}

template <typename T>
inline void slope(const MahalanobisSlope<T>& q, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T *__restrict__ grad = q.grad + row * q.m, *__restrict__ cost = q.cost + row * q.m;
    T* __restrict__ W = q.W + row * q.m;
    T sum[kLanes] = {};
    in_lanes(q.m, [&](int64_t j, int l) {
      const T value = q.squared ? grad[j] : T(0.5) * grad[j] / cost[j];
      W[j] = cost[j] == T(0) ? T(0) : value;
      sum[l] += W[j];
    });
    q.rows[row] = total(sum);
  }
}

template <typename T>
inline void columns(const MahalanobisSlope<T>& q, int64_t begin, int64_t end) {
  while (begin < end) {  // the columns of one problem at a time
    const int64_t b = begin / q.m, stop = std::min(end, (b + 1) * q.m), count = stop - begin;
    const T* __restrict__ W = q.W + b * q.n * q.m + begin % q.m;
    T* __restrict__ out = q.columns + begin;
    std::fill(out, out + count, T(0));
    for (int64_t i = 0; i < q.n; ++i)
      for (int64_t j = 0; j < count; ++j) out[j] += W[i * q.m + j];
    begin = stop;
  }
}

}  // namespace

#define TS_INSTANTIATE(T)                                                                                         \
  template <>                                                                                                     \
  TS_EVERY_ISA void mahalanobis_norms_cpu(const MahalanobisCost<T>& q, int64_t begin, int64_t end) {              \
    norms(q, begin, end);                                                                                         \
  }                                                                                                               \
  template <>                                                                                                     \
  TS_EVERY_ISA void mahalanobis_cost_cpu(const MahalanobisCost<T>& q, int64_t begin, int64_t end) {               \
    cost(q, begin, end);                                                                                          \
  }                                                                                                               \
  template <>                                                                                                     \
  TS_EVERY_ISA void mahalanobis_cost_backward_cpu(const MahalanobisSlope<T>& q, int64_t begin, int64_t end) {     \
    slope(q, begin, end);                                                                                         \
  }                                                                                                               \
  template <>                                                                                                     \
  TS_EVERY_ISA void mahalanobis_columns_cpu(const MahalanobisSlope<T>& q, int64_t begin, int64_t end) {           \
    columns(q, begin, end);                                                                                       \
  }
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
