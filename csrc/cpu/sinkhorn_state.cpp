#include "sinkhorn_state.h"

#include <algorithm>
#include <cmath>

namespace transphere {

template <typename T>
SinkhornState<T>::SinkhornState(const SinkhornProblems<T>& problems, const Split& split)
    : q(problems), split(split), n(q.n), m(q.m), width(padded(q.m)), form(n, m), f(n), g(width), u(n), v(width), cap_u(n), cap_v(width),
      sums(width), row_sums(n), least_(n + width), old_v_(width), scratch_(width == m ? 0 : n * width) {}

template <typename T>
void SinkhornState<T>::form_kernel() {
  std::vector<double>& from = least_;
  for (int64_t i = 0; i < n; ++i) from[i] = f[i] + h;
  split_rows(n, width, split, [&](int64_t b, int64_t e) {
    kernel_rows(cost_, m, from.data(), g.data(), form.rows_on.data(), form.cols_on.data(), 1 / q.eps, K, b, e);
  });
  drift = 0;
  set_caps();
}

template <typename T>
void SinkhornState<T>::set_caps() {
  if (!form.tight_rows)
    for (int64_t i = 0; i < n; ++i) cap_u[i] = T(std::exp(-f[i] / q.eps));
  if (!form.tight_cols)
    for (int64_t j = 0; j < m; ++j) cap_v[j] = T(std::exp(-g[j] / q.eps));
}

template <typename T>
void SinkhornState<T>::scale_all_rows() {
  const T* cap = form.tight_rows ? nullptr : cap_u.data();
  over_rows<T>(n, width, split, partial_, sums.data(),
               [&](int64_t b, int64_t e, T* sums) { scale_rows(K, v.data(), t, form.a.data(), cap, u.data(), sums, b, e); });
  ++iterations;
}

template <typename T>
double SinkhornState<T>::total() const {
  double sum = 0;
  for (int64_t j = 0; j < m; ++j) sum += double(v[j]) * double(sums[j]);
  return sum;
}

template <typename T>
double SinkhornState<T>::scale_columns() {
  double moved = 0;
  for (int64_t j = 0; j < m; ++j) {
    T x = form.b[j] > T(0) ? form.b[j] / (t * sums[j]) : T(0);
    if (!form.tight_cols) x = x < cap_v[j] ? x : cap_v[j] + (sums[j] - sums[j]);
    moved += std::fabs(double(v[j] - x)) * double(sums[j]);
    old_v_[j] = v[j];
    v[j] = x;
  }
  if (!form.has_mass()) return moved;
  double before = 0;
  for (int64_t j = 0; j < m; ++j) before += double(old_v_[j]) * double(sums[j]);
  const double error = double(t) * moved + std::fabs(double(t) * before - form.mass);
  t = T(form.mass / total());
  raise(u, cap_u);
  raise(v, cap_v);
  return error;
}

// Where all of a side's potentials are below 0, they go up by as much as they can and h goes down: the plan stays, the dual rises.
// Iterations take this way in small steps, the smaller the nearer the mass is to that of the side.
template <typename T>
void SinkhornState<T>::raise(std::vector<T>& x, const std::vector<T>& cap) {
  T most = 0;
  for (size_t i = 0; i < cap.size(); ++i) most = x[i] / cap[i] > most ? x[i] / cap[i] : most;
  if (!(most > T(1e-30)) || most >= T(1)) return;
  const T near = 1 - 8 * std::numeric_limits<T>::epsilon();
  for (size_t i = 0; i < cap.size(); ++i) x[i] = x[i] / most < near * cap[i] ? x[i] / most : cap[i];
  t *= most;
}

template <typename T>
double SinkhornState<T>::product() const {
  T most_u = 0, most_v = 0;
  for (int64_t i = 0; i < n; ++i) most_u = u[i] > most_u ? u[i] : most_u;
  for (int64_t j = 0; j < m; ++j) most_v = v[j] > most_v ? v[j] : most_v;
  const double log_u = std::log(double(most_u)), log_v = std::log(double(most_v)), log_t = std::log(double(t));
  return std::fmax(std::fmax(log_u + log_v + log_t, std::fabs(log_t)), std::fmax(log_u, log_v));
}

template <typename T>
void SinkhornState<T>::form_again() {
  absorb();
  form_kernel();
}

template <typename T>
void SinkhornState<T>::absorb() {
  const auto into = [&](std::vector<double>& x, std::vector<T>& scale, const std::vector<T>& cap, const std::vector<T>& on, bool tight,
                        int64_t size) {
    for (int64_t i = 0; i < size; ++i) {
      if (on[i] == T(0)) continue;
      x[i] += q.eps * (scale[i] > T(0) ? std::log(double(scale[i])) : scale[i] == T(0) ? -80.0 : double(scale[i]));
      if (!tight) x[i] = scale[i] < cap[i] ? std::fmin(x[i], 0) : 0;
      scale[i] = T(1);
    }
  };
  into(f, u, cap_u, form.rows_on, form.tight_rows, n);
  into(g, v, cap_v, form.cols_on, form.tight_cols, m);
  h += q.eps * std::log(double(t));
  t = 1;
}

template <typename T>
void SinkhornState<T>::merge() {
  drift += product();
  for (int64_t j = 0; j < width; ++j) old_v_[j] = t * v[j];
  over_rows<T>(n, width, split, partial_, sums.data(), [&](int64_t b, int64_t e, T* sums) {
    plan_rows(K, u.data(), old_v_.data(), form.cols_on.data(), row_sums.data(), sums, b, e);
  });
  absorb();
  set_caps();
}

template <typename T>
double SinkhornState<T>::plan_error() const {
  double error = 0, total = 0;
  const auto miss = [&](double sum, double weight, double x, bool tight) {
    return std::fabs(sum - (tight ? weight : weight > 0 ? std::fmin(weight, sum * std::exp(-x / q.eps)) : 0));
  };
  for (int64_t i = 0; i < n; ++i) error += miss(row_sums[i], form.a[i], f[i], form.tight_rows), total += double(row_sums[i]);
  for (int64_t j = 0; j < m; ++j) error += miss(sums[j], form.b[j], g[j], form.tight_cols);
  return error + (form.has_mass() ? std::fabs(total - form.mass) : 0) + (total - total);
}

template <typename T>
void SinkhornState<T>::report(double error, double tol) {
  const int64_t k = problem;
  constexpr T kOff = -std::numeric_limits<T>::infinity();
  const double bad = error - error;
  double shift = 0;
  if (form.tight_rows && form.tight_cols) {
    for (int64_t i = 0; i < n; ++i) shift -= double(form.a[i]) * f[i];
    for (int64_t j = 0; j < m; ++j) shift += double(form.b[j]) * g[j];
    shift /= 2 * form.mass;
  }
  T *out_f = q.f + k * n, *out_g = q.g + k * m;
  for (int64_t i = 0; i < n; ++i) out_f[i] = form.rows_on[i] == T(0) ? kOff : T(f[i] + shift + bad);
  for (int64_t j = 0; j < m; ++j) out_g[j] = form.cols_on[j] == T(0) ? kOff : T(g[j] - shift + bad);
  for (int64_t i = 0; i < n; ++i) {
    const T* row = K[i];
    if (bad != 0) std::fill(plan_ + i * m, plan_ + (i + 1) * m, T(bad));
    else if (row != plan_ + i * m) std::copy(row, row + m, plan_ + i * m);
  }
  q.h[k] = T(h + bad);
  q.error[k] = T(error);
  q.iterations[k] = int32_t(iterations);
  q.converged[k] = error <= tol;
}

template struct SinkhornState<float>;
template struct SinkhornState<double>;

}  // namespace transphere
