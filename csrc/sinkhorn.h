// Entropic optimal transport, many problems at once: the plan of least <P, C> + eps sum P (log P - 1) among those of given marginals.
//
//   cost            (B, n, m)  C; +inf forbids a pair; a NaN or -inf makes its own problem NaN and leaves the others alone
//   a, b            (B, n), (B, m)  weights >= 0, each row with a positive sum; a zero masks its row or column, which is not read
//   mass            (B)        null: balanced, P1 = a and P'1 = b. Else partial: P1 <= a, P'1 <= b, sum P = mass > 0
//   f0, g0          (B, n), (B, m)  where to start, null or both; only differences matter, what is not finite counts as 0
//   plan            (B, n, m)  P_ij = exp((f_i + g_j + h - C_ij) / eps), exactly 0 where a_i or b_j is
//   f, g, h         (B, n), (B, m), (B)  potentials; -inf where the weight is 0
//   error           (B)        L1 distance of the plan, as it is returned, from its constraints (below)
//   iterations      (B) int32  updates of the potentials, of whatever kind, that the plan took: between 0 and max_iter; on a GPU each pass
//                              over K of a Newton step counts as one
//   converged       (B) bool   error <= tol * sum P, which is never so for a NaN
//
// Forms. With s the mass, A = sum a, B = sum b and slack = 1e-6 (float) or 1e-12 (double), a side is tight if mass is null or
// s >= (1 - slack) times its sum.
//   both tight      balanced: f and g free, h = 0, and <f, a> = <g, b>. b counts as b A / B (they differ by rounding)
//   one tight       its potential is free, the other's <= 0, h = 0; s counts as the tight side's sum
//   neither         f <= 0, g <= 0, exactly 0 where the constraint is slack (u = 1 below); h free
// Iteration, with K = exp(-C / eps), u = exp(f / eps), v = exp(g / eps), t = exp(h / eps) (Benamou et al. 2015, prop. 5, as scalings):
//   u = a / (t K v), not above 1 unless the rows are tight;  v = b / (t K'u), not above 1 unless the columns are;
//   t = s / (u'K v) if neither is, else 1.
// One pass over K an iteration: for each row r_i = K_i v, u_i = a_i / r_i, acc += u_i K_i; then v = b / acc and u'Kv = sum v acc. The error
// of the state before v moves is free: sum acc |v - v before|, and then v can but lessen it.
// Error, with row_i = sum_j P_ij: sum over i of |row_i - a_i| if the rows are tight, else of |row_i - min(a_i, row_i exp(-f_i / eps))| (how
// far the next update would move it); the same for columns; and |sum P - s| if neither is tight. Float32 reaches about 2e-7.
// A kernel may accelerate, absorb and order as it likes: the law is the fixed point. Each problem ends by itself, with the same bits alone
// or among others. The plan comes from u K v with K shifted so that it neither over- nor underflows, not from rounded f and g: at
// eps = 1e-3 their rounding is 1e-4 of an entry. Two things that plain iterations are slow or wrong at: where neither side is tight and all
// f < 0 (or all g), raise f and lower h by the same until one is 0; and sums of a row or column go by blocks, since in float32 a plan near a
// permutation has one entry that swallows the others (docs/mathematics.md).
//
// Backward, H the gradient in log P (that in P times P), r = P1, c = P'1; rows I where a > 0 and f is free or < 0; columns J likewise:
//   r_i lam_i + sum_J P_ij mu_j + r_i rho = (H1)_i,   c_j mu_j + sum_I P_ij lam_i + c_j rho = (H'1)_j,
//   sum_I r lam + sum_J c mu + s rho = sum H   (rho and this line only if neither side is tight; s = sum P)
// and 0 elsewhere; then grad_cost = (P∘(lam + mu' + rho) - H)/eps, grad_a = lam, grad_b = mu, grad_mass = rho. Balanced, lam and mu are
// determined up to a constant: the one with c'mu = 0. Eliminating lam leaves (diag c - P'diag(1/r)P) mu = H'1 - P'(H1/r), one row and
// column more for rho. All of it is linear algebra of the plan: memory does not depend on the iterations.
#pragma once
#include <functional>

#include "portable.h"

namespace transphere {

template <typename T>
struct SinkhornProblems {
  const T *cost, *a, *b, *mass, *f0, *g0;  // mass null or given; f0 and g0 both null or both given
  T *plan, *f, *g, *h, *error;
  int32_t* iterations;
  bool* converged;
  int64_t n, m;
  double eps, tol;
  int64_t max_iter;
};

template <typename T>
struct SinkhornGradients {
  const T *grad_log_plan, *plan, *a, *b, *mass, *f, *g;  // mass null or given
  T *grad_cost, *grad_a, *grad_b, *grad_mass;
  int64_t n, m;
  double eps;
};

// Runs f(begin, end) over all of [0, count), on as many threads as there are.
using Range = std::function<void(int64_t, int64_t)>;
using Split = std::function<void(int64_t count, const Range& f)>;

// Problems [begin, end), one after the other, each with its rows split. How they are split leaves every bit as it is.
template <typename T>
void sinkhorn_cpu(const SinkhornProblems<T>& problems, int64_t begin, int64_t end, const Split& split);
template <typename T>
void sinkhorn_backward_cpu(const SinkhornGradients<T>& gradients, int64_t begin, int64_t end, const Split& split);

#ifdef TS_CUDA
// *bytes of device memory that the kernels need for `count` problems of a shape on the current device; 0 where shared memory does.
template <typename T>
cudaError_t sinkhorn_workspace(int64_t n, int64_t m, int64_t count, int64_t* bytes);
template <typename T>
cudaError_t sinkhorn_cuda(const SinkhornProblems<T>& problems, int64_t count, void* workspace, cudaStream_t stream);
template <typename T>
cudaError_t sinkhorn_backward_workspace(int64_t n, int64_t m, int64_t count, int64_t* bytes);
template <typename T>
cudaError_t sinkhorn_backward_cuda(const SinkhornGradients<T>& gradients, int64_t count, void* workspace, cudaStream_t stream);
#endif

}  // namespace transphere
