// The state of one problem in a team: its form (csrc/sinkhorn.h, "Forms"), potentials in double, and what is done in the log domain, which
// nothing can overflow.
//
// The state is potentials over eps, F_i + log u_i, G_j + log v_j and H + log t, and K_ij = exp(F_i + G_j + H - C_ij / eps), rounded once,
// from exponents in double.
#pragma once
#include "cuda/sinkhorn_field.cuh"
#include "sinkhorn.h"

namespace transphere {

template <typename T>
constexpr T kMostScaling = T(sizeof(T) == 4 ? 4.85165195e8 : 7.2259737681257492e86);  // exp(20), exp(200)

// |sum of a row or column as it is - as it should be|
template <typename T>
__device__ T miss(T sum, T uncapped, T weight) { return fabs(sum - (uncapped < weight ? uncapped : weight)); }

// The vectors of one problem in one piece of memory; of a cluster each block has all, its own rows and all columns of them in use. u and v
// are double: an update makes the others, which count once it is known to be good. cap: where u reaches exp(0); infinite for a tight side.
// w: weights of rows, of whatever is done at the time.
template <typename T>
struct SinkhornVectors {
  char* base;
  int n, m;

  static __host__ __device__ int64_t bytes(int64_t n, int64_t m) { return (n + m) * int64_t(sizeof(double) + 3 * sizeof(T)) + n * int64_t(sizeof(T)) + 8; }
  __device__ double* F() const { return reinterpret_cast<double*>(base); }                 // (n)
  __device__ double* G() const { return F() + n; }                                         // (m)
  __device__ T* u(int turn) const { return reinterpret_cast<T*>(G() + m) + turn * n; }     // (n)
  __device__ T* cap_u() const { return u(2); }                                             // (n)
  __device__ T* w() const { return u(3); }                                                 // (n)
  __device__ T* v(int turn) const { return u(4) + turn * m; }                              // (m)
  __device__ T* cap_v() const { return v(2); }                                             // (m)
};

template <typename T, Span S>
class Potentials {
 public:
  const SinkhornProblems<T>& q;
  const double& per_eps;
  const int n, m;
  const int64_t problem;
  Team<S>& team;
  const Field<T, S>& field;
  const SinkhornVectors<T>& s;
  const Parts<T, S>& parts;
  T* const K;    // the block's rows of (n, m)
  int turn = 0;  // which u and v count
  double H = 0;
  T t = 1;
  bool tight_rows = true, tight_cols = true, neither = false;

  __device__ Potentials(const SinkhornProblems<T>& q, const double& per_eps, int64_t problem, Team<S>& team, const Field<T, S>& field,
                        const SinkhornVectors<T>& s, const Parts<T, S>& parts, T* K,
                        Scratch<T, S>* scratch)
      : q(q), per_eps(per_eps), n(int(q.n)), m(int(q.m)), problem(problem), team(team), field(field), s(s), parts(parts), K(K), scratch_(scratch) {}

  __device__ T a(int i) const { return q.a[problem * n + i]; }
  __device__ T b(int j) const { return T(q.b[problem * m + j] * scratch_->b_scale); }
  __device__ double mass() const { return scratch_->mass; }
  __device__ int first_row() const { return field.begin + warp_rank(); }                    // a warp a row
  __device__ int first_column() const { return field.left + int(threadIdx.x); }  // a thread a column

  // What is to be solved, and where from; false if it cannot be.
  __device__ bool start() {
    const T* const given_b = q.b + problem * m;
    double A = 0, B = 0, wrong = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) A += a(i), wrong += a(i) < 0;
    for (int j = threadIdx.x; j < m; j += blockDim.x) B += given_b[j], wrong += given_b[j] < 0;
    over_rows([&](int i, int j) { wrong += a(i) > 0 && given_b[j] > 0 && !(cost(i, j) > -INFINITY); });
    A = team.sum(A) / team.size;
    B = team.sum(B) / team.size;
    double mass = A;
    if (q.mass) {
      constexpr double slack = sizeof(T) == 4 ? 1e-6 : 1e-12;
      const double given = q.mass[problem];
      wrong += !(given > 0);
      tight_rows = given >= (1 - slack) * A;
      tight_cols = given >= (1 - slack) * B;
      mass = tight_rows ? A : tight_cols ? B : given;
    }
    neither = !tight_rows && !tight_cols;
    if (threadIdx.x == 0) {
      scratch_->mass = mass;
      scratch_->b_scale = tight_rows && tight_cols ? A / B : 1;
    }
    if (team.any(wrong > 0) || !(A > 0 && A - A == 0 && B > 0 && B - B == 0)) return false;

    const auto given = [&](const T* x, int k, bool tight, T weight) {
      if (!(weight > 0)) return -double(INFINITY);
      const double f = x ? x[k] * per_eps : 0.0, finite = f - f == 0 ? f : 0.0;
      return tight || finite < 0 ? finite : 0.0;
    };
    for (int i = field.begin + threadIdx.x; i < field.end; i += blockDim.x)
      s.F()[i] = given(q.f0 ? q.f0 + problem * n : nullptr, i, tight_rows, a(i));
    for (int j = first_column(); j < field.right; j += blockDim.x)
      team.put(&s.G()[j], given(q.g0 ? q.g0 + problem * m : nullptr, j, tight_cols, b(j)));
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
    for (int j = first_column(); j < field.right; j += blockDim.x) {
      const T weight = b(j);
      const double G = s.G()[j];
      s.cap_v()[j] = cap(G, weight, tight_cols);
      team.put(&s.G()[j], weight > 0 ? G - log(double(weight)) : -INFINITY);
      team.put(&s.v(turn)[j], weight);
    }
    t = 1;
    team.sync();
    for (int i = first_row(); i < field.end; i += block_warps())
      for (int j = lane_rank(); j < m; j += 32) K[(i - field.begin) * m + j] = exp(T(exponent(i, j)));
    team.sync();
  }

  // F_i + log u_i, exactly 0 where the constraint is slack; the same of a column.
  __device__ double row_potential(int i) const { return absorbed(s.F()[i], s.u(turn)[i], s.cap_u()[i]); }
  __device__ double column_potential(int j) const { return absorbed(s.G()[j], s.v(turn)[j], s.cap_v()[j]); }

  // u, v and t go into F, G and H.
  __device__ void absorb() {
    for (int i = field.begin + threadIdx.x; i < field.end; i += blockDim.x) s.F()[i] = row_potential(i);
    for (int j = first_column(); j < field.right; j += blockDim.x) team.put(&s.G()[j], column_potential(j));
    H += log(double(t));
    team.sync();
  }

  // What add(x, i, j) makes of `from` down the columns, a thread a column and a warp a row; to be published.
  template <typename Add>
  __device__ void down(T from, Add add) const {
    for (int j = field.across * 32 + lane_rank(); j < m; j += field.side * 32) {
      T x = from;
      for (int i = field.begin + field.group; i < field.end; i += field.groups) x = add(x, i, j);
      parts.own[field.group * m + j] = x;
    }
  }

  // F, G and H of one iteration; false if there is none, as where all of a tight row is forbidden.
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
    // Down the columns first the largest, to the next v, then the sum.
    const auto x = [&](int i, int j) { return with_K(s.F()[i], i, j); };
    down(-T(INFINITY), [&](T most, int i, int j) { return Max()(most, T(x(i, j))); });
    parts.publish(team, field, Max());
    team.sync();
    for (int j = first_column(); j < field.right; j += blockDim.x) {
      const T most = parts.collect(j, m, Max());
      team.put(&s.v(turn ^ 1)[j], most == -T(INFINITY) ? T(0) : most);
    }
    team.sync();
    down(T(0), [&](T sum, int i, int j) { return sum + exp(T(x(i, j) - double(s.v(turn ^ 1)[j]))); });
    parts.publish(team, field, Sum());
    team.sync();
    double total = 0;
    for (int j = first_column(); j < field.right; j += blockDim.x) {
      const T weight = b(j);
      if (!(weight > 0)) continue;
      const double sums = double(s.v(turn ^ 1)[j]) + log(double(parts.collect(j, m, Sum()))), G = log(double(weight)) - sums;
      const double next = tight_cols || G < 0 ? G : 0.0;
      team.put(&s.G()[j], next);
      total += exp(next + sums);
    }
    total = team.sum(total);
    if (neither) H += log(mass() / total);
    return total - total == 0;
  }

 private:
  Scratch<T, S>* const scratch_;

  __device__ T cost(int i, int j) const { return q.cost[problem * n * m + i * m + j]; }
  __device__ double log_K(int i, int j) const { return H - cost(i, j) * per_eps; }
  // A potential of -inf is that of a masked row or column, whose costs do not count, whatever they are.
  __device__ double with_K(double potential, int i, int j) const { return potential == -INFINITY ? potential : potential + log_K(i, j); }
  __device__ double exponent(int i, int j) const { return with_K(s.F()[i] + s.G()[j], i, j); }

  template <typename Use>
  __device__ void over_rows(Use use) const {
    for (int i = first_row(); i < field.end; i += block_warps())
      for (int j = lane_rank(); j < m; j += 32) use(i, j);
  }

  // Where u reaches exp(F) = 1; exactly the weight if it is there.
  static __device__ T cap(double F, T weight, bool tight) { return tight ? T(INFINITY) : F == 0 ? weight : T(weight * exp(-F)); }
  static __device__ double absorbed(double F, T u, T cap) { return u >= cap ? 0.0 : u > 0 ? F + log(double(u)) : -double(INFINITY); }
};

}  // namespace transphere
