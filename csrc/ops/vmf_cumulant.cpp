#include "vmf_cumulant.h"

#include "ops/common.h"

namespace transphere {
namespace {

template <typename On>
Tensor forward(const Tensor& kappa_, int64_t d, int64_t order) {
  STD_TORCH_CHECK(d >= 2, "vmf_cumulant: expected d >= 2, got ", d);
  STD_TORCH_CHECK(order >= kDivergence && order <= 4, "vmf_cumulant: expected order -1 to 4, got ", order);
  const On on(kappa_);
  const Tensor kappa = torch::stable::contiguous(kappa_), result = torch::stable::empty_like(kappa);
  VmfDimension o(d);
  if (order <= 0) o.prepare_logarithm();
  dispatch_float(kappa, "vmf_cumulant", [&](auto t) {
    using T = decltype(t);
    const T* k = data<T>(kappa);
    T* r = out<T>(result);
    if constexpr (On::cuda)
      on.check("vmf_cumulant", vmf_cumulant_cuda(k, r, kappa.numel(), o, int(order), on.stream()));
    else
      parallel(kappa.numel(), 10 + o.steps, [&](int64_t b, int64_t e) { vmf_cumulant_cpu(k, r, o, int(order), b, e); });
  });
  return result;
}

template <typename On>
void ops(Library& m) {
  m.impl(On::op("vmf_cumulant"), TORCH_BOX(&forward<On>));
}
TS_REGISTER(ops)

}  // namespace
}  // namespace transphere
