#include <algorithm>
#include <cmath>
#include <utility>

#include "sinkhorn_state.h"

namespace transphere {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// Without an entry the least is inf; a cost of -inf is an error.
double shift_by(double least) { return std::isfinite(least) ? least : least < 0 ? std::nan("") : 0; }

}  // namespace

template <typename T>
void SinkhornState<T>::start(int64_t k) {
  problem = k;
  cost_ = q.cost + k * n * m;
  plan_ = q.plan + k * n * m;
  K = {width == m ? plan_ : scratch_.data(), width, width};
  form.set(q.a + k * n, q.b + k * m, q.mass ? q.mass + k : nullptr);
  const T *f0 = q.f0 ? q.f0 + k * n : nullptr, *g0 = q.g0 ? q.g0 + k * m : nullptr;
  const auto given = [&](const T* x0, int64_t i, bool tight) {
    const double x = x0 && std::isfinite(x0[i]) ? double(x0[i]) : 0;
    return tight ? x : std::fmin(x, 0);
  };
  for (int64_t i = 0; i < n; ++i) f[i] = given(f0, i, form.tight_rows), u[i] = T(1);
  for (int64_t j = 0; j < width; ++j) g[j] = j < m ? given(g0, j, form.tight_cols) : 0, v[j] = form.cols_on[j];
  h = 0, t = 1, iterations = 0;

  // Each row's and each column's largest entry of K is 1, where the side is free.
  double* least = least_.data();
  std::vector<double> from = g;
  for (int64_t j = 0; j < m; ++j) from[j] = form.cols_on[j] == T(0) ? -kInf : g[j];
  split_rows(n, width, split, [&](int64_t b, int64_t e) { least_in_rows(cost_, m, from.data(), least, b, e); });
  if (form.tight_rows) {
    for (int64_t i = 0; i < n; ++i) f[i] = shift_by(least[i]);
  } else if (!form.tight_cols) {
    h = level(f0 != nullptr);
  }
  if (form.tight_cols) {
    double* lowest = least + n;
    std::fill(lowest, lowest + m, kInf);
    least_in_columns(cost_, m, f.data(), form.rows_on.data(), lowest, 0, n);
    for (int64_t j = 0; j < m; ++j) {
      const double now = shift_by(lowest[j]);
      if (g0 && form.tight_rows) v[j] *= T(std::exp(std::fmax(-40, std::fmin((g[j] - now) / q.eps, 40))));
      g[j] = now;
    }
  }
  form_kernel();
  if (form.has_mass()) {
    over_rows<T>(n, width, split, partial_, sums.data(),
                 [&](int64_t b, int64_t e, T* sums) { add_rows(K, form.rows_on.data(), sums, b, e); });
    t = T(form.mass / total());
  }
}

// Where h starts: with f and g given, so that the largest entry of K is 1; else the level below which lie rows of the mass to move, and
// f takes those up to it.
template <typename T>
double SinkhornState<T>::level(bool given) {
  const double* least = least_.data();
  double lowest = kInf;
  for (int64_t i = 0; i < n; ++i)
    if (form.rows_on[i] != T(0)) lowest = std::fmin(lowest, least[i] - f[i]);
  if (given) return lowest;
  std::vector<std::pair<double, double>> order;
  for (int64_t i = 0; i < n; ++i)
    if (form.rows_on[i] != T(0) && !std::isnan(least[i])) order.push_back({least[i], form.a[i]});
  std::sort(order.begin(), order.end());
  double below = 0, level = lowest;
  for (const auto& [cost, weight] : order) {
    if (std::isinf(cost)) break;
    level = cost;
    if ((below += weight) >= form.mass) break;
  }
  for (int64_t i = 0; i < n; ++i) f[i] = std::fmin(least[i] - level, 0);
  return level;
}

template void SinkhornState<float>::start(int64_t);
template void SinkhornState<double>::start(int64_t);

}  // namespace transphere
