// One launch for all problems, whatever they take. A problem has a block to itself, with its vectors and, for the forward, its K in shared
// memory; where they do not fit, on sm_90 a cluster, in which each block has some rows of K; else a team of blocks of the whole grid, with
// its vectors in a workspace and K in the plan's place. What a warp holds of K in one tile stays in its registers. Formulas:
// csrc/sinkhorn.h.
#include "sinkhorn.h"

#include "cuda/sinkhorn_backward.cuh"
#include "cuda/sinkhorn_form.cuh"
#include "cuda/sinkhorn_solve.cuh"

namespace transphere {

template <typename T>
cudaError_t sinkhorn_workspace(int64_t n, int64_t m, int64_t count, int64_t* bytes) {
  SinkhornLaunch form;
  const cudaError_t error = choose<Solve<T>>(n, m, count, form);
  *bytes = form.workspace;
  return error;
}

template <typename T>
cudaError_t sinkhorn_cuda(const SinkhornProblems<T>& q, int64_t count, void* workspace, cudaStream_t stream) {
  return launch_all(Solve<T>{q}, count, workspace, stream);
}

template <typename T>
cudaError_t sinkhorn_backward_workspace(int64_t n, int64_t m, int64_t count, int64_t* bytes) {
  SinkhornLaunch form;
  const cudaError_t error = choose<Differentiate<T>>(n, m, count, form);
  *bytes = form.workspace;
  return error;
}

template <typename T>
cudaError_t sinkhorn_backward_cuda(const SinkhornGradients<T>& q, int64_t count, void* workspace, cudaStream_t stream) {
  return launch_all(Differentiate<T>{q}, count, workspace, stream);
}

#define TS_INSTANTIATE(T)                                                                                      \
  template cudaError_t sinkhorn_workspace<T>(int64_t, int64_t, int64_t, int64_t*);                             \
  template cudaError_t sinkhorn_cuda(const SinkhornProblems<T>&, int64_t, void*, cudaStream_t);                \
  template cudaError_t sinkhorn_backward_workspace<T>(int64_t, int64_t, int64_t, int64_t*);                    \
  template cudaError_t sinkhorn_backward_cuda(const SinkhornGradients<T>&, int64_t, void*, cudaStream_t);
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
