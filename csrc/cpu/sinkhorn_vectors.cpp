#include "sinkhorn_vectors.h"

#include <cmath>
#include <limits>

#include "fastmath.h"

namespace transphere {
namespace {

// f(i, lane) for all i < n, i = lane modulo kLanes.
template <typename F>
inline void in_lanes(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    TS_SIMD
    for (int l = 0; l < kLanes; ++l) f(i + l, l);
  }
  for (int l = 0; i < n; ++i, ++l) f(i, l);
}

template <typename T>
inline T together(T (&part)[kLanes]) {
  for (int half = kLanes / 2; half; half /= 2)
    for (int l = 0; l < half; ++l) part[l] += part[l + half];
  return part[0];
}

template <typename T>
inline T most_of(const T (&part)[kLanes]) {
  T most = 0;
  for (const T x : part) most = x > most ? x : most;
  return most;
}

template <typename T, bool kCapped>
inline ColumnSums scale(const T* __restrict__ b, const T* __restrict__ sums, const T* __restrict__ cap, T t, T* __restrict__ v,
                        T* __restrict__ old_v, int64_t m) {
  double moved[kLanes] = {}, before[kLanes] = {}, after[kLanes] = {};
  in_lanes(m, [&](int64_t j, int l) {
    const T sum = sums[j], was = v[j], quotient = b[j] / (t * sum);
    T x = b[j] > T(0) ? quotient : T(0);
    if (kCapped) x = x < cap[j] ? x : cap[j] + (sum - sum);
    moved[l] += std::fabs(double(was - x)) * double(sum);
    before[l] += double(was) * double(sum);
    after[l] += double(x) * double(sum);
    old_v[j] = was;
    v[j] = x;
  });
  return {together(moved), together(before), together(after)};
}

template <typename T>
inline T most_in(const T* x, int64_t n) {
  T most[kLanes] = {};
  in_lanes(n, [&](int64_t i, int l) { most[l] = x[i] > most[l] ? x[i] : most[l]; });
  return most_of(most);
}

template <typename T>
inline T most_ratio(const T* x, const T* cap, int64_t n) {
  T most[kLanes] = {};
  in_lanes(n, [&](int64_t i, int l) {
    const T ratio = x[i] / cap[i];
    most[l] = ratio > most[l] ? ratio : most[l];
  });
  return most_of(most);
}

template <typename T>
inline void raise(T* __restrict__ x, const T* __restrict__ cap, T most, int64_t n) {
  const T near = 1 - 8 * std::numeric_limits<T>::epsilon();
  in_lanes(n, [&](int64_t i, int) {
    const T up = x[i] / most;
    x[i] = up < near * cap[i] ? up : cap[i];
  });
}

template <typename T>
inline void caps(const double* __restrict__ f, double over_eps, T* __restrict__ cap, int64_t n) {
  in_lanes(n, [&](int64_t i, int) { cap[i] = T(exp_flushed(-f[i] * over_eps)); });
}

template <typename T, bool kCapped>
inline void absorb(double* __restrict__ f, T* __restrict__ u, const T* __restrict__ cap, const T* __restrict__ on, double eps, int64_t n) {
  in_lanes(n, [&](int64_t i, int) {
    const double x = double(u[i]), logarithm = log_positive(x);
    // 0: as good as none. inf and NaN stay what they are.
    const double gone = x == 0 ? -80.0 : x, moved = f[i] + eps * (x > 0 && x < std::numeric_limits<T>::max() ? logarithm : gone);
    const double below = kCapped && moved > 0 ? 0.0 : moved, now = !kCapped || u[i] < cap[i] ? below : 0.0;
    f[i] = on[i] == T(0) ? f[i] : now;
    u[i] = on[i] == T(0) ? u[i] : T(1);
  });
}

template <typename T, bool kTight>
inline double miss(const T* __restrict__ sums, const T* __restrict__ weight, const double* __restrict__ f, double over_eps, int64_t n) {
  double part[kLanes] = {};
  in_lanes(n, [&](int64_t i, int l) {
    const double sum = sums[i], w = weight[i];
    double wanted = w;
    if (!kTight) {
      const double free = sum * exp_flushed(-f[i] * over_eps), least = free < w ? free : w;
      wanted = w > 0 ? least : 0.0;
    }
    part[l] += std::fabs(sum - wanted);
  });
  return together(part);
}

template <typename T>
inline void ratio(const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ out, int64_t n) {
  in_lanes(n, [&](int64_t i, int) {
    const T quotient = x[i] / y[i], logarithm = log_positive(quotient);
    out[i] = x[i] > T(0) && y[i] > T(0) ? logarithm : T(0);
  });
}

template <typename T>
inline void dots(const T* __restrict__ x, const T* __restrict__ ys, int count, const T* __restrict__ weight, int64_t n, double* out) {
  for (int k = 0; k < count; ++k) {
    const T* __restrict__ y = ys + k * n;
    double part[kLanes] = {};
    in_lanes(n, [&](int64_t i, int l) { part[l] += double(x[i]) * double(weight[i]) * double(y[i]); });
    out[k] = together(part);
  }
}

template <typename T>
inline double combined(const T* __restrict__ xs, const double* by, int count, T* __restrict__ out, int64_t n) {
  in_lanes(n, [&](int64_t i, int) { out[i] = T(0); });
  for (int k = 0; k < count; ++k) {
    const T* __restrict__ x = xs + k * n;
    const T factor = T(by[k]);
    in_lanes(n, [&](int64_t i, int) { out[i] -= factor * x[i]; });
  }
  T most[kLanes] = {}, bad[kLanes] = {};
  in_lanes(n, [&](int64_t i, int l) {
    const T size = std::fabs(out[i]);
    most[l] = size > most[l] ? size : most[l];
    bad[l] += size - size;
  });
  return double(most_of(most)) + double(together(bad));
}

template <typename T, bool kCapped>
inline void moved(const T* __restrict__ move, const T* __restrict__ cap, T* __restrict__ v, int64_t n) {
  in_lanes(n, [&](int64_t i, int) {
    const T x = v[i] * exp_flushed(move[i]);
    v[i] = kCapped && x > cap[i] ? cap[i] : x;
  });
}

}  // namespace

#define TS_INSTANTIATE(T)                                                                                              \
  template <>                                                                                                          \
  TS_EVERY_ISA ColumnSums scale_vector(const T* b, const T* sums, const T* cap, T t, T* v, T* old_v, int64_t m) {      \
    return cap ? scale<T, true>(b, sums, cap, t, v, old_v, m) : scale<T, false>(b, sums, cap, t, v, old_v, m);         \
  }                                                                                                                    \
  template <>                                                                                                          \
  TS_EVERY_ISA T largest(const T* x, int64_t n) {                                                                      \
    return most_in(x, n);                                                                                              \
  }                                                                                                                    \
  template <>                                                                                                          \
  TS_EVERY_ISA T largest_ratio(const T* x, const T* cap, int64_t n) {                                                  \
    return most_ratio(x, cap, n);                                                                                      \
  }                                                                                                                    \
  template <>                                                                                                          \
  TS_EVERY_ISA void raise_vector(T* x, const T* cap, T most, int64_t n) {                                              \
    raise(x, cap, most, n);                                                                                            \
  }                                                                                                                    \
  template <>                                                                                                          \
  TS_EVERY_ISA void cap_vector(const double* f, double over_eps, T* cap, int64_t n) {                                  \
    caps(f, over_eps, cap, n);                                                                                         \
  }                                                                                                                    \
  template <>                                                                                                          \
  TS_EVERY_ISA void absorb_vector(double* f, T* u, const T* cap, const T* on, double eps, int64_t n) {                 \
    cap ? absorb<T, true>(f, u, cap, on, eps, n) : absorb<T, false>(f, u, cap, on, eps, n);                            \
  }                                                                                                                    \
  template <>                                                                                                          \
  TS_EVERY_ISA double miss_vector(const T* sums, const T* weight, const double* f, double over_eps, int64_t n) {       \
    return f ? miss<T, false>(sums, weight, f, over_eps, n) : miss<T, true>(sums, weight, f, over_eps, n);             \
  }                                                                                                                    \
  template <>                                                                                                          \
  TS_EVERY_ISA void log_ratio(const T* x, const T* y, T* out, int64_t n) {                                             \
    ratio(x, y, out, n);                                                                                               \
  }                                                                                                                    \
  template <>                                                                                                          \
  TS_EVERY_ISA void weighted_dots(const T* x, const T* ys, int count, const T* weight, int64_t n, double* out) {       \
    dots(x, ys, count, weight, n, out);                                                                                \
  }                                                                                                                    \
  template <>                                                                                                          \
  TS_EVERY_ISA double combine_vectors(const T* xs, const double* by, int count, T* out, int64_t n) {                   \
    return combined(xs, by, count, out, n);                                                                            \
  }                                                                                                                    \
  template <>                                                                                                          \
  TS_EVERY_ISA void move_vector(const T* move, const T* cap, T* v, int64_t n) {                                        \
    cap ? moved<T, true>(move, cap, v, n) : moved<T, false>(move, cap, v, n);                                          \
  }
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
