// The angle of points projected on great circles, and its derivative.
//
//   xy     (R, 2P)  coordinates in each of P planes: the P first ones, then the P second ones, so that lanes are planes
//   theta  (R, P)   atan2(y, x) in turns, in [0, 1); 0 at the origin
//
// d theta / d(x, y) = (-y, x) / (x^2 + y^2) / 2 pi, taken as 0 at the origin.
#pragma once
#include "portable.h"

namespace transphere {

// Rows [begin, end).
template <typename T>
void circular_projection_cpu(const T* xy, T* theta, int64_t P, int64_t begin, int64_t end);

template <typename T>
void circular_projection_backward_cpu(const T* grad_theta, const T* xy, T* grad_xy, int64_t P, int64_t begin, int64_t end);

#ifdef TS_CUDA
template <typename T>
cudaError_t circular_projection_cuda(const T* xy, T* theta, int64_t R, int64_t P, cudaStream_t stream);

template <typename T>
cudaError_t circular_projection_backward_cuda(const T* grad_theta, const T* xy, T* grad_xy, int64_t R, int64_t P, cudaStream_t stream);
#endif

}  // namespace transphere
