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

constexpr int kFour = 4, kBlock = 32;

// Dots of four rows with x. Sums here go by fours and then by more: in float32 a plan near a permutation has one large entry a row and a
// column, which would swallow all others, one by one, though together they are what is to be found out.
template <typename T>
inline void four_dots(const T* const (&row)[kFour], const T* x, int64_t width, T (&dot)[kFour]) {
  using V = typename Lanes<T>::Aligned;
  using Any = typename Lanes<T>::Any;
  constexpr int W = Lanes<T>::W;
  V sum[kFour] = {};
  for (int64_t start = 0; start < width; start += 64 * W) {
    const int64_t stop = width < start + 64 * W ? width : start + 64 * W;
    V part[kFour] = {};
    int64_t j = start;
    for (; j + 4 * W <= stop; j += 4 * W) {
      V four[kFour] = {};
      for (int64_t l = j; l < j + 4 * W; l += W) {
        const V xl = *reinterpret_cast<const Any*>(x + l);
        for (int k = 0; k < kFour; ++k) four[k] += xl * *reinterpret_cast<const Any*>(row[k] + l);
      }
      for (int k = 0; k < kFour; ++k) part[k] += four[k];
    }
    for (; j < stop; j += W) {
      const V xj = *reinterpret_cast<const Any*>(x + j);
      for (int k = 0; k < kFour; ++k) part[k] += xj * *reinterpret_cast<const Any*>(row[k] + j);
    }
    for (int k = 0; k < kFour; ++k) sum[k] += part[k];
  }
  totals<T>(sum, dot);
}

// weights = f(i, K_i x) a row, sums += weights K_i; in blocks of rows that the first cache holds from the one to the other. Rows beyond the
// end repeat the last with weight 0.
template <typename T, bool kDots, bool kSums, typename F>
inline void blocks(const Matrix<T>& K, const T* x, T* sums, int64_t begin, int64_t end, F&& f) {
  using V = typename Lanes<T>::Aligned;
  using Any = typename Lanes<T>::Any;
  constexpr int W = Lanes<T>::W;
  const int64_t width = K.width, fits = 32768 / (width * int64_t(sizeof(T))) / kFour * kFour;
  const int64_t block = fits < kFour ? kFour : fits < kBlock ? fits : kBlock;
  for (int64_t i = begin; i < end; i += block) {
    const int64_t fours = ((end - i < block ? end - i : block) + kFour - 1) / kFour;
    const T* row[kBlock];
    T w[kBlock] = {};
    for (int64_t k = 0; k < fours * kFour; ++k) row[k] = K[i + k < end ? i + k : end - 1];
    for (int64_t q = 0; q < fours * kFour; q += kFour) {
      T dot[kFour] = {};
      const T* const four[kFour] = {row[q], row[q + 1], row[q + 2], row[q + 3]};
      if (kDots) four_dots<T>(four, x, width, dot);
      for (int k = 0; k < kFour; ++k)
        if (i + q + k < end) w[q + k] = f(i + q + k, dot[k]);
    }
    if (!kSums) continue;
    for (int64_t j = 0; j < width; j += W) {
      V s{};
      for (int64_t q = 0; q < fours * kFour; q += kFour) {
        V four = w[q] * *reinterpret_cast<const Any*>(row[q] + j);
        for (int k = 1; k < kFour; ++k) four += w[q + k] * *reinterpret_cast<const Any*>(row[q + k] + j);
        s += four;
      }
      *reinterpret_cast<Any*>(sums + j) += s;
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
inline void least_rows(const T* __restrict__ cost, int64_t m, const double* __restrict__ g, double* least, int64_t begin, int64_t end) {
  constexpr int W = Lanes<double>::W;
  typedef T Costs __attribute__((vector_size(W * sizeof(T)), aligned(sizeof(T)), may_alias));
  using V = Lanes<double>::Aligned;
  using Any = Lanes<double>::Any;
  for (int64_t i = begin; i < end; ++i) {
    const T* __restrict__ c = cost + i * m;
    V best[2];
    for (V& x : best) x = V{} + std::numeric_limits<double>::infinity();
    int64_t j = 0;
    for (; j + 2 * W <= m; j += 2 * W)
      for (int h = 0; h < 2; ++h) {
        const Costs cost = *reinterpret_cast<const Costs*>(c + j + h * W);
        const V x = __builtin_convertvector(cost, V) - *reinterpret_cast<const Any*>(g + j + h * W);
        best[h] = x < best[h] ? x : best[h];
      }
    double lowest = std::numeric_limits<double>::infinity();
    for (const V& x : best)
      for (int l = 0; l < W; ++l) lowest = x[l] < lowest ? x[l] : lowest;
    for (; j < m; ++j) {
      const double x = double(c[j]) - g[j];
      lowest = x < lowest ? x : lowest;
    }
    least[i] = lowest;
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
inline void plan(const Matrix<T>& K, const T* u, const T* __restrict__ v, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    T* __restrict__ k = K[i];
    const T ui = u[i];
    for (int64_t j = 0; j < K.width; ++j) k[j] = ui * k[j] * v[j];
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
inline void gradient(const T* P, const T* H, const T* x, const T* __restrict__ y, T z, T over_eps, int64_t m, T* out, int64_t begin,
                     int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const T *p = P + i * m, *h = H + i * m;
    T* __restrict__ o = out + i * m;
    const T xz = x[i] + z;
    for (int64_t j = 0; j < m; ++j) o[j] = (p[j] * (xz + y[j]) - h[j]) * over_eps;
  }
}

}  // namespace

#define TS_INSTANTIATE(T)                                                                                                                 \
  template <>                                                                                                                             \
  TS_EVERY_ISA void kernel_rows(const T* cost, int64_t m, const double* f, const double* g, const T* rows_on, const T* cols_on,           \
                                double over_eps, Matrix<T> K, int64_t begin, int64_t end) {                                               \
    kernel(cost, m, f, g, rows_on, cols_on, over_eps, K, begin, end);                                                                     \
  }                                                                                                                                       \
  template <>                                                                                                                             \
  TS_EVERY_ISA void least_in_rows(const T* cost, int64_t m, const double* g, double* least, int64_t begin, int64_t end) {                 \
    least_rows(cost, m, g, least, begin, end);                                                                                            \
  }                                                                                                                                       \
  template <>                                                                                                                             \
  TS_EVERY_ISA void least_in_columns(const T* cost, int64_t m, const double* f, const T* rows_on, double* least, int64_t begin,           \
                                     int64_t end) {                                                                                       \
    least_cols(cost, m, f, rows_on, least, begin, end);                                                                                   \
  }                                                                                                                                       \
  template <>                                                                                                                             \
  TS_EVERY_ISA void scale_rows(Matrix<T> K, const T* v, T t, const T* a, const T* cap, T* u, T* sums, int64_t begin, int64_t end) {       \
    blocks<T, true, true>(K, v, sums, begin, end, [&](int64_t i, T dot) {                                                                 \
      T x = a[i] > T(0) ? a[i] / (t * dot) : T(0);                                                                                        \
      if (cap) x = x < cap[i] ? x : cap[i] + (dot - dot);                                                                                 \
      return u[i] = x;                                                                                                                    \
    });                                                                                                                                   \
  }                                                                                                                                       \
  template <>                                                                                                                             \
  TS_EVERY_ISA void multiply_rows(Matrix<T> K, const T* x, const T* weight, T* dots, T* sums, int64_t begin, int64_t end) {               \
    blocks<T, true, true>(K, x, sums, begin, end, [&](int64_t i, T dot) { return weight[i] * (dots[i] = dot); });                         \
  }                                                                                                                                       \
  template <>                                                                                                                             \
  TS_EVERY_ISA void dot_rows(Matrix<T> K, const T* x, T* dots, int64_t begin, int64_t end) {                                              \
    blocks<T, true, false>(K, x, static_cast<T*>(nullptr), begin, end, [&](int64_t i, T dot) { return dots[i] = dot; });                  \
  }                                                                                                                                       \
  template <>                                                                                                                             \
  TS_EVERY_ISA void add_rows(Matrix<T> K, const T* weight, T* sums, int64_t begin, int64_t end) {                                         \
    blocks<T, false, true>(K, static_cast<const T*>(nullptr), sums, begin, end, [&](int64_t i, T) { return weight[i]; });                 \
  }                                                                                                                                       \
  template <>                                                                                                                             \
  TS_EVERY_ISA void plan_rows(Matrix<T> K, const T* u, const T* v, const T* ones, T* row_sums, T* col_sums, int64_t begin, int64_t end) { \
    plan(K, u, v, begin, end);                                                                                                            \
    blocks<T, true, true>(K, ones, col_sums, begin, end, [&](int64_t i, T dot) { return row_sums[i] = dot, T(1); });                      \
  }                                                                                                                                       \
  template <>                                                                                                                             \
  TS_EVERY_ISA void sum_rows(const T* H, int64_t m, double* row_sums, T* sums, int64_t begin, int64_t end) {                              \
    sum(H, m, row_sums, sums, begin, end);                                                                                                \
  }                                                                                                                                       \
  template <>                                                                                                                             \
  TS_EVERY_ISA void gradient_rows(const T* P, const T* H, const T* x, const T* y, T z, T over_eps, int64_t m, T* out, int64_t begin,      \
                                  int64_t end) {                                                                                          \
    gradient(P, H, x, y, z, over_eps, m, out, begin, end);                                                                                \
  }
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
