#include "circular_projection.h"

#include "fastmath.h"

namespace transphere {
namespace {

template <typename T>
inline void forward(const T* __restrict__ xy, T* __restrict__ theta, int64_t P, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T *x = xy + row * 2 * P, *y = x + P;
    T* t = theta + row * P;
    for (int64_t p = 0; p < P; ++p) t[p] = angle_turns(x[p], y[p]);
  }
}

template <typename T>
inline void backward(const T* __restrict__ grad_theta, const T* __restrict__ xy, T* __restrict__ grad_xy, int64_t P, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T *x = xy + row * 2 * P, *y = x + P, *g = grad_theta + row * P;
    T *gx = grad_xy + row * 2 * P, *gy = gx + P;
    for (int64_t p = 0; p < P; ++p) {
      const T r2 = x[p] * x[p] + y[p] * y[p];
      const T scale = r2 == T(0) ? T(0) : g[p] * T(0.15915494309189535) / r2;
      gx[p] = -y[p] * scale;
      gy[p] = x[p] * scale;
    }
  }
}

}  // namespace

#define TS_INSTANTIATE(T)                                                                                                       \
  template <>                                                                                                                   \
  TS_EVERY_ISA void circular_projection_cpu(const T* xy, T* theta, int64_t P, int64_t begin, int64_t end) {                     \
    forward(xy, theta, P, begin, end);                                                                                          \
  }                                                                                                                             \
  template <>                                                                                                                   \
  TS_EVERY_ISA void circular_projection_backward_cpu(const T* grad_theta, const T* xy, T* grad_xy, int64_t P, int64_t begin,    \
                                                     int64_t end) {                                                             \
    backward(grad_theta, xy, grad_xy, P, begin, end);                                                                           \
  }
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
