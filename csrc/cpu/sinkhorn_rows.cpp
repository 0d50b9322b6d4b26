#include "sinkhorn_rows.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "fastmath.h"

namespace transphere {
namespace {

template <typename T>
struct Lanes {
  static constexpr int W = kVector / sizeof(T);
  typedef T Aligned __attribute__((vector_size(kVector)));
  typedef T Any __attribute__((vector_size(kVector), aligned(sizeof(T)), may_alias));
};

// Four partial sums at once, each over its lanes, always in the same order.
template <typename T, typename V>
inline void totals(const V (&x)[4], T (&out)[4]) {
  constexpr int W = Lanes<T>::W;
  for (int k = 0; k < 4; ++k) {
    T y[W];
    std::memcpy(y, &x[k], sizeof y);
    for (int half = W / 2; half; half /= 2)
      for (int l = 0; l < half; ++l) y[l] += y[l + half];
    out[k] = y[0];
  }
}

// For each block of up to four rows: dots = K_i x, weights = f(i, dots), sums += weights K_i. Rows beyond the end repeat the last with weight 0.
template <typename T, bool kDots, bool kSums, typename F>
inline void blocks(const Matrix<T>& K, const T* x, T* sums, int64_t begin, int64_t end, F&& f) {
  using V = typename Lanes<T>::Aligned;
  using Any = typename Lanes<T>::Any;
  constexpr int W = Lanes<T>::W;
  const int64_t width = K.width;
  for (int64_t i = begin; i < end; i += 4) {
    const T* row[4];
    for (int k = 0; k < 4; ++k) row[k] = K[i + k < end ? i + k : end - 1];
    T dot[4] = {};
    if (kDots) {
      V part[4] = {};
      for (int64_t j = 0; j < width; j += W) {
        const V xj = *reinterpret_cast<const Any*>(x + j);
        for (int k = 0; k < 4; ++k) part[k] += xj * *reinterpret_cast<const Any*>(row[k] + j);
      }
      totals<T>(part, dot);
    }
    T w[4] = {};
    for (int k = 0; k < 4; ++k)
      if (i + k < end) w[k] = f(i + k, dot[k]);
    if (kSums)
      for (int64_t j = 0; j < width; j += W) {
        V s = *reinterpret_cast<const Any*>(sums + j);
        for (int k = 0; k < 4; ++k) s += w[k] * *reinterpret_cast<const Any*>(row[k] + j);
        *reinterpret_cast<Any*>(sums + j) = s;
      }
  }
}

template <typename T>
inline void kernel(const T* __restrict__ cost, int64_t m, const double* __restrict__ f, const double* __restrict__ g, const T* rows_on,
                   const T* __restrict__ cols_on, double over_eps, const Matrix<T>& K, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    T* __restrict__ k = K[i];
    const T* __restrict__ c = cost + i * m;
    if (rows_on[i] == T(0)) {
      std::memset(k, 0, sizeof(T) * K.width);
      continue;
    }
    const double fi = f[i];
    for (int64_t j = 0; j < m; ++j) {
      const T e = exp_flushed(T((fi + g[j] - double(c[j])) * over_eps));
      k[j] = cols_on[j] == T(0) ? T(0) : e;
    }
    for (int64_t j = m; j < K.width; ++j) k[j] = T(0);
  }
}

template <typename T>
inline void least_rows(const T* __restrict__ cost, int64_t m, const double* __restrict__ g, const T* __restrict__ cols_on, double* least,
                       int64_t begin, int64_t end) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  for (int64_t i = begin; i < end; ++i) {
    const T* __restrict__ c = cost + i * m;
    double best[8];
    for (double& x : best) x = inf;
    int64_t j = 0;
    for (; j + 8 <= m; j += 8)
      for (int l = 0; l < 8; ++l) {
        const double x = cols_on[j + l] == T(0) ? inf : double(c[j + l]) - g[j + l];
        best[l] = x < best[l] ? x : best[l];
      }
    for (; j < m; ++j) {
      const double x = cols_on[j] == T(0) ? inf : double(c[j]) - g[j];
      best[0] = x < best[0] ? x : best[0];
    }
    for (int l = 1; l < 8; ++l) best[0] = best[l] < best[0] ? best[l] : best[0];
    least[i] = best[0];
  }
}

template <typename T>
inline void least_cols(const T* __restrict__ cost, int64_t m, const double* __restrict__ f, const T* rows_on, double* __restrict__ least,
                       int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    if (rows_on[i] == T(0)) continue;
    const T* __restrict__ c = cost + i * m;
    const double fi = f[i];
    for (int64_t j = 0; j < m; ++j) {
      const double x = double(c[j]) - fi;
      least[j] = x < least[j] ? x : least[j];
    }
  }
}

template <typename T>
inline void plan(const Matrix<T>& K, const T* u, const T* __restrict__ v, int64_t m, T* P, T* row_sums, T* __restrict__ col_sums, int64_t begin,
                 int64_t end) {
  constexpr int W = Lanes<T>::W;
  for (int64_t i = begin; i < end; ++i) {
    const T* k = K[i];
    T* p = P + i * m;
    const T ui = u[i];
    T sum[W] = {};
    int64_t j = 0;
    for (; j + W <= m; j += W)
      for (int l = 0; l < W; ++l) {
        const T x = ui * k[j + l] * v[j + l];
        p[j + l] = x;
        sum[l] += x;
        col_sums[j + l] += x;
      }
    for (; j < m; ++j) {
      const T x = ui * k[j] * v[j];
      p[j] = x;
      sum[0] += x;
      col_sums[j] += x;
    }
    for (int half = W / 2; half; half /= 2)
      for (int l = 0; l < half; ++l) sum[l] += sum[l + half];
    row_sums[i] = sum[0];
  }
}

template <typename T>
inline void sum(const T* __restrict__ H, int64_t m, double* row_sums, T* __restrict__ sums, int64_t begin, int64_t end) {
  constexpr int W = Lanes<T>::W;
  for (int64_t i = begin; i < end; ++i) {
    const T* __restrict__ h = H + i * m;
    T part[W] = {};
    int64_t j = 0;
    for (; j + W <= m; j += W)
      for (int l = 0; l < W; ++l) part[l] += h[j + l], sums[j + l] += h[j + l];
    for (; j < m; ++j) part[0] += h[j], sums[j] += h[j];
    double total = 0;
    for (int l = 0; l < W; ++l) total += double(part[l]);
    row_sums[i] = total;
  }
}

template <typename T>
inline void gradient(const T* P, const T* H, const T* x, const T* __restrict__ y, T z, T over_eps, int64_t m, T* out, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const T *p = P + i * m, *h = H + i * m;
    T* __restrict__ o = out + i * m;
    const T xz = x[i] + z;
    for (int64_t j = 0; j < m; ++j) o[j] = (p[j] * (xz + y[j]) - h[j]) * over_eps;
  }
}

}  // namespace

#define TS_INSTANTIATE(T)                                                                                                                   \
  template <>                                                                                                                               \
  TS_EVERY_ISA void kernel_rows(const T* cost, int64_t m, const double* f, const double* g, const T* rows_on, const T* cols_on,             \
                                double over_eps, Matrix<T> K, int64_t begin, int64_t end) {                                                 \
    kernel(cost, m, f, g, rows_on, cols_on, over_eps, K, begin, end);                                                                       \
  }                                                                                                                                         \
  template <>                                                                                                                               \
  TS_EVERY_ISA void least_in_rows(const T* cost, int64_t m, const double* g, const T* cols_on, double* least, int64_t begin, int64_t end) { \
    least_rows(cost, m, g, cols_on, least, begin, end);                                                                                     \
  }                                                                                                                                         \
  template <>                                                                                                                               \
  TS_EVERY_ISA void least_in_columns(const T* cost, int64_t m, const double* f, const T* rows_on, double* least, int64_t begin,             \
                                     int64_t end) {                                                                                         \
    least_cols(cost, m, f, rows_on, least, begin, end);                                                                                     \
  }                                                                                                                                         \
  template <>                                                                                                                               \
  TS_EVERY_ISA void scale_rows(Matrix<T> K, const T* v, T t, const T* a, const T* cap, T* u, T* sums, int64_t begin, int64_t end) {         \
    blocks<T, true, true>(K, v, sums, begin, end, [&](int64_t i, T dot) {                                                                   \
      T x = a[i] > T(0) ? a[i] / (t * dot) : T(0);                                                                                          \
      if (cap) x = x < cap[i] ? x : cap[i] + (dot - dot);                                                                                   \
      return u[i] = x;                                                                                                                      \
    });                                                                                                                                     \
  }                                                                                                                                         \
  template <>                                                                                                                               \
  TS_EVERY_ISA void multiply_rows(Matrix<T> K, const T* x, const T* weight, T* dots, T* sums, int64_t begin, int64_t end) {        \
    blocks<T, true, true>(K, x, sums, begin, end, [&](int64_t i, T dot) { return weight[i] * (dots[i] = dot); });                   \
  }                                                                                                                                         \
  template <>                                                                                                                               \
  TS_EVERY_ISA void dot_rows(Matrix<T> K, const T* x, T* dots, int64_t begin, int64_t end) {                                                \
    blocks<T, true, false>(K, x, static_cast<T*>(nullptr), begin, end, [&](int64_t i, T dot) { return dots[i] = dot; });                    \
  }                                                                                                                                         \
  template <>                                                                                                                               \
  TS_EVERY_ISA void add_rows(Matrix<T> K, const T* weight, T* sums, int64_t begin, int64_t end) {                                           \
    blocks<T, false, true>(K, static_cast<const T*>(nullptr), sums, begin, end, [&](int64_t i, T) { return weight[i]; });                   \
  }                                                                                                                                         \
  template <>                                                                                                                               \
  TS_EVERY_ISA void plan_rows(Matrix<T> K, const T* u, const T* v, int64_t m, T* P, T* row_sums, T* col_sums, int64_t begin, int64_t end) { \
    plan(K, u, v, m, P, row_sums, col_sums, begin, end);                                                                                    \
  }                                                                                                                                         \
  template <>                                                                                                                               \
  TS_EVERY_ISA void sum_rows(const T* H, int64_t m, double* row_sums, T* sums, int64_t begin, int64_t end) {                                \
    sum(H, m, row_sums, sums, begin, end);                                                                                                  \
  }                                                                                                                                         \
  template <>                                                                                                                               \
  TS_EVERY_ISA void gradient_rows(const T* P, const T* H, const T* x, const T* y, T z, T over_eps, int64_t m, T* out, int64_t begin,        \
                                  int64_t end) {                                                                                            \
    gradient(P, H, x, y, z, over_eps, m, out, begin, end);                                                                                  \
  }
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
