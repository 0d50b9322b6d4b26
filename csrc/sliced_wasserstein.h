// Wasserstein-1 on great circles from the coordinates of projected points: circular_projection and circular_wasserstein in one pass, for two
// sets of n <= kSlicedPoints points each with uniform weights.
//
//   u, v    (B, n, 2P)             coordinates in each of P planes: the P first ones of a point, then its P second ones
//   cost    (B, P)                 W1 in turns
//   rises   (B, ceil(2n / 8), P)   bit i % 8 of byte i / 8: whether the cost rises with point i of u followed by v
//   grad_u, grad_v as u, v
//
// With n points a set every level is a multiple of 1/n and changes by 1/n at a point, so that d cost / d angle is 1/n or -1/n and a bit keeps
// it. Then d angle / d(x, y) = (-y, x) / (x^2 + y^2) / 2 pi, 0 at the origin and no longer than max_grad.
#pragma once
#include <cmath>

#include "circular_wasserstein.h"
#include "portable.h"

namespace transphere {

constexpr int kSlicedPoints = 128;

template <typename T>
struct SlicedGradients {
  const T *grad_cost, *cost;
  const uint8_t* rises;
  const T *u, *v;
  T *grad_u, *grad_v;
  int64_t n, P;
  T max_grad;

  TS_HD int64_t bytes() const { return (2 * n + 7) / 8; }
};

// Of row i of a set, `point` in u followed by v: what multiplies (-y, x).
template <typename T>
TS_HD T sliced_scale(T x, T y, T grad, uint8_t byte, int64_t point, T max_grad) {
  const T r2 = x * x + y * y;
  if (r2 == T(0)) return T(0);
  const T slope = byte >> (point & 7) & 1 ? grad : -grad, steepness = T(0.15915494309189535) / r2;
  return slope * (steepness * steepness * r2 > max_grad * max_grad ? max_grad / std::sqrt(r2) : steepness);
}

// Rows [begin, end) of the B n of each set.
template <typename T>
void sliced_wasserstein_backward_cpu(const SlicedGradients<T>& q, int64_t begin, int64_t end);

#ifdef TS_CUDA
template <typename T>
cudaError_t sliced_wasserstein_backward_cuda(const SlicedGradients<T>& q, int64_t rows, cudaStream_t stream);
#endif

}  // namespace transphere
