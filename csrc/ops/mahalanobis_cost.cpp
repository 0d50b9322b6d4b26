#include "mahalanobis_cost.h"

#include "ops/common.h"

namespace transphere {
namespace {

// M only takes part in the gradient.
template <typename On>
Tensor forward(const Tensor& z_, const std::optional<Tensor>&, const Tensor& zM_, const Tensor& G_, bool squared) {
  STD_TORCH_CHECK(z_.dim() == 3 && zM_.dim() == 3 && G_.dim() == 3, "mahalanobis_cost: expected z, zM (B, n + m, d) and G (B, n, m)");
  const int64_t B = z_.size(0), d = z_.size(2), n = G_.size(1), m = G_.size(2);
  STD_TORCH_CHECK(z_.size(1) == n + m && zM_.size(0) == B && zM_.size(1) == n + m && zM_.size(2) == d && G_.size(0) == B,
                  "mahalanobis_cost: expected z, zM (B, n + m, d) and G (B, n, m)");
  STD_TORCH_CHECK(zM_.scalar_type() == z_.scalar_type() && G_.scalar_type() == z_.scalar_type(),
                  "mahalanobis_cost: expected z, zM and G of one dtype");
  const On on(z_);
  const Tensor z = torch::stable::contiguous(z_), zM = torch::stable::contiguous(zM_), G = torch::stable::contiguous(G_);
  const Tensor cost = torch::stable::empty_like(G), norms = torch::stable::new_empty(z, {2, B, n + m});
  dispatch_float(z, "mahalanobis_cost", [&](auto t) {
    using T = decltype(t);
    const MahalanobisCost<T> q{data<T>(z), data<T>(zM), data<T>(G), out<T>(norms), out<T>(cost), B, n, m, d, squared};
    if constexpr (On::cuda) {
      on.check("mahalanobis_cost", mahalanobis_cost_cuda(q, on.stream()));
    } else {
      parallel(B * (n + m), d / 4, [&](int64_t b, int64_t e) { mahalanobis_norms_cpu(q, b, e); });
      parallel(B * n, m, [&](int64_t b, int64_t e) { mahalanobis_cost_cpu(q, b, e); });
    }
  });
  return cost;
}

template <typename On>
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_, const Tensor& cost_, bool squared) {
  STD_TORCH_CHECK(cost_.dim() == 3 && grad_.dim() == 3, "mahalanobis_cost_backward: expected grad and cost (B, n, m)");
  const int64_t B = cost_.size(0), n = cost_.size(1), m = cost_.size(2);
  STD_TORCH_CHECK(grad_.size(0) == B && grad_.size(1) == n && grad_.size(2) == m, "mahalanobis_cost_backward: expected grad and cost (B, n, m)");
  STD_TORCH_CHECK(grad_.scalar_type() == cost_.scalar_type(), "mahalanobis_cost_backward: expected grad and cost of one dtype");
  const On on(cost_);
  const Tensor grad = torch::stable::contiguous(grad_), cost = torch::stable::contiguous(cost_);
  const Tensor W = torch::stable::empty_like(cost), rows = torch::stable::new_empty(cost, {B, n}), columns = torch::stable::new_empty(cost, {B, m});
  dispatch_float(cost, "mahalanobis_cost_backward", [&](auto t) {
    using T = decltype(t);
    MahalanobisSlope<T> q{data<T>(grad), data<T>(cost), out<T>(W), out<T>(rows), out<T>(columns), nullptr, B, n, m, squared};
    if constexpr (On::cuda) {
      const Tensor partial = torch::stable::new_empty(cost, {B, (n + kStrip - 1) / kStrip, m});
      q.partial = out<T>(partial);
      on.check("mahalanobis_cost_backward", mahalanobis_cost_backward_cuda(q, on.stream()));
    } else {
      parallel(B * n, m, [&](int64_t b, int64_t e) { mahalanobis_cost_backward_cpu(q, b, e); });
      parallel(B * m, n / 2, [&](int64_t b, int64_t e) { mahalanobis_columns_cpu(q, b, e); });
    }
  });
  return {W, rows, columns};
}

template <typename On>
void ops(Library& m) {
  m.impl(On::op("mahalanobis_cost"), TORCH_BOX(&forward<On>));
  m.impl(On::op("mahalanobis_cost_backward"), TORCH_BOX(&backward<On>));
}
TS_REGISTER(ops)

}  // namespace
}  // namespace transphere
