#include "sliced_wasserstein.h"

#include <cmath>

namespace transphere {
namespace {

template <typename T>
inline void of_row(const SlicedGradients<T>& q, int64_t b, int64_t row, int64_t point, const T* z, T* grad_z) {
  const T *x = z + row * 2 * q.P, *y = x + q.P, *grad = q.grad_cost + b * q.P, *cost = q.cost + b * q.P;
  const uint8_t* rises = q.rises + (b * q.bytes() + point / 8) * q.P;
  T *gx = grad_z + row * 2 * q.P, *gy = gx + q.P;
  const T share = T(1) / T(q.n);
  TS_SIMD
  for (int64_t p = 0; p < q.P; ++p) {
    const T scale = sliced_scale(x[p], y[p], (grad[p] + 0 * cost[p]) * share, rises[p], point, q.max_grad);
    gx[p] = -y[p] * scale;
    gy[p] = x[p] * scale;
  }
}

template <typename T>
inline void backward(const SlicedGradients<T>& q, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t b = row / q.n, i = row % q.n;
    of_row(q, b, row, i, q.u, q.grad_u);
    of_row(q, b, row, q.n + i, q.v, q.grad_v);
  }
}

}  // namespace

#define TS_INSTANTIATE(T)                                                                                                 \
  template <>                                                                                                             \
  TS_EVERY_ISA void sliced_wasserstein_backward_cpu(const SlicedGradients<T>& q, int64_t begin, int64_t end) {            \
    backward(q, begin, end);                                                                                              \
  }
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
