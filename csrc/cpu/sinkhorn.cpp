#include "sinkhorn.h"

#include <cmath>

#include "sinkhorn_anderson.h"
#include "sinkhorn_newton.h"
#include "sinkhorn_state.h"

namespace transphere {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

template <typename T>
struct Solver {
  SinkhornState<T> state;
  SinkhornAnderson<T> anderson;
  SinkhornNewton<T> newton;
};

// How many iterations more, at the rate of the last ones: that of the lowest errors, since accelerated ones go up and down.
class Pace {
 public:
  void start() { since_ = 0; }
  double left(double error, double aim) {
    double& before = lowest_[since_ % kOver];
    const double lowest = since_ && error > lowest_[(since_ - 1) % kOver] ? lowest_[(since_ - 1) % kOver] : error;
    const double rate = since_ < kOver ? 0 : std::pow(lowest / before, 1.0 / kOver);
    before = lowest;
    ++since_;
    return rate < 1 ? std::log(aim / lowest) / std::log(rate) : kInf;
  }
  int64_t since() const { return since_; }

 private:
  static constexpr int kOver = 4;
  int64_t since_ = 0;
  double lowest_[kOver];
};

// Until the error is at most `aim`, not a number, or there are no iterations left: false if it can get no smaller.
template <typename T>
bool iterate(Solver<T>& by, double aim) {
  SinkhornState<T>& state = by.state;
  Pace pace;
  by.anderson.forget();
  while (state.iterations < state.q.max_iter) {
    state.scale_all_rows();
    const double error = state.scale_columns();
    if (!(error > aim) || state.iterations == state.q.max_iter) break;
    const double left = pace.left(error, aim);
    if (pace.since() > by.newton.patience() && state.iterations + 2 < state.q.max_iter && left > by.newton.cost(state)) {
      if (by.newton.stalled(error, state.form.mass)) return false;
      by.newton.step(state, error / state.form.mass);
      by.anderson.forget();
      pace.start();
    } else if (state.out_of_range()) {
      state.form_again();
      by.anderson.forget();
    } else if (state.iterations + 1 < state.q.max_iter) {  // the last iteration starts where one ended, at an error that is known
      by.anderson.extrapolate(state, error);
    }
  }
  return true;
}

template <typename T>
void solve(Solver<T>& by, int64_t problem) {
  SinkhornState<T>& state = by.state;
  state.start(problem);
  by.newton.forget();
  const double tol = state.q.tol * state.form.mass;
  double aim = 0.5 * tol, error = 0;
  for (bool more = true;;) {
    more = iterate(by, aim);
    state.merge();
    error = state.plan_error();
    if (!(error > tol) || !more || state.iterations >= state.q.max_iter) break;
    aim *= 0.5;  // rounding between the error on the way and the plan's own
  }
  state.report(error, tol);
}

}  // namespace

template <typename T>
void sinkhorn_cpu(const SinkhornProblems<T>& problems, int64_t begin, int64_t end, const Split& split) {
  Solver<T> solver{{problems, split}, SinkhornAnderson<T>(problems.m), {}};
  for (int64_t k = begin; k < end; ++k) solve(solver, k);
}
template void sinkhorn_cpu(const SinkhornProblems<float>&, int64_t, int64_t, const Split&);
template void sinkhorn_cpu(const SinkhornProblems<double>&, int64_t, int64_t, const Split&);

}  // namespace transphere
