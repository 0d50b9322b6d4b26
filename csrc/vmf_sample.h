// Draws from von Mises-Fisher laws, and their gradients.
//
//   mu      (B, d)     unit mean directions
//   kappa   (B,)       concentrations, 0 .. infinity
//   z       (B, L, d)  draws; Z is T, or a type of 16 bits over T = float, which is then only the type of storage
//   w       (B, L)     mu . z
//   v       (B, L)     1 - w^2, kept apart because w rounds to 1 where kappa is large
//
// Draw i of the B * L, in row-major order, is sample number offset + i. One Gaussian vector g a draw, from philox(block, normal stream,
// sample): block j of q = ceil(d/4) gives, by two Box-Muller pairs, the coordinates j, j + q, j + 2q, j + 3q, so that kernels write whole
// vectors. g0 gives w (wood.h); the rest, as a tangent vector at e1, is carried to mu by the reflection that swaps e1 and -sign(mu0) mu,
// which is singular nowhere:
//   z0 = w mu0 + r D,  zi = (w + s r D / (1 + |mu0|)) mui - s r gi,  D = sum_i>0 gi mui, r = sqrt(1 - w^2) / |g_1..|, s = sign(mu0).
//
// Backward, with G the incoming gradient:
//   grad_mu = P_mu sum_l (w G - (G.mu) z),   grad_kappa = sum_l tau [G.mu - w / (1 - w^2) G.(z - w mu)],
// tau = dw/dkappa at fixed F(w) (implicit; vmf_tau.h), or (1 - w^2)/c, that of the accepted proposal (pathwise, biased at small d).
#pragma once
#include "half.h"
#include "philox.h"

namespace transphere {

constexpr int64_t kBackwardChunk = 256;  // draws of one law that one thread sums; fixes the order of summation

// Draws [begin, end) of the B * L.
template <typename T, typename Z>
void vmf_sample_cpu(const T* mu, const T* kappa, PhiloxKey key, int64_t offset, Z* z, T* w, T* v, int64_t L, int64_t d, int64_t begin,
                    int64_t end);

// Chunks [begin, end) of B * ceil(L / kBackwardChunk); each writes its row of the partial sums, sum_mu (chunks, d), not yet projected, and
// sum_kappa (chunks,).
template <typename T, typename Z>
void vmf_sample_backward_cpu(const Z* grad_z, const Z* z, const T* w, const T* v, const T* mu, const T* kappa, bool pathwise, T* sum_mu,
                             T* sum_kappa, int64_t L, int64_t d, int64_t begin, int64_t end);

// Laws [begin, end): adds up the partial sums and projects. With one chunk a law the sums may lie in grad_mu and grad_kappa.
template <typename T>
void vmf_sample_reduce_cpu(const T* sum_mu, const T* sum_kappa, const T* mu, T* grad_mu, T* grad_kappa, int64_t chunks, int64_t d,
                           int64_t begin, int64_t end);

#ifdef TS_CUDA
// seed: the two words on the device.
template <typename T, typename Z>
cudaError_t vmf_sample_cuda(const T* mu, const T* kappa, const int64_t* seed, int64_t offset, Z* z, T* w, T* v, int64_t B, int64_t L,
                            int64_t d, cudaStream_t stream);

template <typename T, typename Z>
cudaError_t vmf_sample_backward_cuda(const Z* grad_z, const Z* z, const T* w, const T* v, const T* mu, const T* kappa, bool pathwise,
                                     T* grad_mu, T* grad_kappa, int64_t B, int64_t L, int64_t d, cudaStream_t stream);
#endif

}  // namespace transphere
