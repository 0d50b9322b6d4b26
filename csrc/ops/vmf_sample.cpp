#include "vmf_sample.h"

#include "ops/common.h"

namespace transphere {
namespace {

struct Laws {
  Tensor mu, kappa;
  int64_t B, d;
};

Laws laws(const Tensor& mu, const Tensor& kappa) {
  STD_TORCH_CHECK(mu.dim() == 2 && mu.size(1) >= 2, "vmf_sample: expected mu of shape (B, d) with d >= 2");
  STD_TORCH_CHECK(kappa.dim() == 1 && kappa.size(0) == mu.size(0), "vmf_sample: expected kappa of shape (B,)");
  STD_TORCH_CHECK(kappa.scalar_type() == mu.scalar_type(), "vmf_sample: expected mu and kappa of one dtype");
  return {torch::stable::contiguous(mu), torch::stable::contiguous(kappa), mu.size(0), mu.size(1)};
}

template <typename On>
std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& mu_, const Tensor& kappa_, const Tensor& seed_, int64_t L, bool /*pathwise*/) {
  const On on(mu_);
  const Laws p = laws(mu_, kappa_);
  STD_TORCH_CHECK(L >= 0, "vmf_sample: expected n_samples >= 0, got ", L);
  STD_TORCH_CHECK(seed_.scalar_type() == ScalarType::Long && seed_.numel() == 2, "vmf_sample: expected seed of two int64 words");
  const Tensor seed = torch::stable::contiguous(seed_);
  const int64_t* words = data<int64_t>(seed);
  const Tensor z = torch::stable::new_empty(p.mu, {p.B, L, p.d});
  const Tensor w = torch::stable::new_empty(p.mu, {p.B, L}), v = torch::stable::new_empty(p.mu, {p.B, L});
  dispatch_float(p.mu, "vmf_sample", [&](auto t) {
    using T = decltype(t);
    const T *mu = data<T>(p.mu), *kappa = data<T>(p.kappa);
    T *zp = out<T>(z), *wp = out<T>(w), *vp = out<T>(v);
    if constexpr (On::cuda) {
      on.check("vmf_sample", vmf_sample_cuda(mu, kappa, words, zp, wp, vp, p.B, L, p.d, on.stream()));
    } else {
      const PhiloxKey key{uint32_t(words[0]), uint32_t(words[1])};
      parallel(p.B * L, 50 + p.d, [&](int64_t b, int64_t e) { vmf_sample_cpu(mu, kappa, key, zp, wp, vp, L, p.d, b, e); });
    }
  });
  return {z, w, v};
}

template <typename On>
std::tuple<Tensor, Tensor> backward(const Tensor& grad_z_, const Tensor& z_, const Tensor& w_, const Tensor& v_, const Tensor& mu_,
                                    const Tensor& kappa_, bool pathwise) {
  const On on(mu_);
  const Laws p = laws(mu_, kappa_);
  const Tensor grad_z = torch::stable::contiguous(grad_z_), z = torch::stable::contiguous(z_);
  const Tensor w = torch::stable::contiguous(w_), v = torch::stable::contiguous(v_);
  const int64_t L = z.size(1), chunks = (L + kBackwardChunk - 1) / kBackwardChunk;
  if (L == 0) return {torch::stable::new_zeros(p.mu, {p.B, p.d}), torch::stable::new_zeros(p.mu, {p.B})};
  const Tensor grad_mu = torch::stable::new_empty(p.mu, {p.B, p.d}), grad_kappa = torch::stable::new_empty(p.mu, {p.B});
  dispatch_float(p.mu, "vmf_sample_backward", [&](auto t) {
    using T = decltype(t);
    const T *G = data<T>(grad_z), *zp = data<T>(z), *wp = data<T>(w), *vp = data<T>(v), *mu = data<T>(p.mu), *kappa = data<T>(p.kappa);
    T *gm = out<T>(grad_mu), *gk = out<T>(grad_kappa);
    if constexpr (On::cuda) {
      on.check("vmf_sample_backward", vmf_sample_backward_cuda(G, zp, wp, vp, mu, kappa, pathwise, gm, gk, p.B, L, p.d, on.stream()));
    } else {
      const Tensor sum_mu = torch::stable::new_empty(p.mu, {p.B * chunks, p.d}), sum_kappa = torch::stable::new_empty(p.mu, {p.B * chunks});
      T *sm = out<T>(sum_mu), *sk = out<T>(sum_kappa);
      parallel(p.B * chunks, std::min(L, kBackwardChunk) * (50 + p.d / 2),
               [&](int64_t b, int64_t e) { vmf_sample_backward_cpu(G, zp, wp, vp, mu, kappa, pathwise, sm, sk, L, p.d, b, e); });
      parallel(p.B, chunks * p.d, [&](int64_t b, int64_t e) { vmf_sample_reduce_cpu(sm, sk, mu, gm, gk, chunks, p.d, b, e); });
    }
  });
  return {grad_mu, grad_kappa};
}

template <typename On>
void ops(Library& m) {
  m.impl(On::op("vmf_sample"), TORCH_BOX(&forward<On>));
  m.impl(On::op("vmf_sample_backward"), TORCH_BOX(&backward<On>));
}
TS_REGISTER(ops)

}  // namespace

}  // namespace transphere
