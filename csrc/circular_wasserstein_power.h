// Wasserstein-p on the circle R/Z for p > 1 between two weighted point sets, many problems at once.
//
//   u, v                     (B, n, P), (B, m, P)  points in turns, any real; problem (b, p) is u[b, :, p] against v[b, :, p]
//   u_weights, v_weights     (B, n), (B, m)        nonnegative, each row divided by its sum; both or neither (then uniform)
//   distance                 (B, P)                W_p in turns
//   u_slope, v_slope         as u, v               d distance / d point; 0 where the distance is 0
//   u_potential, v_potential as u, v               d distance / d weight, up to a constant a row and set; only with weights
//
// With x and y the sorted points, x_{i+n} = x_i + 1, and X_i, Y_j the masses up to and with each, which climb by 1 a turn,
//   W_p^p = min over k of f(k),   f(k) = int_0^1 c(x(s) - y(s - k)) ds,   c(d) = |d|^p,   x(s) = x_i for X_{i-1} <= s < X_i.
// f is convex, has its minimum in [-1, 1], and is linear between the cuts k at which levels of both sets meet; right of k it rises by
//   f'(k) = sum_j c(x(Y_j + k) - y_j) - c(x(Y_j + k) - y_{j+1}).
// Levels and cuts are whole numbers, of 1/lcm(n, m), or with weights of 2^-60, so bisection finds the least k with f'(k) >= 0 exactly.
// Between neighbouring levels of X and Y + k lies a piece, a mass that goes from one x to one y; a point's slope sums those of its pieces.
//
// Potentials climb from x_i to x_{i+1} by c(x_{i+1} - y) - c(x_i - y), y the partner at X_i, and so for y. Around the circle they close for
// the mixture of those at k and just before it in which f is level: f has a kink at k, and both its sides move with the weights.
//
// A NaN or an infinity, or a negative weight, makes its own problem NaN and leaves the others alone.
#pragma once
#include "portable.h"

namespace transphere {

constexpr int64_t kWeightUnit = int64_t(1) << 60;

template <typename T>
struct CircularPowerProblems {
  const T *u, *v, *u_weights, *v_weights;  // the weights null, or both given
  T *distance, *u_slope, *v_slope, *u_potential, *v_potential;
  int64_t n, m, P;
  double p;
};

// Problems [begin, end) of B * P, p innermost.
template <typename T>
void circular_wasserstein_power_cpu(const CircularPowerProblems<T>& problems, int64_t begin, int64_t end);

// Bytes of device memory that the CUDA kernel needs; 0 where shared memory does. Declared without CUDA too: the binding names it.
int64_t circular_wasserstein_power_workspace(int64_t n, int64_t m, int64_t problems);

#ifdef TS_CUDA
template <typename T>
cudaError_t circular_wasserstein_power_cuda(const CircularPowerProblems<T>& problems, int64_t count, void* workspace, cudaStream_t stream);
#endif

}  // namespace transphere
