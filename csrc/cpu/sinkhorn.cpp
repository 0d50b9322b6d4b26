#include "sinkhorn.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "sinkhorn_form.h"
#include "sinkhorn_rows.h"
#include "sinkhorn_system.h"

namespace transphere {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kReach = 30;  // of a step of Newton's method, in logarithms

// One problem after another of one shape. The state is P = t diag(u) K diag(v) with K = exp((f_i + g_j + h - C_ij) / eps): the logarithms
// of u, v and t move into f, g and h, and K is formed anew, before anything leaves the range of T.
template <typename T>
class Solver {
 public:
  Solver(const SinkhornProblems<T>& q, const Split& split)
      : q_(q), split_(split), n_(q.n), m_(q.m), width_(padded(q.m)), form_(q.n, q.m), f_(n_), g_(width_), least_(n_ + width_), u_(n_),
        cap_u_(n_), v_(width_), old_v_(width_), cap_v_(width_), sums_(width_), row_sums_(n_), scratch_(width_ == m_ ? 0 : n_ * width_) {}

  void solve(int64_t problem) {
    const int64_t k = problem;
    cost_ = q_.cost + k * n_ * m_;
    plan_ = q_.plan + k * n_ * m_;
    K_ = {width_ == m_ ? plan_ : scratch_.data(), width_, width_};
    form_.set(q_.a + k * n_, q_.b + k * m_, q_.mass ? q_.mass + k : nullptr);
    start(q_.f0 ? q_.f0 + k * n_ : nullptr, q_.g0 ? q_.g0 + k * m_ : nullptr);

    const double tol = q_.tol * form_.mass;
    double aim = 0.5 * tol, error = 0;
    for (iterations_ = 0;;) {
      iterate(aim);
      merge();
      error = plan_error();
      if (!(error > tol) || exhausted_ || iterations_ >= q_.max_iter) break;
      aim *= 0.5;  // rounding between the error on the way and the plan's own
    }
    report(k, error, tol);
  }

 private:
  void start(const T* f0, const T* g0) {
    const auto given = [&](const T* x0, int64_t i, bool tight) {
      const double x = x0 && std::isfinite(x0[i]) ? double(x0[i]) : 0;
      return tight ? x : std::fmin(x, 0);
    };
    for (int64_t i = 0; i < n_; ++i) f_[i] = given(f0, i, form_.tight_rows), u_[i] = T(1);
    for (int64_t j = 0; j < width_; ++j) g_[j] = j < m_ ? given(g0, j, form_.tight_cols) : 0, v_[j] = form_.cols_on[j];
    h_ = 0, t_ = 1, newtons_ = failures_ = stalls_ = 0, patience_ = 20, last_error_ = kInf, exhausted_ = false;

    // Each row's and each column's largest entry of K is 1, where the side is free.
    double* least = least_.data();
    std::vector<double> from = g_;
    for (int64_t j = 0; j < m_; ++j) from[j] = form_.cols_on[j] == T(0) ? -kInf : g_[j];
    split_rows(n_, width_, split_, [&](int64_t b, int64_t e) { least_in_rows(cost_, m_, from.data(), least, b, e); });
    if (form_.tight_rows) {
      for (int64_t i = 0; i < n_; ++i) f_[i] = shift_by(least[i]);
    } else if (!form_.tight_cols) {
      h_ = level(least, f0 != nullptr);
    }
    if (form_.tight_cols) {
      double* lowest = least + n_;
      std::fill(lowest, lowest + m_, kInf);
      least_in_columns(cost_, m_, f_.data(), form_.rows_on.data(), lowest, 0, n_);
      for (int64_t j = 0; j < m_; ++j) {
        const double now = shift_by(lowest[j]);
        if (g0 && form_.tight_rows) v_[j] *= T(std::exp(std::fmax(-40, std::fmin((g_[j] - now) / q_.eps, 40))));
        g_[j] = now;
      }
    }
    form_kernel();
    if (form_.has_mass()) {
      sum_columns(form_.rows_on.data());
      t_ = T(form_.mass / total());
    }
  }

  // Without an entry the least is inf; a cost of -inf is an error.
  static double shift_by(double least) { return std::isfinite(least) ? least : least < 0 ? std::nan("") : 0; }

  // Where h starts: with f and g given, so that the largest entry of K is 1; else the level below which lie rows of the mass to move, and
  // f takes those up to it.
  double level(const double* least, bool given) {
    double lowest = kInf;
    for (int64_t i = 0; i < n_; ++i)
      if (form_.rows_on[i] != T(0)) lowest = std::fmin(lowest, least[i] - f_[i]);
    if (given) return lowest;
    std::vector<std::pair<double, double>> order;
    for (int64_t i = 0; i < n_; ++i)
      if (form_.rows_on[i] != T(0) && !std::isnan(least[i])) order.push_back({least[i], form_.a[i]});
    std::sort(order.begin(), order.end());
    double below = 0, level = lowest;
    for (const auto& [cost, weight] : order) {
      if (std::isinf(cost)) break;
      level = cost;
      if ((below += weight) >= form_.mass) break;
    }
    for (int64_t i = 0; i < n_; ++i) f_[i] = std::fmin(least[i] - level, 0);
    return level;
  }

  void form_kernel() {
    std::vector<double>& f = least_;
    for (int64_t i = 0; i < n_; ++i) f[i] = f_[i] + h_;
    split_rows(n_, width_, split_, [&](int64_t b, int64_t e) {
      kernel_rows(cost_, m_, f.data(), g_.data(), form_.rows_on.data(), form_.cols_on.data(), 1 / q_.eps, K_, b, e);
    });
    drift_ = 0;
    set_caps();
  }

  void set_caps() {
    if (!form_.tight_rows)
      for (int64_t i = 0; i < n_; ++i) cap_u_[i] = T(std::exp(-f_[i] / q_.eps));
    if (!form_.tight_cols)
      for (int64_t j = 0; j < m_; ++j) cap_v_[j] = T(std::exp(-g_[j] / q_.eps));
  }

  void sum_columns(const T* weights) {
    over_rows<T>(n_, width_, split_, partial_, sums_.data(), [&](int64_t b, int64_t e, T* sums) { add_rows(K_, weights, sums, b, e); });
  }

  void scale_all_rows() {
    const T* cap = form_.tight_rows ? nullptr : cap_u_.data();
    over_rows<T>(n_, width_, split_, partial_, sums_.data(),
                 [&](int64_t b, int64_t e, T* sums) { scale_rows(K_, v_.data(), t_, form_.a.data(), cap, u_.data(), sums, b, e); });
    ++iterations_;
  }

  double total() const {
    double sum = 0;
    for (int64_t j = 0; j < m_; ++j) sum += double(v_[j]) * double(sums_[j]);
    return sum;
  }

  // The rest of an iteration, from sums = K'u. Returns the error before it: how far v moves, and t.
  double scale_columns() {
    double moved = 0;
    for (int64_t j = 0; j < m_; ++j) {
      T x = form_.b[j] > T(0) ? form_.b[j] / (t_ * sums_[j]) : T(0);
      if (!form_.tight_cols) x = x < cap_v_[j] ? x : cap_v_[j] + (sums_[j] - sums_[j]);
      moved += std::fabs(double(v_[j] - x)) * double(sums_[j]);
      old_v_[j] = v_[j];
      v_[j] = x;
    }
    if (!form_.has_mass()) return moved;
    double before = 0;
    for (int64_t j = 0; j < m_; ++j) before += double(old_v_[j]) * double(sums_[j]);
    const double error = double(t_) * moved + std::fabs(double(t_) * before - form_.mass);
    t_ = T(form_.mass / total());
    raise(u_, cap_u_);
    raise(v_, cap_v_);
    return error;
  }

  // Where all of a side's potentials are below 0, they go up by as much as they can and h goes down: the plan stays, the dual rises.
  // Iterations take this way in small steps, the smaller the nearer the mass is to that of the side.
  void raise(std::vector<T>& u, const std::vector<T>& cap) {
    T most = 0;
    for (size_t i = 0; i < cap.size(); ++i) most = u[i] / cap[i] > most ? u[i] / cap[i] : most;
    if (!(most > T(1e-30)) || most >= T(1)) return;
    const T near = 1 - 8 * std::numeric_limits<T>::epsilon();
    for (size_t i = 0; i < cap.size(); ++i) u[i] = u[i] / most < near * cap[i] ? u[i] / most : cap[i];
    t_ *= most;
  }

  // Until the error is at most `aim`, not a number, or there are no iterations left.
  void iterate(double aim) {
    double past[4] = {kInf, kInf, kInf, kInf};
    for (int64_t since = 0; iterations_ < q_.max_iter; ++since) {
      scale_all_rows();
      const double error = scale_columns();
      if (!(error > aim)) return;
      if (since >= patience_ && iterations_ + 2 < q_.max_iter) {
        // At the rate of the last iterations, how many more?
        const double rate = std::pow(error / past[since % 4], 0.25), left = rate < 1 ? std::log(aim / error) / std::log(rate) : kInf;
        if (left > newton_cost()) {
          if (stalled(error)) return;
          newton(error / form_.mass);
          since = -1;
          continue;
        }
      }
      past[since % 4] = error;
      if (out_of_range()) absorb(), form_kernel();
    }
  }

  // Whether steps of Newton's method no longer help, within what rounding explains.
  bool stalled(double error) {
    stalls_ = error > 0.7 * last_error_ ? stalls_ + 1 : 0;
    last_error_ = error;
    return exhausted_ = stalls_ >= 3 && error <= 64 * double(std::numeric_limits<T>::epsilon()) * form_.mass;
  }

  // In iterations: the product that the factor is of, and a few steps.
  double newton_cost() const { return newtons_ ? 16 : 24 + double(std::min(n_, m_)) / 4; }

  // How far, in logarithms, products u K v may be from K before entries that were flushed to zero could count.
  static double far() { return std::is_same<T, float>::value ? 50 : 500; }

  double product() const {
    T u = 0, v = 0;
    for (int64_t i = 0; i < n_; ++i) u = u_[i] > u ? u_[i] : u;
    for (int64_t j = 0; j < m_; ++j) v = v_[j] > v ? v_[j] : v;
    const double log_u = std::log(double(u)), log_v = std::log(double(v)), log_t = std::log(double(t_));
    return std::fmax(std::fmax(log_u + log_v + log_t, std::fabs(log_t)), std::fmax(log_u, log_v));
  }

  bool out_of_range() const { return drift_ + product() > far(); }

  // u, v and t into f, g and h; exactly 0 where the constraint is slack.
  void absorb() {
    const auto into = [&](std::vector<double>& f, std::vector<T>& u, const std::vector<T>& cap, const std::vector<T>& on, bool tight,
                          int64_t n) {
      for (int64_t i = 0; i < n; ++i) {
        if (on[i] == T(0)) continue;
        f[i] += q_.eps * (u[i] > T(0) ? std::log(double(u[i])) : u[i] == T(0) ? -80.0 : double(u[i]));
        if (!tight) f[i] = u[i] < cap[i] ? std::fmin(f[i], 0) : 0;
        u[i] = T(1);
      }
    };
    into(f_, u_, cap_u_, form_.rows_on, form_.tight_rows, n_);
    into(g_, v_, cap_v_, form_.cols_on, form_.tight_cols, m_);
    h_ += q_.eps * std::log(double(t_));
    t_ = 1;
  }

  // A step of Newton's method on the dual in all potentials that are free, followed by the rows' update, which can but raise the dual;
  // shortened until the dual does not fall, first to where no potential moves by more than kReach: between clusters a whole step can be 1e9
  // too long. Solved as loosely as the error allows. Where it fails altogether the state is that before.
  void newton(double error) {
    if (out_of_range()) absorb(), form_kernel();
    merge();
    if (!system_) system_.reset(new PlanSystem<T>(n_, m_, split_));
    PlanSystem<T>& s = *system_;
    s.r = row_sums_, s.c = sums_;
    for (int64_t i = 0; i < n_; ++i) {
      s.p[i] = double(form_.a[i]) - double(s.r[i]);
      s.rows_on[i] = form_.rows_on[i] != T(0) && (form_.tight_rows || f_[i] < 0) ? 1 : 0;
    }
    double total_before = 0;
    for (int64_t j = 0; j < m_; ++j) {
      s.q[j] = double(form_.b[j]) - double(s.c[j]);
      s.cols_on[j] = form_.cols_on[j] != T(0) && (form_.tight_cols || g_[j] < 0) ? 1 : 0;
      total_before += double(s.c[j]);
    }
    s.o = form_.mass - total_before;
    const double tolerance = std::fmax(1e-3, std::fmin(2 * error, 0.3));
    s.solve(K_, form_.has_mass(), form_.tight_rows && form_.tight_cols, tolerance, /*fresh=*/newtons_ == 0);

    double longest = std::fabs(s.z);
    for (const double y : s.y) longest = std::fmax(longest, std::fabs(y));
    double step = 1;
    for (int trial = 0; trial < 7 && iterations_ < q_.max_iter; ++trial, step = std::fmin(0.5 * step, kReach / longest)) {
      const auto moved = [&](double x) { return std::exp(std::fmax(-kReach, std::fmin(step * x, kReach))); };
      for (int64_t j = 0; j < m_; ++j) {
        v_[j] = form_.cols_on[j] == T(0) ? T(0) : T(moved(s.y[j]));
        if (!form_.tight_cols && v_[j] > cap_v_[j]) v_[j] = cap_v_[j];
      }
      t_ = form_.has_mass() ? T(moved(s.z)) : T(1);
      scale_all_rows();
      double gain = total_before - double(t_) * total() + form_.mass * std::log(double(t_));
      for (int64_t i = 0; i < n_; ++i)
        if (form_.rows_on[i] != T(0)) gain += double(form_.a[i]) * std::log(double(u_[i]));
      for (int64_t j = 0; j < m_; ++j)
        if (form_.cols_on[j] != T(0)) gain += double(form_.b[j]) * std::log(double(v_[j]));
      if (gain >= -16 * double(std::numeric_limits<T>::epsilon()) * form_.mass) {
        scale_columns();
        ++newtons_;
        patience_ = 4;
        if (out_of_range()) absorb(), form_kernel();
        return;
      }
    }
    for (int64_t j = 0; j < m_; ++j) v_[j] = form_.cols_on[j];
    t_ = 1;
    patience_ = int64_t(32) << std::min(++failures_, 10);
  }

  // K becomes P, with its sums, and the logarithms of u, v and t move into f, g and h. Multiplying keeps each entry to a rounding; forming
  // K anew would shake it by several, which a plan near a permutation answers by going far.
  void merge() {
    drift_ += product();
    for (int64_t j = 0; j < width_; ++j) old_v_[j] = t_ * v_[j];
    over_rows<T>(n_, width_, split_, partial_, sums_.data(), [&](int64_t b, int64_t e, T* sums) {
      plan_rows(K_, u_.data(), old_v_.data(), form_.cols_on.data(), row_sums_.data(), sums, b, e);
    });
    absorb();
    set_caps();
  }

  // The plan's error, from its own sums.
  double plan_error() {
    double error = 0, total = 0;
    const auto miss = [&](double sum, double weight, double x, bool tight) {
      return std::fabs(sum - (tight ? weight : weight > 0 ? std::fmin(weight, sum * std::exp(-x / q_.eps)) : 0));
    };
    for (int64_t i = 0; i < n_; ++i) error += miss(row_sums_[i], form_.a[i], f_[i], form_.tight_rows), total += double(row_sums_[i]);
    for (int64_t j = 0; j < m_; ++j) error += miss(sums_[j], form_.b[j], g_[j], form_.tight_cols);
    return error + (form_.has_mass() ? std::fabs(total - form_.mass) : 0) + (total - total);
  }

  void report(int64_t k, double error, double tol) {
    const double bad = error - error;
    double shift = 0;
    if (form_.tight_rows && form_.tight_cols) {
      for (int64_t i = 0; i < n_; ++i) shift -= double(form_.a[i]) * f_[i];
      for (int64_t j = 0; j < m_; ++j) shift += double(form_.b[j]) * g_[j];
      shift /= 2 * form_.mass;
    }
    T *f = q_.f + k * n_, *g = q_.g + k * m_;
    for (int64_t i = 0; i < n_; ++i) f[i] = form_.rows_on[i] == T(0) ? T(-kInf) : T(f_[i] + shift + bad);
    for (int64_t j = 0; j < m_; ++j) g[j] = form_.cols_on[j] == T(0) ? T(-kInf) : T(g_[j] - shift + bad);
    for (int64_t i = 0; i < n_; ++i) {
      const T* row = K_[i];
      if (bad != 0) std::fill(plan_ + i * m_, plan_ + (i + 1) * m_, T(bad));
      else if (row != plan_ + i * m_) std::copy(row, row + m_, plan_ + i * m_);
    }
    q_.h[k] = T(h_ + bad);
    q_.error[k] = T(error);
    q_.iterations[k] = int32_t(iterations_);
    q_.converged[k] = error <= tol;
  }

  const SinkhornProblems<T>& q_;
  const Split& split_;
  const int64_t n_, m_, width_;
  const T* cost_ = nullptr;
  T *plan_ = nullptr, t_ = 1;
  Matrix<T> K_{};
  SinkhornForm<T> form_;
  std::vector<double> f_, g_, least_;
  double h_ = 0, drift_ = 0;  // drift_: how far K has come since it was formed, as far() counts
  std::vector<T> u_, cap_u_, v_, old_v_, cap_v_, sums_, row_sums_, scratch_, partial_;
  std::unique_ptr<PlanSystem<T>> system_;
  int64_t iterations_ = 0, newtons_ = 0, patience_ = 0;
  int failures_ = 0, stalls_ = 0;
  double last_error_ = kInf;  // when Newton's method was last called on
  bool exhausted_ = false;
};

}  // namespace

template <typename T>
void sinkhorn_cpu(const SinkhornProblems<T>& problems, int64_t begin, int64_t end, const Split& split) {
  Solver<T> solver(problems, split);
  for (int64_t k = begin; k < end; ++k) solver.solve(k);
}
template void sinkhorn_cpu(const SinkhornProblems<float>&, int64_t, int64_t, const Split&);
template void sinkhorn_cpu(const SinkhornProblems<double>&, int64_t, int64_t, const Split&);

}  // namespace transphere
