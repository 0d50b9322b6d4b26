#include "sinkhorn.h"

#include "ops/common.h"

namespace transphere {
namespace {

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <typename T>
const T* data_or_null(const std::optional<Tensor>& x) {
  return x.has_value() ? data<T>(*x) : nullptr;
}
std::optional<Tensor> contiguous(const std::optional<Tensor>& x) {
  return x.has_value() ? std::optional<Tensor>(torch::stable::contiguous(*x)) : x;
}

void check_shape(const Tensor& x, std::initializer_list<int64_t> shape, const Tensor& like, const char* message) {
  bool same = x.dim() == int64_t(shape.size()) && x.scalar_type() == like.scalar_type();
  int64_t d = 0;
  for (const int64_t size : shape) same = same && x.size(d++) == size;
  STD_TORCH_CHECK(same, message);
}

template <typename On>
Result forward(const Tensor& cost_, const Tensor& a_, const Tensor& b_, const std::optional<Tensor>& mass_, const std::optional<Tensor>& f0_,
               const std::optional<Tensor>& g0_, double eps, int64_t max_iter, double tol) {
  STD_TORCH_CHECK(cost_.dim() == 3 && cost_.size(1) > 0 && cost_.size(2) > 0, "sinkhorn: expected cost (B, n, m), n and m positive");
  const int64_t B = cost_.size(0), n = cost_.size(1), m = cost_.size(2);
  check_shape(a_, {B, n}, cost_, "sinkhorn: expected a (B, n) of the cost's dtype");
  check_shape(b_, {B, m}, cost_, "sinkhorn: expected b (B, m) of the cost's dtype");
  STD_TORCH_CHECK(f0_.has_value() == g0_.has_value(), "sinkhorn: expected f0 and g0 or neither");
  if (mass_.has_value()) check_shape(*mass_, {B}, cost_, "sinkhorn: expected mass (B) of the cost's dtype");
  if (f0_.has_value()) {
    check_shape(*f0_, {B, n}, cost_, "sinkhorn: expected f0 (B, n) of the cost's dtype");
    check_shape(*g0_, {B, m}, cost_, "sinkhorn: expected g0 (B, m) of the cost's dtype");
  }
  const On on(cost_);
  const Tensor cost = torch::stable::contiguous(cost_), a = torch::stable::contiguous(a_), b = torch::stable::contiguous(b_);
  const auto mass = contiguous(mass_), f0 = contiguous(f0_), g0 = contiguous(g0_);
  const Tensor plan = torch::stable::empty_like(cost), f = torch::stable::empty_like(a), g = torch::stable::empty_like(b);
  const Tensor h = torch::stable::new_empty(cost, {B}), error = torch::stable::new_empty(cost, {B});
  const Tensor iterations = torch::stable::new_empty(cost, {B}, ScalarType::Int), converged = torch::stable::new_empty(cost, {B}, ScalarType::Bool);
  dispatch_float(cost, "sinkhorn", [&](auto t) {
    using T = decltype(t);
    const SinkhornProblems<T> q{data<T>(cost), data<T>(a), data<T>(b), data_or_null<T>(mass), data_or_null<T>(f0), data_or_null<T>(g0),
                                out<T>(plan), out<T>(f), out<T>(g), out<T>(h), out<T>(error), out<int32_t>(iterations), out<bool>(converged),
                                n, m, eps, tol, max_iter};
    if constexpr (On::cuda) {
      int64_t bytes = 0;
      on.check("sinkhorn", sinkhorn_workspace<T>(n, m, B, &bytes));
      const Tensor workspace = torch::stable::new_empty(cost, {bytes}, ScalarType::Byte);
      on.check("sinkhorn", sinkhorn_cuda(q, B, bytes ? workspace.mutable_data_ptr() : nullptr, on.stream()));
    } else {
      STD_TORCH_CHECK(false, "sinkhorn: no CPU kernel");
    }
  });
  return {plan, f, g, h, error, iterations, converged};
}

template <typename On>
Gradients backward(const Tensor& grad_log_plan_, const Tensor& plan_, const Tensor& a_, const Tensor& b_, const std::optional<Tensor>& mass_,
                   const Tensor& f_, const Tensor& g_, double eps) {
  STD_TORCH_CHECK(plan_.dim() == 3 && plan_.size(1) > 0 && plan_.size(2) > 0, "sinkhorn_backward: expected plan (B, n, m), n and m positive");
  const int64_t B = plan_.size(0), n = plan_.size(1), m = plan_.size(2);
  check_shape(grad_log_plan_, {B, n, m}, plan_, "sinkhorn_backward: expected grad_log_plan of the plan's shape and dtype");
  for (const Tensor* x : {&a_, &f_}) check_shape(*x, {B, n}, plan_, "sinkhorn_backward: expected a and f (B, n) of the plan's dtype");
  for (const Tensor* x : {&b_, &g_}) check_shape(*x, {B, m}, plan_, "sinkhorn_backward: expected b and g (B, m) of the plan's dtype");
  if (mass_.has_value()) check_shape(*mass_, {B}, plan_, "sinkhorn_backward: expected mass (B) of the plan's dtype");
  const On on(plan_);
  const Tensor grad_log_plan = torch::stable::contiguous(grad_log_plan_), plan = torch::stable::contiguous(plan_);
  const Tensor a = torch::stable::contiguous(a_), b = torch::stable::contiguous(b_);
  const Tensor f = torch::stable::contiguous(f_), g = torch::stable::contiguous(g_);
  const auto mass = contiguous(mass_);
  const Tensor grad_cost = torch::stable::empty_like(plan), grad_a = torch::stable::empty_like(a), grad_b = torch::stable::empty_like(b);
  const Tensor grad_mass = torch::stable::new_empty(plan, {B});
  dispatch_float(plan, "sinkhorn_backward", [&](auto t) {
    using T = decltype(t);
    const SinkhornGradients<T> q{data<T>(grad_log_plan), data<T>(plan), data<T>(a), data<T>(b), data_or_null<T>(mass), data<T>(f), data<T>(g),
                                 out<T>(grad_cost), out<T>(grad_a), out<T>(grad_b), out<T>(grad_mass), n, m, eps};
    if constexpr (On::cuda) {
      int64_t bytes = 0;
      on.check("sinkhorn_backward", sinkhorn_backward_workspace<T>(n, m, B, &bytes));
      const Tensor workspace = torch::stable::new_empty(plan, {bytes}, ScalarType::Byte);
      on.check("sinkhorn_backward", sinkhorn_backward_cuda(q, B, bytes ? workspace.mutable_data_ptr() : nullptr, on.stream()));
    } else {
      STD_TORCH_CHECK(false, "sinkhorn_backward: no CPU kernel");
    }
  });
  return {grad_cost, grad_a, grad_b, grad_mass};
}

template <typename On>
void ops(Library& m) {
  if constexpr (!On::cuda) return;
  m.impl(On::op("sinkhorn"), TORCH_BOX(&forward<On>));
  m.impl(On::op("sinkhorn_backward"), TORCH_BOX(&backward<On>));
}
TS_REGISTER(ops)

}  // namespace
}  // namespace transphere
