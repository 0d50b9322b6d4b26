#include "sliced_wasserstein.h"

#include <algorithm>

#include "ops/common.h"

namespace transphere {
namespace {

void check(const char* op, const Tensor& u, const Tensor& v) {
  STD_TORCH_CHECK(u.dim() == 3 && v.dim() == 3 && u.size(0) == v.size(0) && u.size(1) == v.size(1) && u.size(2) == v.size(2) && u.size(2) % 2 == 0,
                  op, ": expected u and v of one shape (B, n, 2P)");
  STD_TORCH_CHECK(u.scalar_type() == v.scalar_type(), op, ": expected u and v of one dtype");
  STD_TORCH_CHECK(u.size(1) > 0 && u.size(1) <= kSlicedPoints, op, ": expected between 1 and ", kSlicedPoints,
                  " points a set");
}

template <typename On>
std::tuple<Tensor, Tensor> forward(const Tensor& u_, const Tensor& v_, double) {
  check("sliced_wasserstein", u_, v_);
  const On on(u_);
  const Tensor u = torch::stable::contiguous(u_), v = torch::stable::contiguous(v_);
  const int64_t B = u.size(0), n = u.size(1), P = u.size(2) / 2, problems = B * P;
  const Tensor cost = torch::stable::new_empty(u, {B, P});
  const Tensor rises = torch::stable::new_empty(u, {B, (2 * n + 7) / 8, P}, ScalarType::Byte);
  dispatch_float(u, "sliced_wasserstein", [&](auto t) {
    using T = decltype(t);
    CircularProblems<T> q{data<T>(u), data<T>(v), nullptr, nullptr, out<T>(cost), nullptr, nullptr, nullptr, nullptr, n, n, P};
    q.rises = out<uint8_t>(rises);
    if constexpr (On::cuda) {
      on.check("sliced_wasserstein", circular_wasserstein_cuda(q, problems, nullptr, on.stream()));
    } else {
      const int64_t tiles = (problems + kCircularColumns - 1) / kCircularColumns;
      parallel(tiles, kCircularColumns * 2 * n * 4, [&](int64_t b, int64_t e) {
        circular_wasserstein_cpu(q, b * kCircularColumns, std::min(e * kCircularColumns, problems));
      });
    }
  });
  return {cost, rises};
}

template <typename On>
std::tuple<Tensor, Tensor> backward(const Tensor& grad_cost_, const Tensor& cost_, const Tensor& rises_, const Tensor& u_, const Tensor& v_,
                                    double max_grad) {
  check("sliced_wasserstein_backward", u_, v_);
  STD_TORCH_CHECK(grad_cost_.scalar_type() == u_.scalar_type() && cost_.scalar_type() == u_.scalar_type(),
                  "sliced_wasserstein_backward: expected grad_cost, cost, u and v of one dtype");
  const On on(u_);
  const Tensor grad_cost = torch::stable::contiguous(grad_cost_), cost = torch::stable::contiguous(cost_);
  const Tensor rises = torch::stable::contiguous(rises_), u = torch::stable::contiguous(u_), v = torch::stable::contiguous(v_);
  const Tensor grad_u = torch::stable::empty_like(u), grad_v = torch::stable::empty_like(v);
  const int64_t rows = u.size(0) * u.size(1), P = u.size(2) / 2;
  dispatch_float(u, "sliced_wasserstein_backward", [&](auto t) {
    using T = decltype(t);
    const SlicedGradients<T> q{data<T>(grad_cost), data<T>(cost), data<uint8_t>(rises), data<T>(u), data<T>(v),
                               out<T>(grad_u),     out<T>(grad_v), u.size(1),           P,          T(max_grad)};
    if constexpr (On::cuda)
      on.check("sliced_wasserstein_backward", sliced_wasserstein_backward_cuda(q, rows, on.stream()));
    else
      parallel(rows, 2 * P, [&](int64_t b, int64_t e) { sliced_wasserstein_backward_cpu(q, b, e); });
  });
  return {grad_u, grad_v};
}

template <typename On>
void ops(Library& m) {
  m.impl(On::op("sliced_wasserstein"), TORCH_BOX(&forward<On>));
  m.impl(On::op("sliced_wasserstein_backward"), TORCH_BOX(&backward<On>));
}
TS_REGISTER(ops)

}  // namespace
}  // namespace transphere
