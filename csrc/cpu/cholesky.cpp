#include "cholesky.h"

#include <cmath>
#include <cstring>

namespace transphere {
namespace {

typedef float Vector __attribute__((vector_size(64)));
typedef float Any __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int W = 16, kRows = 4;  // kTile is two vectors

// out[j][k] += sign * sum over p of A[p][j] B[p][k], j < kRows, k < kTile.
inline void tile(const float* A, int64_t a_stride, const float* B, int64_t b_stride, int64_t depth, float sign, float* out,
                 int64_t stride) {
  Vector sum[kRows][2] = {};
  for (int64_t p = 0; p < depth; ++p) {
    const Vector b0 = *reinterpret_cast<const Any*>(B + p * b_stride), b1 = *reinterpret_cast<const Any*>(B + p * b_stride + W);
    for (int j = 0; j < kRows; ++j) {
      const float a = A[p * a_stride + j];
      sum[j][0] += a * b0;
      sum[j][1] += a * b1;
    }
  }
  for (int j = 0; j < kRows; ++j)
    for (int h = 0; h < 2; ++h) *reinterpret_cast<Any*>(out + j * stride + h * W) += sign * sum[j][h];
}

// The kTile x kTile block at x, rows scaled and earlier ones taken out, by the factor D of the block on the diagonal.
inline void solve_tile(const float* D, float* x, int64_t stride) {
  for (int64_t p = 0; p < kTile; ++p) {
    Vector s0 = *reinterpret_cast<Any*>(x + p * stride), s1 = *reinterpret_cast<Any*>(x + p * stride + W);
    for (int64_t q = 0; q < p; ++q) {
      const float d = D[q * stride + p];
      s0 -= d * *reinterpret_cast<Any*>(x + q * stride);
      s1 -= d * *reinterpret_cast<Any*>(x + q * stride + W);
    }
    const float over = 1.0f / D[p * stride + p];
    *reinterpret_cast<Any*>(x + p * stride) = s0 * over;
    *reinterpret_cast<Any*>(x + p * stride + W) = s1 * over;
  }
}

inline void factor_tile(float* D, int64_t stride, const float* floor) {
  for (int64_t p = 0; p < kTile; ++p) {
    float* row = D + p * stride;
    const float pivot = std::sqrt(row[p] > floor[p] ? row[p] : floor[p]), over = 1.0f / pivot;
    row[p] = pivot;
    for (int64_t k = p + 1; k < kTile; ++k) row[k] *= over;
    for (int64_t q = p + 1; q < kTile; ++q)
      for (int64_t k = q; k < kTile; ++k) D[q * stride + k] -= row[q] * row[k];
  }
}

// The k-th of `count` rows of a triangle's tiles, so that any range of k has its share of long rows and of short ones.
inline int64_t folded(int64_t k, int64_t count) { return k % 2 ? count - 1 - k / 2 : k / 2; }

inline void gram(const float* panels, int64_t rows, int64_t n, float* out, int64_t stride, int64_t begin, int64_t end) {
  constexpr int64_t kDepth = 256;
  for (int64_t i = 0; i < rows; i += kDepth) {
    const int64_t depth = rows - i < kDepth ? rows - i : kDepth;
    for (int64_t k = begin; k < end; ++k) {
      const int64_t J = folded(k, n / kTile);
      for (int64_t K = J; K < n / kTile; ++K)
        for (int64_t j = 0; j < kTile; j += kRows)
          tile(panels + (J * rows + i) * kTile + j, kTile, panels + (K * rows + i) * kTile, kTile, depth, 1.0f,
               out + (J * kTile + j) * stride + K * kTile, stride);
    }
  }
}

// Tile rows [begin, end), in folded order, of those below the panel at row p.
inline void update(float* U, int64_t n, int64_t stride, int64_t p, int64_t begin, int64_t end) {
  const int64_t above = p / kTile + 1;
  for (int64_t k = begin; k < end; ++k) {
    const int64_t J = above + folded(k, n / kTile - above);
    for (int64_t K = J; K < n / kTile; ++K)
      for (int64_t j = 0; j < kTile; j += kRows)
        tile(U + p * stride + J * kTile + j, stride, U + p * stride + K * kTile, stride, kTile, -1.0f,
             U + (J * kTile + j) * stride + K * kTile, stride);
  }
}

inline void solve(const float* U, int64_t n, int64_t stride, float* x) {
  for (int64_t p = 0; p < n; ++p) {
    const float* row = U + p * stride;
    const float y = x[p] /= row[p];
    for (int64_t k = p + 1; k < n; ++k) x[k] -= y * row[k];
  }
  for (int64_t p = n - 1; p >= 0; --p) {
    const float* row = U + p * stride;
    float sum[W] = {};
    int64_t k = p + 1;
    for (; k + W <= n; k += W)
      for (int l = 0; l < W; ++l) sum[l] += row[k + l] * x[k + l];
    for (; k < n; ++k) sum[0] += row[k] * x[k];
    for (int half = W / 2; half; half /= 2)
      for (int l = 0; l < half; ++l) sum[l] += sum[l + half];
    x[p] = (x[p] - sum[0]) / row[p];
  }
}

TS_EVERY_ISA void factor_panel(float* U, int64_t n, int64_t stride, int64_t p, const float* floor) {
  factor_tile(U + p * stride + p, stride, floor + p);
  for (int64_t k = p + kTile; k < n; k += kTile) solve_tile(U + p * stride + p, U + p * stride + k, stride);
}

TS_EVERY_ISA void update_tiles(float* U, int64_t n, int64_t stride, int64_t p, int64_t begin, int64_t end) {
  update(U, n, stride, p, begin, end);
}

}  // namespace

TS_EVERY_ISA void gram_tiles(const float* panels, int64_t rows, int64_t n, float* out, int64_t stride, int64_t begin, int64_t end) {
  gram(panels, rows, n, out, stride, begin, end);
}

TS_EVERY_ISA void cholesky_solve(const float* U, int64_t n, int64_t stride, float* x) { solve(U, n, stride, x); }

void cholesky(float* U, int64_t n, int64_t stride, const float* floor, const Split& split) {
  const int64_t tiles = n / kTile;
  for (int64_t p = 0; p < tiles; ++p) {
    factor_panel(U, n, stride, p * kTile, floor);
    const int64_t below = tiles - p - 1;
    const auto update = [&](int64_t begin, int64_t end) { update_tiles(U, n, stride, p * kTile, begin, end); };
    if (below > 16) split(below, update);
    else if (below) update(0, below);
  }
}

}  // namespace transphere
