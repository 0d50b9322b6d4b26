#include "circular_wasserstein.h"

#include <algorithm>

#include "ops/common.h"

namespace transphere {
namespace {

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename On>
Result forward(const Tensor& u_, const Tensor& v_, const std::optional<Tensor>& u_weights_, const std::optional<Tensor>& v_weights_) {
  STD_TORCH_CHECK(u_.dim() == 3 && v_.dim() == 3 && u_.size(0) == v_.size(0) && u_.size(2) == v_.size(2),
                  "circular_wasserstein: expected u (B, n, P) and v (B, m, P)");
  STD_TORCH_CHECK(u_.scalar_type() == v_.scalar_type(), "circular_wasserstein: expected u and v of one dtype");
  STD_TORCH_CHECK(u_weights_.has_value() == v_weights_.has_value(), "circular_wasserstein: expected both weights or neither");
  const int64_t B = u_.size(0), n = u_.size(1), m = v_.size(1), P = u_.size(2);
  STD_TORCH_CHECK(n > 0 && m > 0 && n + m < INT32_MAX, "circular_wasserstein: expected between 1 and 2^31 points a set");
  const On on(u_);
  const Tensor u = torch::stable::contiguous(u_), v = torch::stable::contiguous(v_);
  const bool weighted = u_weights_.has_value();
  if (weighted) {
    STD_TORCH_CHECK(u_weights_->dim() == 2 && u_weights_->size(0) == B && u_weights_->size(1) == n && v_weights_->dim() == 2 &&
                        v_weights_->size(0) == B && v_weights_->size(1) == m,
                    "circular_wasserstein: expected weights of shapes (B, n) and (B, m)");
    STD_TORCH_CHECK(u_weights_->scalar_type() == u.scalar_type() && v_weights_->scalar_type() == u.scalar_type(),
                    "circular_wasserstein: expected points and weights of one dtype");
  }
  const Tensor u_weights = weighted ? torch::stable::contiguous(*u_weights_) : u, v_weights = weighted ? torch::stable::contiguous(*v_weights_) : v;
  const Tensor cost = torch::stable::new_empty(u, {B, P}), u_slope = torch::stable::empty_like(u), v_slope = torch::stable::empty_like(v);
  const Tensor u_potential = weighted ? torch::stable::empty_like(u) : torch::stable::new_empty(u, {0});
  const Tensor v_potential = weighted ? torch::stable::empty_like(v) : torch::stable::new_empty(v, {0});
  dispatch_float(u, "circular_wasserstein", [&](auto t) {
    using T = decltype(t);
    CircularProblems<T> q{data<T>(u), data<T>(v), nullptr, nullptr, out<T>(cost), out<T>(u_slope), out<T>(v_slope), nullptr, nullptr, n, m, P};
    if (weighted) {
      q.u_weights = data<T>(u_weights), q.v_weights = data<T>(v_weights);
      q.u_potential = out<T>(u_potential), q.v_potential = out<T>(v_potential);
    }
    const int64_t problems = B * P;
    if constexpr (On::cuda) {
      const int64_t bytes = circular_wasserstein_workspace<T>(n + m, problems);
      const Tensor workspace = torch::stable::new_empty(u, {bytes / int64_t(sizeof(T))});
      on.check("circular_wasserstein", circular_wasserstein_cuda(q, problems, bytes ? out<T>(workspace) : nullptr, on.stream()));
    } else if (n + m <= kCircularColumnPoints) {
      const int64_t tiles = (problems + kCircularColumns - 1) / kCircularColumns;
      parallel(tiles, kCircularColumns * (n + m) * 3, [&](int64_t b, int64_t e) {
        circular_wasserstein_cpu(q, b * kCircularColumns, std::min(e * kCircularColumns, problems));
      });
    } else if (problems < threads()) {
      circular_wasserstein_large_cpu(q, 0, problems, team((n + m) * 6));
    } else {
      parallel(problems, (n + m) * 6, [&](int64_t b, int64_t e) { circular_wasserstein_large_cpu(q, b, e, Team{}); });
    }
  });
  return {cost, u_slope, v_slope, u_potential, v_potential};
}

template <typename On>
void ops(Library& m) {
  m.impl(On::op("circular_wasserstein"), TORCH_BOX(&forward<On>));
}
TS_REGISTER(ops)

}  // namespace
}  // namespace transphere
