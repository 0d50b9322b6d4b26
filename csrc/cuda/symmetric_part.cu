// A block a tile and its mirror, both by way of shared memory so that all reads and writes are along rows.
#include "symmetric_part.h"

#include "cuda/launch.cuh"

namespace transphere {
namespace {

constexpr int kRows = 8;

template <typename T>
__global__ void __launch_bounds__(kTile* kRows, 2) symmetric_part_kernel(const T* __restrict__ M, T* __restrict__ S, int64_t B, int64_t d) {
  __shared__ T here[kTile][kTile + 1], mirror[kTile][kTile + 1];  // one column more: no two threads of a warp in one bank
  const TilePairs pairs{d};
  const int lane = threadIdx.x, first = threadIdx.y;
  for (int64_t pair = blockIdx.x; pair < pairs.count(B); pair += gridDim.x) {
    int64_t b, row, column;
    if (!pairs.at(pair, b, row, column)) continue;
    const T* problem = M + b * d * d;
    T* out = S + b * d * d;
    for (int r = first; r < kTile; r += kRows) {
      if (row + r < d && column + lane < d) here[r][lane] = problem[(row + r) * d + column + lane];
      if (column + r < d && row + lane < d) mirror[r][lane] = problem[(column + r) * d + row + lane];
    }
    __syncthreads();
    for (int r = first; r < kTile; r += kRows) {
      if (row + r < d && column + lane < d) out[(row + r) * d + column + lane] = T(0.5) * (here[r][lane] + mirror[lane][r]);
      if (row != column && column + r < d && row + lane < d)
        out[(column + r) * d + row + lane] = T(0.5) * (here[lane][r] + mirror[r][lane]);
    }
    __syncthreads();
  }
}

}  // namespace

template <typename T>
cudaError_t symmetric_part_cuda(const T* M, T* S, int64_t B, int64_t d, cudaStream_t stream) {
  if (B * d == 0) return cudaSuccess;
  return TS_LAUNCH(symmetric_part_kernel<T>, blocks_for(TilePairs{d}.count(B), 1), dim3(kTile, kRows), 0, stream, M, S, B, d);
}

template cudaError_t symmetric_part_cuda(const float*, float*, int64_t, int64_t, cudaStream_t);
template cudaError_t symmetric_part_cuda(const double*, double*, int64_t, int64_t, cudaStream_t);

}  // namespace transphere
