#include "circular_projection.h"

#include "ops/common.h"

namespace transphere {
namespace {

template <typename On>
Tensor forward(const Tensor& xy_) {
  STD_TORCH_CHECK(xy_.dim() == 2 && xy_.size(1) % 2 == 0, "circular_projection: expected xy of shape (R, 2P)");
  const On on(xy_);
  const Tensor xy = torch::stable::contiguous(xy_);
  const int64_t R = xy.size(0), P = xy.size(1) / 2;
  const Tensor theta = torch::stable::new_empty(xy, {R, P});
  dispatch_float(xy, "circular_projection", [&](auto t) {
    using T = decltype(t);
    const T* x = data<T>(xy);
    T* r = out<T>(theta);
    if constexpr (On::cuda)
      on.check("circular_projection", circular_projection_cuda(x, r, R, P, on.stream()));
    else
      parallel(R, 2 * P, [&](int64_t b, int64_t e) { circular_projection_cpu(x, r, P, b, e); });
  });
  return theta;
}

template <typename On>
Tensor backward(const Tensor& grad_theta_, const Tensor& xy_) {
  STD_TORCH_CHECK(grad_theta_.scalar_type() == xy_.scalar_type(), "circular_projection_backward: expected grad_theta and xy of one dtype");
  const On on(xy_);
  const Tensor grad_theta = torch::stable::contiguous(grad_theta_), xy = torch::stable::contiguous(xy_);
  const int64_t R = xy.size(0), P = xy.size(1) / 2;
  const Tensor grad_xy = torch::stable::empty_like(xy);
  dispatch_float(xy, "circular_projection_backward", [&](auto t) {
    using T = decltype(t);
    const T *g = data<T>(grad_theta), *x = data<T>(xy);
    T* r = out<T>(grad_xy);
    if constexpr (On::cuda)
      on.check("circular_projection_backward", circular_projection_backward_cuda(g, x, r, R, P, on.stream()));
    else
      parallel(R, P, [&](int64_t b, int64_t e) { circular_projection_backward_cpu(g, x, r, P, b, e); });
  });
  return grad_xy;
}

template <typename On>
void ops(Library& m) {
  m.impl(On::op("circular_projection"), TORCH_BOX(&forward<On>));
  m.impl(On::op("circular_projection_backward"), TORCH_BOX(&backward<On>));
}
TS_REGISTER(ops)

}  // namespace
}  // namespace transphere
