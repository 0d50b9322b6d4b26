#include "sinkhorn_newton.h"

#include <algorithm>
#include <cmath>

namespace transphere {
namespace {

constexpr double kReach = 30;  // of a step, in logarithms

}  // namespace

template <typename T>
bool SinkhornNewton<T>::stalled(double error, double mass) {
  stalls_ = error > 0.7 * last_error_ ? stalls_ + 1 : 0;
  last_error_ = error;
  return stalls_ >= 3 && error <= 64 * double(std::numeric_limits<T>::epsilon()) * mass;
}

template <typename T>
void SinkhornNewton<T>::step(SinkhornState<T>& S, double error) {
  const int64_t n = S.n, m = S.m;
  if (S.out_of_range()) S.form_again();
  S.merge();
  if (!system_) system_.reset(new PlanSystem<T>(n, m, S.split));
  PlanSystem<T>& s = *system_;
  s.r = S.row_sums, s.c = S.sums;
  for (int64_t i = 0; i < n; ++i) {
    s.p[i] = double(S.form.a[i]) - double(s.r[i]);
    s.rows_on[i] = S.form.rows_on[i] != T(0) && (S.form.tight_rows || S.f[i] < 0) ? 1 : 0;
  }
  double total_before = 0;
  for (int64_t j = 0; j < m; ++j) {
    s.q[j] = double(S.form.b[j]) - double(s.c[j]);
    s.cols_on[j] = S.form.cols_on[j] != T(0) && (S.form.tight_cols || S.g[j] < 0) ? 1 : 0;
    total_before += double(s.c[j]);
  }
  s.o = S.form.mass - total_before;
  const double tolerance = std::fmax(1e-3, std::fmin(2 * error, 0.3));
  s.solve(S.K, S.form.has_mass(), S.form.tight_rows && S.form.tight_cols, tolerance, /*fresh=*/newtons_ == 0);

  double longest = std::fabs(s.z);
  for (const double y : s.y) longest = std::fmax(longest, std::fabs(y));
  double length = 1;
  for (int trial = 0; trial < 7 && S.iterations < S.q.max_iter; ++trial, length = std::fmin(0.5 * length, kReach / longest)) {
    const auto moved = [&](double x) { return std::exp(std::fmax(-kReach, std::fmin(length * x, kReach))); };
    for (int64_t j = 0; j < m; ++j) {
      S.v[j] = S.form.cols_on[j] == T(0) ? T(0) : T(moved(s.y[j]));
      if (!S.form.tight_cols && S.v[j] > S.cap_v[j]) S.v[j] = S.cap_v[j];
    }
    S.t = S.form.has_mass() ? T(moved(s.z)) : T(1);
    S.scale_all_rows();
    double gain = total_before - double(S.t) * S.total() + S.form.mass * std::log(double(S.t));
    for (int64_t i = 0; i < n; ++i)
      if (S.form.rows_on[i] != T(0)) gain += double(S.form.a[i]) * std::log(double(S.u[i]));
    for (int64_t j = 0; j < m; ++j)
      if (S.form.cols_on[j] != T(0)) gain += double(S.form.b[j]) * std::log(double(S.v[j]));
    if (gain >= -16 * double(std::numeric_limits<T>::epsilon()) * S.form.mass) {
      S.scale_columns();
      ++newtons_;
      patience_ = 4;
      if (S.out_of_range()) S.form_again();
      return;
    }
  }
  for (int64_t j = 0; j < m; ++j) S.v[j] = S.form.cols_on[j];
  std::fill(S.u.begin(), S.u.end(), T(1));
  S.t = 1;
  patience_ = int64_t(32) << std::min(++failures_, 10);
}
template class SinkhornNewton<float>;
template class SinkhornNewton<double>;

}  // namespace transphere
