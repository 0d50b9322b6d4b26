// A team's solution of one problem.
//
// The state is potentials over eps, F_i + log u_i, G_j + log v_j and H + log t, and K_ij = exp(F_i + G_j + H - C_ij / eps), rounded once, from
// exponents in double. While u / a, v / b and t stay within exp(+-limit), an iteration is the pass of csrc/sinkhorn.h over K: what underflowed
// in K is then below exp(3 limit) times the least number, no part of the plan. When they leave it, the update that did so is undone,
// they go into F, G and H, one iteration is made in the log domain, which nothing can overflow, and K is built anew with u = a, v = b.
#pragma once
#include "cuda/sinkhorn_team.cuh"
#include "sinkhorn.h"

namespace transphere {

template <typename T>
constexpr T kMostScaling = T(sizeof(T) == 4 ? 4.85165195e8 : 7.2259737681257492e86);  // exp(20), exp(200)

// The vectors of one problem in one piece of memory. u and v are double: an update makes the others, which count once it is known to be good.
// cap: where u reaches exp(0); infinite for a tight side.
template <typename T>
struct SinkhornVectors {
  char* base;
  int n, m;

  static __host__ __device__ int64_t bytes(int64_t n, int64_t m) { return (n + m) * int64_t(sizeof(double) + 3 * sizeof(T)) + 8; }
  __device__ double* F() const { return reinterpret_cast<double*>(base); }                 // (n)
  __device__ double* G() const { return F() + n; }                                         // (m)
  __device__ T* u(int turn) const { return reinterpret_cast<T*>(G() + m) + turn * n; }     // (n)
  __device__ T* cap_u() const { return u(2); }                                             // (n)
  __device__ T* v(int turn) const { return u(3) + turn * m; }                              // (m)
  __device__ T* cap_v() const { return v(2); }                                             // (m)
};

template <typename T, bool Many>
class Solver {
 public:
  __device__ Solver(const SinkhornProblems<T>& q, const double& per_eps, int64_t problem, Team<Many>& team, const Field<T, Many>& field, const SinkhornVectors<T>& s,
                    const Parts<T>& parts, T* K, Scratch<T, Many>* scratch)
      : q(q), per_eps(per_eps), n(int(q.n)), m(int(q.m)), problem(problem), team(team), field(field), s(s), parts(parts), K(K), scratch(scratch) {}

  __device__ void run() {
    if (!start()) return fail();
    int iterations = 0;
    if (!q.f0) {
      if (!log_step()) return fail();
      iterations = 1;
    }
    build();
    // The first pass after a build changes nothing: it finds the error of the columns.
    bool keep = true;
    double error = INFINITY, column_error = 0;
    for (;;) {
      const double row_error = rows(keep) + column_error;
      const double all_error = team.sum(row_error) + missing_mass;
      if (!keep) {
        error = all_error;
        if (error <= q.tol * mass || iterations >= q.max_iter) break;
      }
      T next_t = t;
      column_error = columns(keep, next_t);
      if (team.any(bad)) {
        if (iterations >= q.max_iter) break;  // K overflowed, which no log-domain iteration leaves behind
        absorb();
        if (!log_step()) return fail();
        ++iterations;
        build();
        keep = true;
        continue;
      }
      t = next_t;
      if (!keep) {
        turn ^= 1;
        ++iterations;
      }
      keep = false;
    }
    finish(error, iterations);
  }

 private:
  const SinkhornProblems<T>& q;
  const double& per_eps;
  const int n, m;
  const int64_t problem;
  Team<Many>& team;
  const Field<T, Many>& field;
  const SinkhornVectors<T>& s;
  const Parts<T>& parts;
  T* const K;  // (n, m)
  Scratch<T, Many>* const scratch;
  int turn = 0;  // which u and v count
  double mass = 0, b_scale = 1, H = 0, missing_mass = 0;
  T t = 1;
  bool tight_rows = true, tight_cols = true, neither = false, bad = false;

  __device__ const T* cost() const { return q.cost + problem * n * m; }
  __device__ T a(int i) const { return q.a[problem * n + i]; }
  __device__ T b(int j) const { return T(q.b[problem * m + j] * b_scale); }
  __device__ double log_K(int i, int j) const { return H - cost()[i * m + j] * per_eps; }
  // A potential of -inf is that of a masked row or column, whose costs do not count, whatever they are.
  __device__ double with_K(double potential, int i, int j) const { return potential == -INFINITY ? potential : potential + log_K(i, j); }
  __device__ double exponent(int i, int j) const { return with_K(s.F()[i] + s.G()[j], i, j); }
  __device__ int first_row() const { return field.begin + warp_rank(); }  // a warp a row

  template <typename Use>
  __device__ void over_rows(Use use) const {
    for (int i = first_row(); i < field.end; i += block_warps())
      for (int j = lane_rank(); j < m; j += 32) use(i, j);
  }

  // What is to be solved, and where from; false if it cannot be.
  __device__ bool start() {
    double A = 0, B = 0, wrong = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) A += a(i), wrong += a(i) < 0;
    for (int j = threadIdx.x; j < m; j += blockDim.x) B += b(j), wrong += b(j) < 0;
    over_rows([&](int i, int j) { wrong += a(i) > 0 && b(j) > 0 && !(cost()[i * m + j] > -INFINITY); });
    A = team.sum(A) / team.size;
    B = team.sum(B) / team.size;
    mass = A;
    if (q.mass) {
      constexpr double slack = sizeof(T) == 4 ? 1e-6 : 1e-12;
      const double given = q.mass[problem];
      wrong += !(given > 0);
      tight_rows = given >= (1 - slack) * A;
      tight_cols = given >= (1 - slack) * B;
      mass = tight_rows ? A : tight_cols ? B : given;
    }
    neither = !tight_rows && !tight_cols;
    if (tight_rows && tight_cols) b_scale = A / B;
    if (team.any(wrong > 0) || !(A > 0 && A - A == 0 && B > 0 && B - B == 0)) return false;

    const auto given = [&](const T* x, int k, bool tight, T weight) {
      if (!(weight > 0)) return -double(INFINITY);
      const double f = x ? x[k] * per_eps : 0.0, finite = f - f == 0 ? f : 0.0;
      return tight || finite < 0 ? finite : 0.0;
    };
    for (int i = field.begin + threadIdx.x; i < field.end; i += blockDim.x)
      s.F()[i] = given(q.f0 ? q.f0 + problem * n : nullptr, i, tight_rows, a(i));
    for (int j = team.first(); j < m; j += team.stride())
      s.G()[j] = given(q.g0 ? q.g0 + problem * m : nullptr, j, tight_cols, b(j));
    team.sync();
    if (!neither) return true;
    double least = INFINITY, total = 0;
    over_rows([&](int i, int j) {
      const double x = -exponent(i, j);
      least = x < least ? x : least;
    });
    H = team.min(least);
    over_rows([&](int i, int j) { total += exp(T(exponent(i, j))); });
    H += log(mass / team.sum(total));
    return true;
  }

  // Where u reaches exp(F) = 1; exactly the weight if it is there.
  static __device__ T cap(double F, T weight, bool tight) { return tight ? T(INFINITY) : F == 0 ? weight : T(weight * exp(-F)); }

  // K for u = a, v = b: their logarithms leave F and G.
  __device__ void build() {
    for (int i = first_row(); i < field.end; i += block_warps()) {
      const T weight = a(i);
      const double F = s.F()[i];
      __syncwarp();
      if (lane_rank() == 0) {
        s.F()[i] = weight > 0 ? F - log(double(weight)) : -INFINITY;
        s.u(turn)[i] = weight;
        s.cap_u()[i] = cap(F, weight, tight_rows);
      }
    }
    for (int j = team.first(); j < m; j += team.stride()) {
      const T weight = b(j);
      s.cap_v()[j] = cap(s.G()[j], weight, tight_cols);
      s.G()[j] = weight > 0 ? s.G()[j] - log(double(weight)) : -INFINITY;
      s.v(turn)[j] = weight;
    }
    t = 1;
    team.sync();
    for (int i = first_row(); i < field.end; i += block_warps())
      for (int j = lane_rank(); j < m; j += 32) K[i * m + j] = exp(T(exponent(i, j)));
    team.sync();
  }

  static __device__ double absorbed(double F, T u, T cap) {  // exactly 0 where the constraint is slack
    return u >= cap ? 0.0 : u > 0 ? F + log(double(u)) : -double(INFINITY);
  }

  __device__ void absorb() {
    for (int i = field.begin + threadIdx.x; i < field.end; i += blockDim.x) s.F()[i] = absorbed(s.F()[i], s.u(turn)[i], s.cap_u()[i]);
    for (int j = team.first(); j < m; j += team.stride()) s.G()[j] = absorbed(s.G()[j], s.v(turn)[j], s.cap_v()[j]);
    H += log(double(t));
    team.sync();
  }

  // |sum of a row or column as it is - as it should be|
  static __device__ T miss(T sum, T uncapped, T weight) { return fabs(sum - (uncapped < weight ? uncapped : weight)); }

  // next_u from v, unless all is kept, and the partial sums of next_u K; returns this thread's part of the rows' error.
  __device__ double rows(bool keep) {
    constexpr T most = kMostScaling<T>, least = 1 / most;
    double error = 0;
    bad = false;
    pass(field, K, s.v(turn), s.u(turn ^ 1), parts.own, scratch, [&](int i, T r, bool once) {
      const T weight = a(i), u = s.u(turn)[i], cap = s.cap_u()[i];
      if (once) error += miss(t * r * u, t * r * cap, weight);
      if (keep || !(weight > 0)) return u;
      T next = weight / (t * r);
      if (!(next < cap)) next = cap;
      bad = bad || !(next >= least * weight && next <= most * weight);
      return next;
    });
    parts.publish(team, field, Sum());
    return error;
  }

  // next_v and next_t; returns this thread's part of the columns' error.
  __device__ double columns(bool keep, T& next_t) {
    constexpr T most = kMostScaling<T>, least = 1 / most;
    double error = 0, total = 0;
    for (int j = team.first(); j < m; j += team.stride()) {
      const T weight = b(j), c = parts.collect(j, m, Sum()), cap = s.cap_v()[j];
      T next = s.v(turn)[j];
      if (!keep && weight > 0) {
        next = weight / (t * c);
        if (!(next < cap)) next = cap;
        bad = bad || !(next >= least * weight && next <= most * weight);
      }
      bad = bad || !(c - c == 0);
      s.v(turn ^ 1)[j] = next;
      total += double(next) * double(c);
      error += miss(t * c * next, t * c * cap, weight);
    }
    missing_mass = 0;
    if (!neither) return error;
    total = team.sum(total);
    next_t = T(mass / total);
    bad = bad || !(next_t >= least && next_t <= most);
    missing_mass = fabs(double(next_t) * total - mass);
    error = 0;
    for (int j = team.first(); j < m; j += team.stride()) {
      const T c = parts.all[j];
      error += miss(next_t * c * s.v(turn ^ 1)[j], next_t * c * s.cap_v()[j], b(j));
    }
    return error;
  }

  // F, G and H of one iteration in the log domain; false if there is none, as where all of a tight row is forbidden.
  __device__ bool log_step() {
    for (int i = first_row(); i < field.end; i += block_warps()) {
      const T weight = a(i);
      if (!(weight > 0)) continue;  // the whole warp
      double most = -INFINITY;
      for (int j = lane_rank(); j < m; j += 32) {
        const double x = with_K(s.G()[j], i, j);
        most = x > most ? x : most;
      }
      most = warp_max(most);
      if (most == -INFINITY) most = 0;
      T sum = 0;
      for (int j = lane_rank(); j < m; j += 32) sum += exp(T(with_K(s.G()[j], i, j) - most));
      sum = warp_sum(sum);
      const double F = log(double(weight)) - most - log(double(sum));
      if (lane_rank() == 0) s.F()[i] = tight_rows || F < 0 ? F : 0.0;
    }
    __syncthreads();
    // Down the columns, a thread a column and a warp a row; first the largest, to next_v, then the sum.
    const auto down = [&](T from, auto add) {
      for (int j = field.across * 32 + lane_rank(); j < m; j += field.side * 32) {
        T x = from;
        for (int i = field.begin + field.group; i < field.end; i += field.groups) x = add(x, i, j);
        parts.own[field.group * m + j] = x;
      }
    };
    const auto x = [&](int i, int j) { return with_K(s.F()[i], i, j); };
    down(-T(INFINITY), [&](T most, int i, int j) { return Max()(most, T(x(i, j))); });
    parts.publish(team, field, Max());
    team.sync();
    for (int j = team.first(); j < m; j += team.stride()) {
      const T most = parts.collect(j, m, Max());
      s.v(turn ^ 1)[j] = most == -T(INFINITY) ? T(0) : most;
    }
    team.sync();
    down(T(0), [&](T sum, int i, int j) { return sum + exp(T(x(i, j) - double(s.v(turn ^ 1)[j]))); });
    parts.publish(team, field, Sum());
    team.sync();
    double total = 0;
    for (int j = team.first(); j < m; j += team.stride()) {
      const T weight = b(j);
      if (!(weight > 0)) continue;
      const double sums = double(s.v(turn ^ 1)[j]) + log(double(parts.collect(j, m, Sum()))), G = log(double(weight)) - sums;
      s.G()[j] = tight_cols || G < 0 ? G : 0.0;
      total += exp(s.G()[j] + sums);
    }
    total = team.sum(total);
    if (neither) H += log(mass / total);
    return total - total == 0;
  }

  __device__ void finish(double error, int iterations) {
    T* const plan = q.plan + problem * n * m;
    double shift = 0;
    if (tight_rows && tight_cols) {  // <f, a> = <g, b>
      for (int i = field.begin + threadIdx.x; i < field.end; i += blockDim.x)
        if (a(i) > 0) shift -= a(i) * absorbed(s.F()[i], s.u(turn)[i], s.cap_u()[i]);
      for (int j = team.first(); j < m; j += team.stride())
        if (b(j) > 0) shift += b(j) * absorbed(s.G()[j], s.v(turn)[j], s.cap_v()[j]);
      shift = team.sum(shift) / (2 * mass);
    }
    for (int i = first_row(); i < field.end; i += block_warps()) {
      const T u = s.u(turn)[i] * t;
      for (int j = lane_rank(); j < m; j += 32) plan[i * m + j] = u * K[i * m + j] * s.v(turn)[j];
      if (lane_rank() == 0) q.f[problem * n + i] = T((absorbed(s.F()[i], s.u(turn)[i], s.cap_u()[i]) + shift) * q.eps);
    }
    for (int j = team.first(); j < m; j += team.stride())
      q.g[problem * m + j] = T((absorbed(s.G()[j], s.v(turn)[j], s.cap_v()[j]) - shift) * q.eps);
    if (team.first() == 0) {
      q.h[problem] = T(neither ? (H + log(double(t))) * q.eps : 0.0);
      q.error[problem] = T(error);
      q.iterations[problem] = iterations;
      q.converged[problem] = error <= q.tol * mass;
    }
    team.sync();  // all vectors have been read
  }

  __device__ void fail() {
    for (int k = field.begin * m + threadIdx.x; k < field.end * m; k += blockDim.x) q.plan[problem * n * m + k] = T(NAN);
    for (int i = field.begin + threadIdx.x; i < field.end; i += blockDim.x) q.f[problem * n + i] = T(NAN);
    for (int j = team.first(); j < m; j += team.stride()) q.g[problem * m + j] = T(NAN);
    if (team.first() == 0) {
      q.h[problem] = q.error[problem] = T(NAN);
      q.iterations[problem] = 0;
      q.converged[problem] = false;
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

  template <bool Many>
  __device__ void run(int64_t problem, Team<Many>& team, const Field<T, Many>& field, const Vectors& s, const Parts<T>& parts, T* K,
                      Scratch<T, Many>* scratch) const {
    Solver<T, Many>(q, per_eps, problem, team, field, s, parts, Many ? q.plan + problem * q.n * q.m : K, scratch).run();
  }
};

}  // namespace transphere
