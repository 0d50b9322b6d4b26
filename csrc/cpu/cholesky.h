// Cholesky factors in float32, good as preconditioners. Matrices are (n, n) with n a multiple of kTile, of which only the upper triangle
// counts; `floor` (n) is what a pivot is raised to where rounding has eaten it.
#pragma once
#include "sinkhorn.h"

namespace transphere {

constexpr int64_t kTile = 32;

// W += A'A for the A (rows, n) that `panels` holds as (n / kTile, rows, kTile). Ranges of [0, n / kTile) take even shares of its
// tile rows.
void gram_tiles(const float* panels, int64_t rows, int64_t n, float* W, int64_t stride, int64_t begin, int64_t end);

// W becomes U with U'U = W.
void cholesky(float* W, int64_t n, int64_t stride, const float* floor, const Split& split);

// x becomes (U'U)^-1 x.
void cholesky_solve(const float* U, int64_t n, int64_t stride, float* x);

}  // namespace transphere
