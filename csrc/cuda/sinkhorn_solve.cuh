// A team's solution of one problem.
//
// While u / a, v / b and t stay within exp(+-limit), an iteration is the pass of csrc/sinkhorn.h over K: what underflowed in K is then
// below exp(3 limit) times the least number, no part of the plan. When they leave it, the update that did so is undone, they go into F, G
// and H, one iteration is made in the log domain, and K is built anew with u = a, v = b. Updates are accelerated (sinkhorn_mixing.cuh), and
// where they are slow all the same, near the solution, Newton's method takes their place (sinkhorn_newton.cuh).
#pragma once
#include "cuda/sinkhorn_mixing.cuh"
#include "cuda/sinkhorn_newton.cuh"
#include "cuda/sinkhorn_pace.cuh"
#include "cuda/sinkhorn_potentials.cuh"

namespace transphere {

template <typename T, Span S>
class Solver {
 public:
  __device__ Solver(Potentials<T, S>& p, Pass<T, T, S>& pass, T* history)
      : p(p), q(p.q), n(p.n), m(p.m), team(p.team), field(p.field), s(p.s), pass(pass),
        mixing(p.team, p.field, history), newton(p, pass, history) {}

  __device__ void run() {
    if (!p.start()) return fail();
    int iterations = 0;
    if (!q.f0) {
      if (!p.log_step()) return fail();
      iterations = 1;
    }
    p.build();
    pass.take(p.K);
    // The first pass after a build changes nothing: it finds the error of the columns.
    bool keep = true;
    double error = INFINITY, column_error = 0;
    const double enough = q.tol * p.mass();
    for (;;) {
      const double row_error = rows(keep) + column_error;
      const double all_error = team.sum(row_error);
      if (!keep) {
        error = all_error;
        if (error <= enough || iterations >= q.max_iter) break;
      }
      collect();
      bool newtons = false;
      if (newton.pending()) {
        ++iterations;
        const bool stays = newton.stays(column_error);
        if (!stays) continue;
        --iterations;
        newtons = newton.again(enough);
        if (!newtons) wait_for_newton();
      } else if (!keep && newton.can() && error <= kNear * p.mass()) {
        newtons = pace.slow(float(error), float(enough));
      }
      T next_t = p.t;
      int passes = 1;
      if (newtons) passes = newton_step(q.max_iter - iterations - 3, next_t, column_error);
      if (!newton.pending()) column_error = columns(keep, iterations + 2 >= q.max_iter, next_t);
      if (team.any(bad)) {
        if (iterations >= q.max_iter) break;  // K overflowed, which no log-domain iteration leaves behind
        newton.drop();
        p.absorb();
        if (!p.log_step()) return fail();
        ++iterations;
        p.build();
        pass.take(p.K);
        mixing.restart();
        pace.restart(12);
        keep = true;
        continue;
      }
      p.t = next_t;
      if (!keep) {
        p.turn ^= 1;
        iterations += passes;
      }
      keep = false;
    }
    finish(error, iterations);
  }

 private:
  static constexpr double kNear = 3e-3;  // farther from the solution Newton's steps are short ones
  Potentials<T, S>& p;
  const SinkhornProblems<T>& q;
  const int n, m;
  Team<S>& team;
  const Field<T, S>& field;
  const SinkhornVectors<T>& s;
  Pass<T, T, S>& pass;
  Mixing<T, S> mixing;
  Newton<T, S> newton;
  Pace pace;
  T largest_u = 0;  // of u / cap, of this thread's rows
  bool bad = false;

  // The next u from v, unless all is kept, and the partial sums of u K; returns this thread's part of the rows' error.
  __device__ __forceinline__ double rows(bool keep) {
    constexpr T most = kMostScaling<T>, least = 1 / most;
    double error = 0;
    bad = false;
    largest_u = 0;
    pass.run(s.v(p.turn), s.u(p.turn ^ 1), p.parts.own, [&](int i, T r, bool once) {
      const T weight = p.a(i), u = s.u(p.turn)[i], cap = s.cap_u()[i];
      if (once) error += miss(p.t * r * u, p.t * r * cap, weight);
      if (keep || !(weight > 0)) return u;
      T next = weight / (p.t * r);
      if (!(next < cap)) next = cap;
      bad = bad || !(next >= least * weight && next <= most * weight);
      if (p.neither) largest_u = Max()(largest_u, next / cap);
      return next;
    });
    p.parts.publish(team, field, Sum());
    return error;
  }

  // K'u, once known to all.
  __device__ void collect() {
#pragma unroll 1
    for (int j = p.first_column(); j < field.right; j += blockDim.x) {
      const T c = p.parts.collect(j, m, Sum());
      bad = bad || !(c - c == 0);
    }
  }

  // The next v and t; returns this thread's part of the columns' error.
  __device__ __forceinline__ double columns(bool keep, bool last, T& next_t) {
    const bool mix = !keep && mixing.begin(last);
    double error = 0, total = 0;
    T largest_v = 0;
    const auto settle = [&](int j, T next) {
      constexpr T most = kMostScaling<T>, least = 1 / most;
      const T weight = p.b(j), c = p.parts.all[j];
      if (weight > 0) bad = bad || !(next >= least * weight && next <= most * weight);
      team.put(&s.v(p.turn ^ 1)[j], next);
      total += double(next) * double(c);
      error += miss(next_t * c * next, next_t * c * s.cap_v()[j], weight);
    };
#pragma unroll 1
    for (int j = p.first_column(); j < field.right; j += blockDim.x) {
      const T weight = p.b(j), c = p.parts.all[j], cap = s.cap_v()[j], now = s.v(p.turn)[j];
      T next = now;
      if (!keep && weight > 0) {
        next = weight / (p.t * c);
        if (!(next < cap)) next = cap;
        if (p.neither) largest_v = Max()(largest_v, next / cap);
      }
      if (p.neither) total += double(next) * double(c);
      else if (!keep) mixing.note(j - field.left, weight > 0 ? log(next / now) : T(0));
      if (mix || p.neither) s.v(p.turn ^ 1)[j] = next;
      else settle(j, next);
    }
    if (p.neither) next_t = level(keep, total, largest_v);
    if (!mix && !p.neither) return error;

    const bool mixed = mix && mixing.solve(p.neither);
    if (mixed && p.neither) next_t *= exp(mixing.step_t());
    total = 0;
#pragma unroll 1
    for (int j = p.first_column(); j < field.right; j += blockDim.x) {
      const T cap = s.cap_v()[j];
      T next = s.v(p.turn ^ 1)[j];
      if (mixed && p.b(j) > 0) {
        next *= exp(mixing.step(j - field.left));
        if (!(next < cap)) next = cap;
      }
      settle(j, next);
    }
    if (p.neither) {
      total = team.sum(total);
      if (team.leads()) error += fabs(double(next_t) * total - p.mass());
      bad = bad || !(next_t >= 1 / kMostScaling<T> && next_t <= kMostScaling<T>);
    }
    return error;
  }

  // Where neither side is tight: the next t, from all of u'K v for the new u and v. Where all f < 0, or all g, they go up by as much as
  // they can and t goes down: the plan stays, the dual rises, and iterations would take this way in small steps.
  __device__ __forceinline__ T level(bool keep, double total, T largest_v) {
    T t = T(p.mass() / team.sum(total));
    if (keep) return t;
    const T top_u = rise(largest_u), top_v = rise(largest_v);
    t *= top_u * top_v;
#pragma unroll 1
    for (int i = field.begin + threadIdx.x; top_u < 1 && i < field.end; i += blockDim.x)
      if (p.a(i) > 0) s.u(p.turn ^ 1)[i] = raised(s.u(p.turn ^ 1)[i], s.cap_u()[i], top_u, p.a(i));
#pragma unroll 1
    for (int j = p.first_column(); j < field.right; j += blockDim.x) {
      T& next = s.v(p.turn ^ 1)[j];
      p.parts.all[j] /= top_u;
      if (p.b(j) > 0) next = raised(next, s.cap_v()[j], top_v, p.b(j));
      mixing.note(j - field.left, p.b(j) > 0 ? log(next / s.v(p.turn)[j]) : T(0));
    }
    mixing.note_t(log(t / p.t));
    return t;
  }
  // The largest u / cap of the team if it is below 1, else 1.
  __device__ T rise(T largest) {
    const T top = T(team.reduce(double(largest), Max()));
    return top > 1 / kMostScaling<T> && top < 1 ? top : T(1);
  }
  // x / top, at most cap; what comes within a few roundings of cap is cap.
  __device__ T raised(T x, T cap, T top, T weight) {
    constexpr T close = 1 - (sizeof(T) == 4 ? T(5e-7) : T(1e-15));
    x /= top;
    bad = bad || !(x <= kMostScaling<T> * weight);
    return x < close * cap ? x : cap;
  }

  // A Newton step in place of the columns' update, to v(turn ^ 1) and next_t, after which it is pending; else these are still to be made.
  // Returns the passes that it took, with that of the rows.
  __device__ __forceinline__ int newton_step(int most, T& next_t, double& column_error) {
    if (most < Newton<T, S>::kLeast || team.any(bad)) return 1;
    const int passes = newton.step(most, next_t);
    mixing.forget();
    if (newton.pending()) column_error = newton.step_error(next_t, bad);
    else wait_for_newton();
    return 1 + passes;
  }
  __device__ void wait_for_newton() {
    mixing.forget();
    pace.restart(newton.wait());
  }

  __device__ void finish(double error, int iterations) {
    T* const plan = q.plan + p.problem * n * m;
    double shift = 0;
    if (p.tight_rows && p.tight_cols) {  // <f, a> = <g, b>
      for (int i = field.begin + threadIdx.x; i < field.end; i += blockDim.x)
        if (p.a(i) > 0) shift -= p.a(i) * p.row_potential(i);
      for (int j = p.first_column(); j < field.right; j += blockDim.x)
        if (p.b(j) > 0) shift += p.b(j) * p.column_potential(j);
      shift = team.sum(shift) / (2 * p.mass());
    }
    for (int i = p.first_row(); i < field.end; i += block_warps()) {
      const T u = s.u(p.turn)[i] * p.t;
      for (int j = lane_rank(); j < m; j += 32) plan[i * m + j] = u * p.K[(i - field.begin) * m + j] * s.v(p.turn)[j];
      if (lane_rank() == 0) q.f[p.problem * n + i] = T((p.row_potential(i) + shift) * q.eps);
    }
    for (int j = p.first_column(); j < field.right; j += blockDim.x) q.g[p.problem * m + j] = T((p.column_potential(j) - shift) * q.eps);
    if (team.leads()) {
      q.h[p.problem] = T(p.neither ? (p.H + log(double(p.t))) * q.eps : 0.0);
      q.error[p.problem] = T(error);
      q.iterations[p.problem] = iterations;
      q.converged[p.problem] = error <= q.tol * p.mass();
    }
    team.sync();  // all vectors have been read
  }

  __device__ void fail() {
    for (int64_t k = int64_t(field.begin) * m + threadIdx.x; k < int64_t(field.end) * m; k += blockDim.x) q.plan[p.problem * n * m + k] = T(NAN);
    for (int i = field.begin + threadIdx.x; i < field.end; i += blockDim.x) q.f[p.problem * n + i] = T(NAN);
    for (int j = p.first_column(); j < field.right; j += blockDim.x) q.g[p.problem * m + j] = T(NAN);
    if (team.leads()) {
      q.h[p.problem] = q.error[p.problem] = T(NAN);
      q.iterations[p.problem] = 0;
      q.converged[p.problem] = false;
    }
  }
};

// What the kernels of sinkhorn.cu run.
template <typename T>
struct Solve {
  using Arithmetic = T;
  using Matrix = T;
  using Vectors = SinkhornVectors<T>;
  static constexpr bool kMatrixOnChip = true;
  SinkhornProblems<T> q;
  double per_eps = 1 / q.eps;  // with q it lies in constant memory

  static __host__ __device__ int64_t history_bytes(int64_t columns) { return Mixing<T, Span::block>::bytes(columns); }

  // K: room for the block's rows; a grid's lie in the plan's place. history: history_bytes for its columns, or null.
  template <Span S>
  __device__ __forceinline__ void run(int64_t problem, Team<S>& team, const Field<T, S>& field, const Vectors& s, const Parts<T, S>& parts, T* K,
                      T* history, Scratch<T, S>* scratch) const {
    if constexpr (S == Span::grid) K = q.plan + (problem * q.n + field.begin) * q.m;
    Potentials<T, S> potentials(q, per_eps, problem, team, field, s, parts, K, scratch);
    Pass<T, T, S> pass(field, scratch);
    Solver<T, S>(potentials, pass, history).run();
  }
};

}  // namespace transphere
