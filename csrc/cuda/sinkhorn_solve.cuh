// A team's solution of one problem.
//
// While u / a, v / b and t stay within exp(+-limit), an iteration is the pass of csrc/sinkhorn.h over K: what underflowed in K is then
// below exp(3 limit) times the least number, no part of the plan. When they leave it, the update that did so is undone, they go into F, G
// and H, one iteration is made in the log domain, and K is built anew with u = a, v = b. Where a side is tight, updates are
// accelerated (sinkhorn_mixing.cuh); where neither is, which constraints hold changes too often for that to help.
#pragma once
#include "cuda/sinkhorn_mixing.cuh"
#include "cuda/sinkhorn_potentials.cuh"

namespace transphere {

template <typename T>
constexpr T kMostScaling = T(sizeof(T) == 4 ? 4.85165195e8 : 7.2259737681257492e86);  // exp(20), exp(200)

template <typename T, Span S>
class Solver {
 public:
  __device__ Solver(Potentials<T, S>& p, Scratch<T, S>* scratch, T* history)
      : p(p), q(p.q), n(p.n), m(p.m), team(p.team), field(p.field), s(p.s), pass(p.field, scratch),
        mixing(p.team, p.field, history) {}

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
    for (;;) {
      const double row_error = rows(keep) + column_error;
      const double all_error = team.sum(row_error) + missing_mass;
      if (!keep) {
        error = all_error;
        if (error <= q.tol * p.mass || iterations >= q.max_iter) break;
      }
      T next_t = p.t;
      column_error = columns(keep, iterations + 2 >= q.max_iter, next_t);
      if (team.any(bad)) {
        if (iterations >= q.max_iter) break;  // K overflowed, which no log-domain iteration leaves behind
        p.absorb();
        if (!p.log_step()) return fail();
        ++iterations;
        p.build();
        pass.take(p.K);
        mixing.restart();
        keep = true;
        continue;
      }
      p.t = next_t;
      if (!keep) {
        p.turn ^= 1;
        ++iterations;
      }
      keep = false;
    }
    finish(error, iterations);
  }

 private:
  Potentials<T, S>& p;
  const SinkhornProblems<T>& q;
  const int n, m;
  Team<S>& team;
  const Field<T, S>& field;
  const SinkhornVectors<T>& s;
  Pass<T, T, S> pass;
  Mixing<T, S> mixing;
  double missing_mass = 0;
  bool bad = false;

  // |sum of a row or column as it is - as it should be|
  static __device__ T miss(T sum, T uncapped, T weight) { return fabs(sum - (uncapped < weight ? uncapped : weight)); }

  // The next u from v, unless all is kept, and the partial sums of u K; returns this thread's part of the rows' error.
  __device__ double rows(bool keep) {
    constexpr T most = kMostScaling<T>, least = 1 / most;
    double error = 0;
    bad = false;
    pass.run(s.v(p.turn), s.u(p.turn ^ 1), p.parts.own, [&](int i, T r, bool once) {
      const T weight = p.a(i), u = s.u(p.turn)[i], cap = s.cap_u()[i];
      if (once) error += miss(p.t * r * u, p.t * r * cap, weight);
      if (keep || !(weight > 0)) return u;
      T next = weight / (p.t * r);
      if (!(next < cap)) next = cap;
      bad = bad || !(next >= least * weight && next <= most * weight);
      return next;
    });
    p.parts.publish(team, field, Sum());
    return error;
  }

  // The next v and t; returns this thread's part of the columns' error.
  __device__ double columns(bool keep, bool last, T& next_t) {
    constexpr T most = kMostScaling<T>, least = 1 / most;
    double error = 0, total = 0;
    const auto settle = [&](int j, T weight, T c, T cap, T next) {
      if (weight > 0) bad = bad || !(next >= least * weight && next <= most * weight);
      team.put(&s.v(p.turn ^ 1)[j], next);
      total += double(next) * double(c);
      error += miss(p.t * c * next, p.t * c * cap, weight);
    };
    const bool mix = !keep && mixing.begin(last || p.neither);
    for (int j = p.first_column(); j < field.right; j += blockDim.x) {
      const T weight = p.b(j), c = p.parts.collect(j, m, Sum()), cap = s.cap_v()[j], now = s.v(p.turn)[j];
      T next = now;
      if (!keep && weight > 0) {
        next = weight / (p.t * c);
        if (!(next < cap)) next = cap;
        mixing.note(j - field.left, log(next / now));
      } else if (!keep) {
        mixing.note(j - field.left, T(0));
      }
      bad = bad || !(c - c == 0);
      if (!mix) settle(j, weight, c, cap, next);
      else s.v(p.turn ^ 1)[j] = next;
    }
    if (mix) {
      const bool mixed = mixing.solve();
      for (int j = p.first_column(); j < field.right; j += blockDim.x) {
        const T weight = p.b(j), cap = s.cap_v()[j];
        T next = s.v(p.turn ^ 1)[j];
        if (mixed && weight > 0) {
          next *= exp(mixing.step(j - field.left));
          if (!(next < cap)) next = cap;
        }
        settle(j, weight, p.parts.all[j], cap, next);
      }
    }
    missing_mass = 0;
    if (!p.neither) return error;
    total = team.sum(total);
    next_t = T(p.mass / total);
    bad = bad || !(next_t >= least && next_t <= most);
    missing_mass = fabs(double(next_t) * total - p.mass);
    error = 0;
    for (int j = p.first_column(); j < field.right; j += blockDim.x) {
      const T c = p.parts.all[j];
      error += miss(next_t * c * s.v(p.turn ^ 1)[j], next_t * c * s.cap_v()[j], p.b(j));
    }
    return error;
  }

  __device__ void finish(double error, int iterations) {
    T* const plan = q.plan + p.problem * n * m;
    double shift = 0;
    if (p.tight_rows && p.tight_cols) {  // <f, a> = <g, b>
      for (int i = field.begin + threadIdx.x; i < field.end; i += blockDim.x)
        if (p.a(i) > 0) shift -= p.a(i) * p.row_potential(i);
      for (int j = p.first_column(); j < field.right; j += blockDim.x)
        if (p.b(j) > 0) shift += p.b(j) * p.column_potential(j);
      shift = team.sum(shift) / (2 * p.mass);
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
      q.converged[p.problem] = error <= q.tol * p.mass;
    }
    team.sync();  // all vectors have been read
  }

  __device__ void fail() {
    for (int k = field.begin * m + threadIdx.x; k < field.end * m; k += blockDim.x) q.plan[p.problem * n * m + k] = T(NAN);
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
  __device__ void run(int64_t problem, Team<S>& team, const Field<T, S>& field, const Vectors& s, const Parts<T, S>& parts, T* K,
                      T* history, Scratch<T, S>* scratch) const {
    if constexpr (S == Span::grid) K = q.plan + (problem * q.n + field.begin) * q.m;
    Potentials<T, S> potentials(q, per_eps, problem, team, field, s, parts, K);
    Solver<T, S>(potentials, scratch, history).run();
  }
};

}  // namespace transphere
