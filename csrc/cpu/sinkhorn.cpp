#include "sinkhorn.h"

#include <cmath>

#include "sinkhorn_newton.h"
#include "sinkhorn_state.h"

namespace transphere {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// Until the error is at most `aim`, not a number, or there are no iterations left: false if it can get no smaller.
template <typename T>
bool iterate(SinkhornState<T>& state, SinkhornNewton<T>& newton, double aim) {
  double past[4] = {kInf, kInf, kInf, kInf};
  for (int64_t since = 0; state.iterations < state.q.max_iter; ++since) {
    state.scale_all_rows();
    const double error = state.scale_columns();
    if (!(error > aim)) break;
    if (since >= newton.patience() && state.iterations + 2 < state.q.max_iter) {
      // At the rate of the last iterations, how many more?
      const double rate = std::pow(error / past[since % 4], 0.25), left = rate < 1 ? std::log(aim / error) / std::log(rate) : kInf;
      if (left > newton.cost(state)) {
        if (newton.stalled(error, state.form.mass)) return false;
        newton.step(state, error / state.form.mass);
        since = -1;
        continue;
      }
    }
    past[since % 4] = error;
    if (state.out_of_range()) state.form_again();
  }
  return true;
}

template <typename T>
void solve(SinkhornState<T>& state, SinkhornNewton<T>& newton) {
  const double tol = state.q.tol * state.form.mass;
  double aim = 0.5 * tol, error = 0;
  for (bool more = true;;) {
    more = iterate(state, newton, aim);
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
  SinkhornState<T> state(problems, split);
  SinkhornNewton<T> newton;
  for (int64_t k = begin; k < end; ++k) {
    state.start(k);
    newton.forget();
    solve(state, newton);
  }
}
template void sinkhorn_cpu(const SinkhornProblems<float>&, int64_t, int64_t, const Split&);
template void sinkhorn_cpu(const SinkhornProblems<double>&, int64_t, int64_t, const Split&);

}  // namespace transphere
