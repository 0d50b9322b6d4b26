#include "sinkhorn_state.h"

#include <algorithm>
#include <cmath>

#include "sinkhorn_vectors.h"

namespace transphere {

template <typename T>
SinkhornState<T>::SinkhornState(const SinkhornProblems<T>& problems, const Split& split)
    : q(problems), split(split), n(q.n), m(q.m), width(padded(q.m)), form(n, m), f(n), g(width), u(n), v(width), old_v(width),
      cap_u(n), cap_v(width), sums(width), row_sums(n), least_(n + width), scratch_(width == m ? 0 : n * width) {}

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
  if (!form.tight_rows) cap_vector(f.data(), 1 / q.eps, cap_u.data(), n);
  if (!form.tight_cols) cap_vector(g.data(), 1 / q.eps, cap_v.data(), m);
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
  old_t = t;
  const ColumnSums by = scale_vector(form.b.data(), sums.data(), form.tight_cols ? nullptr : cap_v.data(), t, v.data(), old_v.data(), m);
  if (!form.has_mass()) return by.moved;
  const double error = double(t) * by.moved + std::fabs(double(t) * by.before - form.mass);
  t = T(form.mass / by.after);
  raise(u, cap_u, n);
  raise(v, cap_v, m);
  return error;
}

// Where all of a side's potentials are below 0, they go up by as much as they can and h goes down: the plan stays, the dual rises.
// Iterations take this way in small steps, the smaller the nearer the mass is to that of the side.
template <typename T>
void SinkhornState<T>::raise(std::vector<T>& x, const std::vector<T>& cap, int64_t size) {
  const T most = largest_ratio(x.data(), cap.data(), size);
  if (!(most > T(1e-30)) || most >= T(1)) return;
  raise_vector(x.data(), cap.data(), most, size);
  t *= most;
}

template <typename T>
double SinkhornState<T>::product() const {
  const double log_u = std::log(double(largest(u.data(), n))), log_v = std::log(double(largest(v.data(), m))), log_t = std::log(double(t));
  return std::fmax(std::fmax(log_u + log_v + log_t, std::fabs(log_t)), std::fmax(log_u, log_v));
}

template <typename T>
void SinkhornState<T>::form_again() {
  absorb();
  form_kernel();
}

template <typename T>
void SinkhornState<T>::absorb() {
  absorb_vector(f.data(), u.data(), form.tight_rows ? nullptr : cap_u.data(), form.rows_on.data(), q.eps, n);
  absorb_vector(g.data(), v.data(), form.tight_cols ? nullptr : cap_v.data(), form.cols_on.data(), q.eps, m);
  h += q.eps * std::log(double(t));
  t = 1;
}

template <typename T>
void SinkhornState<T>::merge() {
  drift += product();
  for (int64_t j = 0; j < width; ++j) old_v[j] = t * v[j];
  over_rows<T>(n, width, split, partial_, sums.data(), [&](int64_t b, int64_t e, T* sums) {
    plan_rows(K, u.data(), old_v.data(), form.cols_on.data(), row_sums.data(), sums, b, e);
  });
  absorb();
  set_caps();
}

template <typename T>
double SinkhornState<T>::plan_error() const {
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += double(row_sums[i]);
  const double rows = miss_vector(row_sums.data(), form.a.data(), form.tight_rows ? nullptr : f.data(), 1 / q.eps, n);
  const double cols = miss_vector(sums.data(), form.b.data(), form.tight_cols ? nullptr : g.data(), 1 / q.eps, m);
  return rows + cols + (form.has_mass() ? std::fabs(total - form.mass) : 0) + (total - total);
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
