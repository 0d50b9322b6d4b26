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

// f(T{}, Z{}) with T the type of the laws, Z that of the draws.
template <typename F>
void dispatch_storage(const Tensor& mu, const Tensor& z, const char* op, F&& f) {
  const ScalarType of_mu = mu.scalar_type(), of_z = z.scalar_type();
  if (of_z == of_mu) return dispatch_float(mu, op, [&](auto t) { f(t, t); });
  STD_TORCH_CHECK(of_mu == ScalarType::Float, op, ": expected draws in float64 of laws in float64");
  if (of_z == ScalarType::BFloat16) return f(float{}, BFloat16{});
  if (of_z == ScalarType::Half) return f(float{}, Half{});
  STD_TORCH_CHECK(false, op, ": expected draws in float32, bfloat16 or float16 of laws in float32");
}

template <typename On>
std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& mu_, const Tensor& kappa_, const Tensor& seed_, int64_t L, bool /*pathwise*/,
                                           int64_t offset, std::optional<ScalarType> dtype) {
  const On on(mu_);
  const Laws p = laws(mu_, kappa_);
  STD_TORCH_CHECK(L >= 0, "vmf_sample: expected n_samples >= 0, got ", L);
  STD_TORCH_CHECK(seed_.scalar_type() == ScalarType::Long && seed_.numel() == 2, "vmf_sample: expected seed of two int64 words");
  const Tensor seed = torch::stable::contiguous(seed_);
  const int64_t* words = data<int64_t>(seed);
  const Tensor z = torch::stable::new_empty(p.mu, {p.B, L, p.d}, dtype.value_or(p.mu.scalar_type()));
  const Tensor w = torch::stable::new_empty(p.mu, {p.B, L}), v = torch::stable::new_empty(p.mu, {p.B, L});
  dispatch_storage(p.mu, z, "vmf_sample", [&](auto t, auto s) {
    using T = decltype(t);
    using Z = decltype(s);
    const T *mu = data<T>(p.mu), *kappa = data<T>(p.kappa);
    Z* zp = static_cast<Z*>(z.mutable_data_ptr());
    T *wp = out<T>(w), *vp = out<T>(v);
    if constexpr (On::cuda) {
      on.check("vmf_sample", vmf_sample_cuda(mu, kappa, words, offset, zp, wp, vp, p.B, L, p.d, on.stream()));
    } else {
      const PhiloxKey key{uint32_t(words[0]), uint32_t(words[1])};
      parallel(p.B * L, 60 + p.d, [&](int64_t b, int64_t e) { vmf_sample_cpu(mu, kappa, key, offset, zp, wp, vp, L, p.d, b, e); });
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
  STD_TORCH_CHECK(grad_z.scalar_type() == z.scalar_type(), "vmf_sample_backward: expected grad_z and z of one dtype");
  const int64_t L = z.size(1), chunks = (L + kBackwardChunk - 1) / kBackwardChunk;
  if (L == 0) return {torch::stable::new_zeros(p.mu, {p.B, p.d}), torch::stable::new_zeros(p.mu, {p.B})};
  const Tensor grad_mu = torch::stable::new_empty(p.mu, {p.B, p.d}), grad_kappa = torch::stable::new_empty(p.mu, {p.B});
  dispatch_storage(p.mu, z, "vmf_sample_backward", [&](auto t, auto s) {
    using T = decltype(t);
    using Z = decltype(s);
    const Z *G = static_cast<const Z*>(grad_z.const_data_ptr()), *zp = static_cast<const Z*>(z.const_data_ptr());
    const T *wp = data<T>(w), *vp = data<T>(v), *mu = data<T>(p.mu), *kappa = data<T>(p.kappa);
    T *gm = out<T>(grad_mu), *gk = out<T>(grad_kappa);
    if constexpr (On::cuda) {
      on.check("vmf_sample_backward", vmf_sample_backward_cuda(G, zp, wp, vp, mu, kappa, pathwise, gm, gk, p.B, L, p.d, on.stream()));
    } else {
      // With one chunk a law the partial sums are the sums.
      const Tensor sum_mu = chunks == 1 ? grad_mu : torch::stable::new_empty(p.mu, {p.B * chunks, p.d});
      const Tensor sum_kappa = chunks == 1 ? grad_kappa : torch::stable::new_empty(p.mu, {p.B * chunks});
      T *sm = out<T>(sum_mu), *sk = out<T>(sum_kappa);
      parallel(p.B * chunks, std::min(L, kBackwardChunk) * (40 + p.d / 4),
               [&](int64_t b, int64_t e) { vmf_sample_backward_cpu(G, zp, wp, vp, mu, kappa, pathwise, sm, sk, L, p.d, b, e); });
      parallel(p.B, chunks * p.d / 4, [&](int64_t b, int64_t e) { vmf_sample_reduce_cpu(sm, sk, mu, gm, gk, chunks, p.d, b, e); });
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
