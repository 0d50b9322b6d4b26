// The part of a Mahalanobis cost that is no matrix product: cost_ij = sqrt(max(q_ij, 0)), q_ij = (x_i - y_j)' M (x_i - y_j), and its slopes.
//
//   z        (B, n + m, d)  the points x above the points y, centred together
//   zM       (B, n + m, d)  z M, M symmetric
//   G        (B, n, m)      x M y'
//   norms    (2, B, n + m)  workspace: p = sum_k z_k zM_k, and a = sum_k |z_k zM_k|, the size of its terms
//   cost     (B, n, m)      sqrt(max(q, 0)), or max(q, 0) where `squared`
//
// q_ij = p_i + p_j - 2 G_ij cancels where it is small: where |q| is not above kCancelled (a_i + a_j) it is computed again as
//   q_ij = sum_k (x_ik - y_jk) (xM_ik - yM_jk),
// O(d) for the few such pairs. Equal rows have exactly 0, and the float32 error of a cost stays at a few roundings of sqrt(a_i + a_j).
//
//   grad     (B, n, m)      dL/dcost
//   W        (B, n, m)      dL/dq = grad / (2 cost), or grad where `squared`; 0 where the cost is 0
//   rows     (B, n)         sum_j W_ij
//   columns  (B, m)         sum_i W_ij
//   partial  (B, strips of kStrip rows, m)  workspace of the CUDA kernel: the column sums of each strip
//
// With the Laplacian A = [[diag(rows), -W], [-W', diag(columns)]] the gradients are dL/dz = 2 A zM and dL/dM = z' A z.
#pragma once
#include "portable.h"

namespace transphere {

constexpr double kCancelled = 1.0 / 256;
constexpr int64_t kStrip = 8;

template <typename T>
struct MahalanobisCost {
  const T *z, *zM, *G;
  T *norms, *cost;
  int64_t B, n, m, d;
  bool squared;
};

template <typename T>
struct MahalanobisSlope {
  const T *grad, *cost;
  T *W, *rows, *columns, *partial;
  int64_t B, n, m;
  bool squared;
};

// Points [begin, end) of all B (n + m).
template <typename T>
void mahalanobis_norms_cpu(const MahalanobisCost<T>& q, int64_t begin, int64_t end);

// Rows [begin, end) of all B n.
template <typename T>
void mahalanobis_cost_cpu(const MahalanobisCost<T>& q, int64_t begin, int64_t end);
template <typename T>
void mahalanobis_cost_backward_cpu(const MahalanobisSlope<T>& q, int64_t begin, int64_t end);

// The sums of columns [begin, end) of all B m, from W.
template <typename T>
void mahalanobis_columns_cpu(const MahalanobisSlope<T>& q, int64_t begin, int64_t end);

#ifdef TS_CUDA
template <typename T>
cudaError_t mahalanobis_cost_cuda(const MahalanobisCost<T>& q, cudaStream_t stream);
template <typename T>
cudaError_t mahalanobis_cost_backward_cuda(const MahalanobisSlope<T>& q, cudaStream_t stream);
#endif

}  // namespace transphere
