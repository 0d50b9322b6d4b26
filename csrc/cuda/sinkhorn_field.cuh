// How a matrix lies over a team: rows over blocks, tiles of rows and columns over warps, and the sums down the columns over both.
#pragma once
#include "cuda/sinkhorn_team.cuh"

namespace transphere {

// What a lane holds of a matrix at a time: a tile of rows, and of columns 32 apart. In a grid, whose matrix is large, it is a wide one.
template <typename A, Span S>
struct Tile {
  static constexpr bool kWide = S == Span::grid;
  static constexpr int kRows = kWide ? 2 : sizeof(A) == 4 ? 8 : 4, kSlots = sizeof(A) == 4 && kWide ? 16 : 8;
};

// Scratch of a block in shared memory.
template <typename A, Span S>
struct Scratch {
  Reductions reductions;
  A rows[2][kSinkhornWarps * Tile<A, S>::kRows];
  double mass, b_scale;  // of the problem: registers are short
};

// How a block's warps lie over its rows [begin, end) and all m columns: `side` warps next to each other, `groups` below each other. Where
// they do not reach across, there are several panels of columns. What is done once for each column of the team, a block does for
// [left, right).
template <typename A, Span S>
struct Field {
  int m, begin, end, left, right, side, groups, across, group, panels;

  __device__ Field(int n, int m, int rank, int size) : m(m) {
    const int rows = (n + size - 1) / size;
    begin = min(rows * rank, n);
    end = min(begin + rows, n);
    left = min(columns(m, size) * rank, m);
    right = min(left + columns(m, size), m);
    side = 1;
    while (side < block_warps() && side * width() < m) side *= 2;
    groups = block_warps() / side;
    across = warp_rank() % side;
    group = warp_rank() / side;
    panels = (m + side * width() - 1) / (side * width());
  }
  static __host__ __device__ int columns(int m, int size) { return (m + size - 1) / size; }  // of a block, at most
  static constexpr __host__ __device__ int width() { return 32 * Tile<A, S>::kSlots; }  // of a warp
  __device__ int rows() const { return end - begin; }
  __device__ int column(int panel, int slot) const { return (panel * side + across) * width() + slot * 32 + lane_rank(); }
  __device__ bool has_slot(int panel, int slot) const { return (panel * side + across) * width() + slot * 32 < m; }  // for any lane
};

// Sums down the columns, in parts that are still to be added: those of this block's groups, and those of all blocks. One block has only the
// former, in `all`. A cluster's blocks each have their own part in `all`, in a place of their shared memory that is the same in each.
template <typename A, Span S>
struct Parts {
  A *own, *all;  // (groups, m); (rows, m) or, of a cluster, (m)
  int rows;

  __device__ A* row(int r, int m) const {
    if constexpr (S == Span::cluster) return in_block(r, all);
    return all + r * m;
  }
  // After a pass: what the block has, to where all see it. A barrier of the team must follow.
  template <typename Op>
  __device__ __forceinline__ void publish(const Team<S>& team, const Field<A, S>& field, Op op) const {
    if constexpr (S != Span::block) {
      if (field.panels > 1) return;  // one group, and it wrote there
      A* const to = S == Span::cluster ? all : all + team.rank * field.m;
      __syncthreads();
      for (int j = threadIdx.x; j < field.m; j += blockDim.x) {
        A x = own[j];
        for (int group = 1; group < field.groups; ++group) x = op(x, own[group * field.m + j]);
        to[j] = x;
      }
    }
  }
  // What they add up to, once all is published; stays in all[j] for the thread that asks, the only one of column j.
  template <typename Op>
  __device__ __forceinline__ A collect(int j, int m, Op op) const {
    A x = row(0, m)[j];
#pragma unroll 4
    for (int r = 1; r < rows; ++r) x = op(x, row(r, m)[j]);
    return all[j] = x;
  }
};

}  // namespace transphere
