#include "symmetric_part.h"

#include "ops/common.h"

namespace transphere {
namespace {

template <typename On>
Tensor forward(const Tensor& M_) {
  STD_TORCH_CHECK(M_.dim() == 3 && M_.size(1) == M_.size(2), "symmetric_part: expected M of shape (B, d, d)");
  const On on(M_);
  const Tensor M = torch::stable::contiguous(M_), S = torch::stable::empty_like(M);
  const int64_t B = M.size(0), d = M.size(1);
  dispatch_float(M, "symmetric_part", [&](auto t) {
    using T = decltype(t);
    const T* x = data<T>(M);
    T* r = out<T>(S);
    if constexpr (On::cuda)
      on.check("symmetric_part", symmetric_part_cuda(x, r, B, d, on.stream()));
    else
      parallel(d ? TilePairs{d}.count(B) : 0, kTile * kTile / 2, [&](int64_t b, int64_t e) { symmetric_part_cpu(x, r, d, b, e); });
  });
  return S;
}

template <typename On>
void ops(Library& m) {
  m.impl(On::op("symmetric_part"), TORCH_BOX(&forward<On>));
}
TS_REGISTER(ops)

}  // namespace
}  // namespace transphere
