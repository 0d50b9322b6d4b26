#include "circular_projection.h"

#include "ops/common.h"

namespace transphere {
namespace {

Tensor forward(const Tensor& xy_) {
  STD_TORCH_CHECK(xy_.dim() == 2 && xy_.size(1) % 2 == 0, "circular_projection: expected xy of shape (R, 2P)");
  const Tensor xy = torch::stable::contiguous(xy_);
  const int64_t R = xy.size(0), P = xy.size(1) / 2;
  const Tensor theta = torch::stable::new_empty(xy, {R, P});
  dispatch_float(xy, "circular_projection", [&](auto t) {
    using T = decltype(t);
    const T* x = data<T>(xy);
    T* r = out<T>(theta);
    parallel(R, 2 * P, [&](int64_t b, int64_t e) { circular_projection_cpu(x, r, P, b, e); });
  });
  return theta;
}

Tensor backward(const Tensor& grad_theta_, const Tensor& xy_) {
  const Tensor grad_theta = torch::stable::contiguous(grad_theta_), xy = torch::stable::contiguous(xy_);
  const int64_t R = xy.size(0), P = xy.size(1) / 2;
  const Tensor grad_xy = torch::stable::empty_like(xy);
  dispatch_float(xy, "circular_projection_backward", [&](auto t) {
    using T = decltype(t);
    const T *g = data<T>(grad_theta), *x = data<T>(xy);
    T* r = out<T>(grad_xy);
    parallel(R, P, [&](int64_t b, int64_t e) { circular_projection_backward_cpu(g, x, r, P, b, e); });
  });
  return grad_xy;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(transphere, CPU, m) {
  m.impl("circular_projection", TORCH_BOX(&forward));
  m.impl("circular_projection_backward", TORCH_BOX(&backward));
}

}  // namespace transphere
