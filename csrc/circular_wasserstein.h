// Wasserstein-1 on the circle R/Z between two weighted point sets, many problems at once.
//
//   u, v                    (B, n, P), (B, m, P)  points in turns, any real; problem (b, p) is u[b, :, p] against v[b, :, p]
//   u_weights, v_weights    (B, n), (B, m)        nonnegative, each row with sum 1; both or neither (then uniform)
//   cost                    (B, P)                W1 in turns
//   u_slope, v_slope        as u, v               d cost / d point
//   u_potential, v_potential as u, v              d cost / d weight, up to a constant a row; only with weights
//
// With the N = n + m points sorted, L_k the weight of u minus that of v at or before t_k, and the gaps d_k = t_{k+1} - t_k, d_N = 1 + t_1 - t_N,
//   W1 = sum d_k |L_k - M|,   M the d-weighted median of the levels L_k,
//   dW/dt_k = |L_{k-1} - M| - |L_k - M| (cyclic; the median adds nothing),   dW/da_i = sum over the gaps at or after t_i of d_k s_k,
// s_k = sign(L_k - M), and where L_k = M the one value in [-1, 1] with which sum d_k s_k = 0: M moves with its own level.
// The last gap runs over 0: the copied closed form drops its part [0, t_1] and is wrong (docs/mathematics.md).
// A NaN or an infinity makes its own problem NaN and leaves the others alone.
#pragma once
#include <type_traits>

#include "portable.h"

namespace transphere {

struct Team;

template <typename T>
struct CircularProblems {
  const T *u, *v, *u_weights, *v_weights;  // the weights null, or both given
  T *cost, *u_slope, *v_slope, *u_potential, *v_potential;
  int64_t n, m, P;
  uint8_t* rises = nullptr;  // if given: u and v are coordinates, and bits take the place of slopes, as csrc/sliced_wasserstein.h says
};

// On the CPU: problems [begin, end) of B * P, p innermost. Up to kCircularColumnPoints points n + m, kCircularColumns problems at a time;
// beyond, one at a time, whose work a team can share.
constexpr int kCircularColumnPoints = 2048, kCircularColumns = 8;

template <typename T>
void circular_wasserstein_cpu(const CircularProblems<T>& problems, int64_t begin, int64_t end);

template <typename T>
void circular_wasserstein_large_cpu(const CircularProblems<T>& problems, int64_t begin, int64_t end, const Team& team);

#ifdef TS_CUDA
// Bytes of device memory that the kernel needs for problems of n + m = points; 0 where shared memory does.
template <typename T>
int64_t circular_wasserstein_workspace(int64_t points, int64_t problems);

template <typename T>
cudaError_t circular_wasserstein_cuda(const CircularProblems<T>& problems, int64_t count, void* workspace, cudaStream_t stream);
#endif

}  // namespace transphere
