// (M + M') / 2, exactly symmetric.
//
//   M, S  (B, d, d)
//
// A tile and its mirror image are read and written together, so that M is read once.
#pragma once
#include "portable.h"

namespace transphere {

constexpr int64_t kTile = 32;

// The pairs of a tile and its mirror: tile (I, I + k), wrapped around, for k up to half of the tiles across. Each row of tiles has as many
// pairs, so that equal shares are equal work; where the tiles across are even the last k meets its pairs twice, and the second half is void.
struct TilePairs {
  int64_t d, across = (d + kTile - 1) / kTile, a_row = across / 2 + 1;

  TS_HD int64_t count(int64_t B) const { return B * across * a_row; }

  // The problem and the first row and column of a tile; false where there is nothing to do.
  TS_HD bool at(int64_t pair, int64_t& b, int64_t& row, int64_t& column) const {
    const int64_t tile = pair / a_row % across, k = pair % a_row;
    b = pair / (across * a_row), row = tile * kTile, column = (tile + k) % across * kTile;
    return 2 * k < across || 2 * tile < across;
  }
};

// Pairs [begin, end) of all `count(B)`.
template <typename T>
void symmetric_part_cpu(const T* M, T* S, int64_t d, int64_t begin, int64_t end);

#ifdef TS_CUDA
template <typename T>
cudaError_t symmetric_part_cuda(const T* M, T* S, int64_t B, int64_t d, cudaStream_t stream);
#endif

}  // namespace transphere
