#include "sinkhorn.h"

#include "ops/common.h"

namespace transphere {
namespace {

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using Optional = std::optional<Tensor>;

void check_weights(const Tensor& plan, const Tensor& a, const Tensor& b, const Optional& mass, const char* op) {
  STD_TORCH_CHECK(plan.dim() == 3 && plan.size(1) > 0 && plan.size(2) > 0, op, ": expected matrices (B, n, m) with n, m >= 1");
  const int64_t B = plan.size(0), n = plan.size(1), m = plan.size(2);
  STD_TORCH_CHECK(a.dim() == 2 && a.size(0) == B && a.size(1) == n && b.dim() == 2 && b.size(0) == B && b.size(1) == m, op,
                  ": expected weights of shapes (B, n) and (B, m)");
  STD_TORCH_CHECK(!mass.has_value() || (mass->dim() == 1 && mass->size(0) == B), op, ": expected mass of shape (B)");
  STD_TORCH_CHECK(a.scalar_type() == plan.scalar_type() && b.scalar_type() == plan.scalar_type() &&
                      (!mass.has_value() || mass->scalar_type() == plan.scalar_type()), op, ": expected one dtype");
}

Tensor contiguous_or(const Optional& x, const Tensor& other) { return x.has_value() ? torch::stable::contiguous(*x) : other; }

// All of [0, count), on torch's threads; inside of a parallel region it is a plain loop.
[[maybe_unused]] void split(int64_t count, const Range& f) { torch::stable::parallel_for(0, count, 1, f); }

template <typename On>
Result forward(const Tensor& cost_, const Tensor& a_, const Tensor& b_, const Optional& mass_, const Optional& f0_, const Optional& g0_,
               double eps, int64_t max_iter, double tol) {
  check_weights(cost_, a_, b_, mass_, "sinkhorn");
  STD_TORCH_CHECK(f0_.has_value() == g0_.has_value(), "sinkhorn: expected both potentials to start from or neither");
  const On on(cost_);
  const Tensor cost = torch::stable::contiguous(cost_), a = torch::stable::contiguous(a_), b = torch::stable::contiguous(b_);
  const Tensor mass = contiguous_or(mass_, cost), f0 = contiguous_or(f0_, cost), g0 = contiguous_or(g0_, cost);
  const int64_t B = cost.size(0), n = cost.size(1), m = cost.size(2);
  if (f0_.has_value()) {
    STD_TORCH_CHECK(f0.dim() == 2 && f0.size(0) == B && f0.size(1) == n && g0.dim() == 2 && g0.size(0) == B && g0.size(1) == m,
                    "sinkhorn: expected potentials of shapes (B, n) and (B, m)");
    STD_TORCH_CHECK(f0.scalar_type() == cost.scalar_type() && g0.scalar_type() == cost.scalar_type(), "sinkhorn: expected one dtype");
  }
  const Tensor plan = torch::stable::empty_like(cost), f = torch::stable::empty_like(a), g = torch::stable::empty_like(b);
  const Tensor h = torch::stable::new_empty(cost, {B}), error = torch::stable::new_empty(cost, {B});
  const Tensor iterations = torch::stable::new_empty(cost, {B}, ScalarType::Int);
  const Tensor converged = torch::stable::new_empty(cost, {B}, ScalarType::Bool);
  dispatch_float(cost, "sinkhorn", [&](auto t) {
    using T = decltype(t);
    const SinkhornProblems<T> q{data<T>(cost), data<T>(a), data<T>(b), mass_.has_value() ? data<T>(mass) : nullptr,
                                f0_.has_value() ? data<T>(f0) : nullptr, g0_.has_value() ? data<T>(g0) : nullptr,
                                out<T>(plan), out<T>(f), out<T>(g), out<T>(h), out<T>(error), out<int32_t>(iterations),
                                out<bool>(converged), n, m, eps, tol, max_iter};
    if constexpr (On::cuda) {
      STD_TORCH_CHECK(n * m < INT32_MAX, "sinkhorn: expected matrices of less than 2^31 entries");
      int64_t bytes = 0;
      on.check("sinkhorn", sinkhorn_workspace<T>(n, m, B, &bytes));
      const Tensor workspace = torch::stable::new_empty(cost, {bytes}, ScalarType::Byte);
      on.check("sinkhorn", sinkhorn_cuda(q, B, workspace.mutable_data_ptr(), on.stream()));
    } else {
      parallel(B, 4 * n * m, [&](int64_t begin, int64_t end) { sinkhorn_cpu(q, begin, end, split); });
    }
  });
  return {plan, f, g, h, error, iterations, converged};
}

template <typename On>
std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_log_plan_, const Tensor& plan_, const Tensor& a_, const Tensor& b_,
                                                    const Optional& mass_, const Tensor& f_, const Tensor& g_, double eps) {
  check_weights(plan_, a_, b_, mass_, "sinkhorn_backward");
  check_weights(grad_log_plan_, f_, g_, mass_, "sinkhorn_backward");
  for (int64_t d = 0; d < 3; ++d)
    STD_TORCH_CHECK(grad_log_plan_.size(d) == plan_.size(d), "sinkhorn_backward: expected a gradient like the plan");
  STD_TORCH_CHECK(grad_log_plan_.scalar_type() == plan_.scalar_type(), "sinkhorn_backward: expected one dtype");
  const On on(plan_);
  const Tensor H = torch::stable::contiguous(grad_log_plan_), plan = torch::stable::contiguous(plan_);
  const Tensor a = torch::stable::contiguous(a_), b = torch::stable::contiguous(b_), mass = contiguous_or(mass_, plan);
  const Tensor f = torch::stable::contiguous(f_), g = torch::stable::contiguous(g_);
  const int64_t B = plan.size(0), n = plan.size(1), m = plan.size(2);
  const Tensor grad_cost = torch::stable::empty_like(plan), grad_a = torch::stable::empty_like(a), grad_b = torch::stable::empty_like(b);
  const Tensor grad_mass = torch::stable::new_empty(plan, {B});
  dispatch_float(plan, "sinkhorn_backward", [&](auto t) {
    using T = decltype(t);
    const SinkhornGradients<T> q{data<T>(H), data<T>(plan), data<T>(a), data<T>(b), mass_.has_value() ? data<T>(mass) : nullptr, data<T>(f),
                                 data<T>(g), out<T>(grad_cost), out<T>(grad_a), out<T>(grad_b), out<T>(grad_mass), n, m, eps};
    if constexpr (On::cuda) {
      STD_TORCH_CHECK(n * m < INT32_MAX, "sinkhorn_backward: expected matrices of less than 2^31 entries");
      int64_t bytes = 0;
      on.check("sinkhorn_backward", sinkhorn_backward_workspace<T>(n, m, B, &bytes));
      const Tensor workspace = torch::stable::new_empty(plan, {bytes}, ScalarType::Byte);
      on.check("sinkhorn_backward", sinkhorn_backward_cuda(q, B, workspace.mutable_data_ptr(), on.stream()));
    } else {
      parallel(B, 4 * n * m, [&](int64_t begin, int64_t end) { sinkhorn_backward_cpu(q, begin, end, split); });
    }
  });
  return {grad_cost, grad_a, grad_b, grad_mass};
}

template <typename On>
void ops(Library& m) {
  m.impl(On::op("sinkhorn"), TORCH_BOX(&forward<On>));
  m.impl(On::op("sinkhorn_backward"), TORCH_BOX(&backward<On>));
}
TS_REGISTER(ops)

}  // namespace
}  // namespace transphere
