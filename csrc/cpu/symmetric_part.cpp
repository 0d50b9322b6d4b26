#include "symmetric_part.h"

#include <algorithm>

namespace transphere {
namespace {

template <typename T>
inline void symmetric_part(const T* __restrict__ M, T* __restrict__ S, int64_t d, int64_t begin, int64_t end) {
  const TilePairs pairs{d};
  T tile[kTile][kTile] = {};
  for (int64_t pair = begin; pair < end; ++pair) {
    int64_t b, row, column;
    if (!pairs.at(pair, b, row, column)) continue;
    const int64_t rows = std::min(kTile, d - row), columns = std::min(kTile, d - column);
    const T *here = M + (b * d + row) * d + column, *mirror = M + (b * d + column) * d + row;
    for (int64_t j = 0; j < columns; ++j)
      for (int64_t i = 0; i < rows; ++i) tile[i][j] = mirror[j * d + i];
    T* out = S + (b * d + row) * d + column;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) out[i * d + j] = tile[i][j] = T(0.5) * (here[i * d + j] + tile[i][j]);
    if (row == column) continue;
    out = S + (b * d + column) * d + row;
    for (int64_t j = 0; j < columns; ++j)
      for (int64_t i = 0; i < rows; ++i) out[j * d + i] = tile[i][j];
  }
}

}  // namespace

#define TS_INSTANTIATE(T)                                                                                 \
  template <>                                                                                             \
  TS_EVERY_ISA void symmetric_part_cpu(const T* M, T* S, int64_t d, int64_t begin, int64_t end) {         \
    symmetric_part(M, S, d, begin, end);                                                                  \
  }
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
