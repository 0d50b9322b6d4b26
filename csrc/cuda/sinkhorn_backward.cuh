// A team's gradient of one problem: the system of csrc/sinkhorn.h with lam eliminated, by conjugate gradients with its diagonal as the
// preconditioner, in double whatever the plan's type. The matrix is the plan itself: a product is one pass over it.
#pragma once
#include "cuda/sinkhorn_pass.cuh"
#include "sinkhorn.h"

namespace transphere {

// The vectors of one problem in one piece of memory.
struct GradientVectors {
  char* base;
  int n, m;

  static __host__ __device__ int64_t bytes(int64_t n, int64_t m) { return (4 * n + 5 * m) * int64_t(sizeof(double)); }
  __device__ double* r() const { return reinterpret_cast<double*>(base); }  // (n)  P1
  __device__ double* over_r() const { return r() + n; }                     // (n)  1 / r where the row is active, else 0
  __device__ double* h() const { return r() + 2 * n; }                      // (n)  H1
  __device__ double* w() const { return r() + 3 * n; }                      // (n)  weights of the pass
  __device__ double* c() const { return r() + 4 * n; }                      // (m)  P'1, 0 where the column is not active
  __device__ double* d() const { return c() + m; }                          // (m)  the diagonal
  __device__ double* x() const { return c() + 2 * m; }                      // (m)  mu
  __device__ double* p() const { return c() + 3 * m; }                      // (m)  direction
  __device__ double* res() const { return c() + 4 * m; }                    // (m)  residual
};

template <typename T, Span S>
class Adjoint {
 public:
  __device__ Adjoint(const SinkhornGradients<T>& q, int64_t problem, Team<S>& team, const Field<double, S>& field,
                     const GradientVectors& s, const Parts<double, S>& parts, Scratch<double, S>* scratch)
      : q(q), n(int(q.n)), m(int(q.m)), problem(problem), team(team), field(field), s(s), parts(parts), pass(field, scratch) {}

  __device__ void run() {
    system();
    solve();
    finish();
  }

 private:
  static constexpr double kTiny = 1e-14;  // keeps apart what no entry above rounding connects
  const SinkhornGradients<T>& q;
  const int n, m;
  const int64_t problem;
  Team<S>& team;
  const Field<double, S>& field;
  const GradientVectors& s;
  const Parts<double, S>& parts;
  Pass<T, double, S> pass;
  bool balanced = true, neither = false;
  double total = 0, rho = 0, right_rho = 0, d_rho = 1;

  __device__ const T* plan() const { return q.plan + problem * n * m; }
  __device__ double P(int i, int j) const { return plan()[i * m + j]; }
  __device__ double H(int i, int j) const { return q.grad_log_plan[problem * n * m + i * m + j]; }
  __device__ int first_row() const { return field.begin + warp_rank(); }                    // a warp a row
  __device__ int first_column() const { return field.left + int(threadIdx.x); }  // a thread a column

  // Sums of entry(i, j) down the columns, then use(j, sum).
  template <typename Entry, typename Use>
  __device__ void down(Entry entry, Use use) {
    for (int j = field.across * 32 + lane_rank(); j < m; j += field.side * 32) {
      double sum = 0;
      for (int i = field.begin + field.group; i < field.end; i += field.groups) sum += entry(i, j);
      parts.own[field.group * m + j] = sum;
    }
    parts.publish(team, field, Sum());
    team.sync();
    for (int j = first_column(); j < field.right; j += blockDim.x) use(j, parts.collect(j, m, Sum()));
    team.sync();
  }

  // Which rows and columns are active, the diagonal of the system, and its right side in res.
  __device__ void system() {
    constexpr double slack = sizeof(T) == 4 ? 1e-6 : 1e-12;
    const T *a = q.a + problem * n, *b = q.b + problem * m, *f = q.f + problem * n, *g = q.g + problem * m;
    bool tight_rows = true, tight_cols = true;
    if (q.mass) {
      double A = 0, B = 0;
      for (int i = threadIdx.x; i < n; i += blockDim.x) A += a[i];
      for (int j = threadIdx.x; j < m; j += blockDim.x) B += b[j];
      A = team.sum(A) / team.size;
      B = team.sum(B) / team.size;
      tight_rows = q.mass[problem] >= (1 - slack) * A;
      tight_cols = q.mass[problem] >= (1 - slack) * B;
    }
    balanced = tight_rows && tight_cols;
    neither = !tight_rows && !tight_cols;
    double all = 0, inactive_h = 0, inactive_r = 0;
    for (int i = first_row(); i < field.end; i += block_warps()) {
      double r = 0, h = 0;
      for (int j = lane_rank(); j < m; j += 32) r += P(i, j), h += H(i, j);
      r = warp_sum(r);
      h = warp_sum(h);
      if (lane_rank() != 0) continue;
      const bool active = a[i] > 0 && (tight_rows || f[i] < 0) && r > 0;
      s.r()[i] = r;
      s.h()[i] = h;
      s.over_r()[i] = active ? 1 / r : 0;
      all += r;
      if (!active) inactive_h += h, inactive_r += r;
    }
    total = team.sum(all);
    if (neither) {
      right_rho = team.sum(inactive_h);
      d_rho = team.sum(inactive_r) + kTiny * total;
    }
    down([&](int i, int j) { return P(i, j); },
         [&](int j, double c) { s.c()[j] = b[j] > 0 && (tight_cols || g[j] < 0) && c > 0 ? c : 0; });
    down([&](int i, int j) { return P(i, j) * P(i, j) * s.over_r()[i]; },
         [&](int j, double sum) {
           const double c = s.c()[j];
           s.d()[j] = c > 0 ? (sum < c ? c - sum : 0) + kTiny * c : 1;
         });
    double excess = 0;
    down([&](int i, int j) { return H(i, j) - P(i, j) * (s.over_r()[i] * s.h()[i]); },
         [&](int j, double sum) { excess += s.res()[j] = s.c()[j] > 0 ? sum : 0; });
    if (!balanced) return;
    excess = team.sum(excess) / total;  // 0 but for rounding, which the constant in the system's kernel would multiply
    for (int j = first_column(); j < field.right; j += blockDim.x) s.res()[j] -= excess * s.c()[j];
  }

  __device__ void solve() {
    constexpr double tolerance = sizeof(T) == 4 ? 1e-9 : 1e-13;
    double res_rho = right_rho, p_rho = 0, z2 = 0;
    const auto of_rho = [&](double x) { return neither ? x : 0.0; };
    for (int j = first_column(); j < field.right; j += blockDim.x) {
      const double z = s.res()[j] / s.d()[j];
      s.x()[j] = 0;
      team.put(&s.p()[j], z);
      z2 += s.res()[j] * z;
    }
    z2 = team.sum(z2) + of_rho(res_rho * res_rho / d_rho);
    if (neither) p_rho = res_rho / d_rho;
    const double enough = tolerance * tolerance * z2;
    pass.take(plan() + field.begin * m);
    const int most = 4 * (n < m ? n : m) + 100;
    for (int step = 0; step < most && z2 > enough; ++step) {
      double rows_rho = 0, cols_rho = 0, curvature = 0;
      pass.run(s.p(), s.w(), parts.own, [&](int i, double dot, bool once) {
        const double w = s.over_r()[i] * (dot + s.r()[i] * p_rho);
        if (once) rows_rho += s.r()[i] * w;
        return w;
      });
      parts.publish(team, field, Sum());
      rows_rho = team.sum(rows_rho);
      for (int j = first_column(); j < field.right; j += blockDim.x) {
        const double c = s.c()[j], p = s.p()[j], sum = parts.collect(j, m, Sum());
        const double product = c > 0 ? c * ((1 + kTiny) * p + p_rho) - sum : 0;
        parts.all[j] = product;
        cols_rho += c * p;
        curvature += p * product;
      }
      curvature = team.sum(curvature);
      double product_rho = 0;
      if (neither) {
        product_rho = (1 + kTiny) * total * p_rho + team.sum(cols_rho) - rows_rho;
        curvature += p_rho * product_rho;
      }
      if (!(curvature > 0)) break;
      const double along = z2 / curvature;
      double next = 0;
      for (int j = first_column(); j < field.right; j += blockDim.x) {
        s.x()[j] += along * s.p()[j];
        s.res()[j] -= along * parts.all[j];
        next += s.res()[j] * s.res()[j] / s.d()[j];
      }
      rho += along * p_rho;
      res_rho -= along * product_rho;
      next = team.sum(next) + of_rho(res_rho * res_rho / d_rho);
      const double back = next / z2;
      z2 = next;
      for (int j = first_column(); j < field.right; j += blockDim.x) team.put(&s.p()[j], s.res()[j] / s.d()[j] + back * s.p()[j]);
      p_rho = of_rho(res_rho / d_rho + back * p_rho);
      team.sync();
    }
    double shift = 0;
    if (balanced) {  // the solution with c'mu = 0
      for (int j = first_column(); j < field.right; j += blockDim.x) shift += s.c()[j] * s.x()[j];
      shift = team.sum(shift) / total;
    }
    for (int j = first_column(); j < field.right; j += blockDim.x) {
      const double x = s.x()[j];
      team.put(&s.x()[j], s.c()[j] > 0 ? x - shift : x);
    }
    team.sync();
  }

  __device__ void finish() {
    T* const grad_cost = q.grad_cost + problem * n * m;
    const double per_eps = 1 / q.eps;
    for (int i = first_row(); i < field.end; i += block_warps()) {
      double dot = 0;
      for (int j = lane_rank(); j < m; j += 32) dot += P(i, j) * s.x()[j];
      const double lam = s.over_r()[i] * (s.h()[i] - warp_sum(dot) - s.r()[i] * rho);
      for (int j = lane_rank(); j < m; j += 32)
        grad_cost[i * m + j] = T((P(i, j) * (lam + s.x()[j] + rho) - H(i, j)) * per_eps);
      if (lane_rank() == 0) q.grad_a[problem * n + i] = T(lam);
    }
    for (int j = first_column(); j < field.right; j += blockDim.x) q.grad_b[problem * m + j] = T(s.x()[j]);
    if (team.leads()) q.grad_mass[problem] = T(rho);
    team.sync();  // all vectors have been read
  }
};

// What the kernels of sinkhorn.cu run.
template <typename T>
struct Differentiate {
  using Arithmetic = double;
  using Matrix = T;
  using Vectors = GradientVectors;
  static constexpr bool kMatrixOnChip = false;
  SinkhornGradients<T> q;

  static __host__ __device__ int64_t history_bytes(int64_t) { return 0; }

  template <Span S>
  __device__ void run(int64_t problem, Team<S>& team, const Field<double, S>& field, const Vectors& s, const Parts<double, S>& parts, T*,
                      double*, Scratch<double, S>* scratch) const {
    Adjoint<T, S>(q, problem, team, field, s, parts, scratch).run();
  }
};

}  // namespace transphere
