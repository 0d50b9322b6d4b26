#include "circular_wasserstein_power.h"

#include <cmath>

#include "ops/common.h"

namespace transphere {
namespace {

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename On>
Result forward(const Tensor& u_, const Tensor& v_, const std::optional<Tensor>& u_weights_, const std::optional<Tensor>& v_weights_,
               double p) {
  STD_TORCH_CHECK(u_.dim() == 3 && v_.dim() == 3 && u_.size(0) == v_.size(0) && u_.size(2) == v_.size(2),
                  "circular_wasserstein_power: expected u (B, n, P) and v (B, m, P)");
  STD_TORCH_CHECK(u_.scalar_type() == v_.scalar_type(), "circular_wasserstein_power: expected u and v of one dtype");
  STD_TORCH_CHECK(u_weights_.has_value() == v_weights_.has_value(), "circular_wasserstein_power: expected both weights or neither");
  const int64_t B = u_.size(0), n = u_.size(1), m = v_.size(1), P = u_.size(2);
  STD_TORCH_CHECK(n > 0 && m > 0 && n < 1 << 30 && m < 1 << 30, "circular_wasserstein_power: expected between 1 and 2^30 points a set");
  STD_TORCH_CHECK(p > 1 && p < HUGE_VAL, "circular_wasserstein_power: expected a finite p > 1");
  const On on(u_);
  const Tensor u = torch::stable::contiguous(u_), v = torch::stable::contiguous(v_);
  const bool weighted = u_weights_.has_value();
  if (weighted) {
    STD_TORCH_CHECK(u_weights_->dim() == 2 && u_weights_->size(0) == B && u_weights_->size(1) == n && v_weights_->dim() == 2 &&
                        v_weights_->size(0) == B && v_weights_->size(1) == m,
                    "circular_wasserstein_power: expected weights of shapes (B, n) and (B, m)");
    STD_TORCH_CHECK(u_weights_->scalar_type() == u.scalar_type() && v_weights_->scalar_type() == u.scalar_type(),
                    "circular_wasserstein_power: expected points and weights of one dtype");
  }
  const Tensor u_weights = weighted ? torch::stable::contiguous(*u_weights_) : u;
  const Tensor v_weights = weighted ? torch::stable::contiguous(*v_weights_) : v;
  const Tensor distance = torch::stable::new_empty(u, {B, P});
  const Tensor u_slope = torch::stable::empty_like(u), v_slope = torch::stable::empty_like(v);
  const Tensor u_potential = weighted ? torch::stable::empty_like(u) : torch::stable::new_empty(u, {0});
  const Tensor v_potential = weighted ? torch::stable::empty_like(v) : torch::stable::new_empty(v, {0});
  dispatch_float(u, "circular_wasserstein_power", [&](auto t) {
    using T = decltype(t);
    CircularPowerProblems<T> q{data<T>(u),      data<T>(v), nullptr, nullptr, out<T>(distance), out<T>(u_slope),
                               out<T>(v_slope), nullptr,    nullptr, n,       m,                P,               p};
    if (weighted) {
      q.u_weights = data<T>(u_weights), q.v_weights = data<T>(v_weights);
      q.u_potential = out<T>(u_potential), q.v_potential = out<T>(v_potential);
    }
    const int64_t problems = B * P;
    if constexpr (On::cuda) {
      const int64_t bytes = circular_wasserstein_power_workspace(n, m, problems);
      const Tensor workspace = torch::stable::new_empty(u, {bytes / int64_t(sizeof(T))});
      void* const memory = bytes ? out<T>(workspace) : nullptr;
      on.check("circular_wasserstein_power", circular_wasserstein_power_cuda(q, problems, memory, on.stream()));
    } else {
      parallel(problems, (n + m) * (p == 2 ? 20 : 100), [&](int64_t b, int64_t e) { circular_wasserstein_power_cpu(q, b, e); });
    }
  });
  return {distance, u_slope, v_slope, u_potential, v_potential};
}

template <typename On>
void ops(Library& m) {
  m.impl(On::op("circular_wasserstein_power"), TORCH_BOX(&forward<On>));
}
TS_REGISTER(ops)

}  // namespace
}  // namespace transphere
