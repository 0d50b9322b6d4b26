// The blocks that work on one problem, and a pass over their matrix. Most problems have one block; a large one has several, each with rows
// of its own, all resident at once (a cooperative launch), which meet at a counter in device memory.
#pragma once
#include "cuda/launch.cuh"
#include "cuda/warp.cuh"

namespace transphere {

constexpr int kSinkhornThreads = 256;  // at most: few, with many registers each
constexpr int kSinkhornWarps = kSinkhornThreads / 32;

// What a lane holds of a matrix at a time: a tile of rows, and of columns 32 apart. A team's matrix is a wide one.
template <typename A, bool Many>
struct Tile {
  static constexpr int kRows = sizeof(A) == 4 ? (Many ? 4 : 8) : (Many ? 2 : 4), kSlots = sizeof(A) == 4 && Many ? 16 : 8;
};

constexpr int kMostBlocks = 128;  // of a team

// What the blocks of one problem share in device memory.
struct Meeting {
  unsigned arrived;  // ever since the launch; 0 before it
  double parts[2][kMostBlocks];
};
// Scratch of a block in shared memory.
template <typename A, bool Many>
struct Scratch {
  double parts[2][kSinkhornWarps];
  A rows[2][kSinkhornWarps * Tile<A, Many>::kRows];
};

template <bool Many>
class Team {
 public:
  const int rank, size;
  __device__ Team(int rank, int size, double (*parts)[kSinkhornWarps], Meeting* meeting)
      : rank(rank), size(Many ? size : 1), parts_(parts), meeting_(meeting) {}

  // All threads of all blocks; what they wrote before is seen after.
  __device__ void sync() {
    __syncthreads();
    if constexpr (Many) {
      if (size == 1) return;
      if (threadIdx.x == 0) {
        arrivals_ += unsigned(size);
        __threadfence();
        atomicAdd(&meeting_->arrived, 1u);
        while (int(atomicAdd(&meeting_->arrived, 0u) - arrivals_) < 0) __nanosleep(32);
        __threadfence();
      }
      __syncthreads();
    }
  }

  // The same bits for every thread; orders memory as sync() does. Both buffers alternate: whoever writes one again has met all that read it.
  template <typename Op>
  __device__ double reduce(double x, Op op) {
    x = warp_reduce(x, op);
    turn_ ^= 1;
    if (lane_rank() == 0) parts_[turn_][warp_rank()] = x;
    __syncthreads();
    x = parts_[turn_][0];
#pragma unroll 4
    for (int warp = 1; warp < block_warps(); ++warp) x = op(x, parts_[turn_][warp]);
    if constexpr (Many) {
      if (size == 1) return x;
      double* const all = meeting_->parts[turn_];
      if (threadIdx.x == 0) all[rank] = x;
      sync();
      x = all[0];
#pragma unroll 4
      for (int block = 1; block < size; ++block) x = op(x, all[block]);
    }
    return x;
  }
  __device__ double sum(double x) { return reduce(x, Sum()); }
  __device__ double min(double x) { return reduce(x, Min()); }
  __device__ bool any(bool x) { return reduce(x ? 1.0 : 0.0, Max()) > 0; }

  // This thread's part of the columns.
  __device__ int first() const { return rank * int(blockDim.x) + int(threadIdx.x); }
  __device__ int stride() const { return size * int(blockDim.x); }

 private:
  double (*parts_)[kSinkhornWarps];
  Meeting* meeting_;
  unsigned arrivals_ = 0;
  int turn_ = 0;
};

// How a block's warps lie over its rows [begin, end) and all m columns: `side` warps next to each other, `groups` below each other. Where
// they do not reach across, there are several panels of columns.
template <typename A, bool Many>
struct Field {
  int m, begin, end, side, groups, across, group, panels;

  __device__ Field(int n, int m, int rank, int size) : m(m) {
    const int rows = (n + size - 1) / size;
    begin = min(rows * rank, n);
    end = min(begin + rows, n);
    side = 1;
    while (side < block_warps() && side * width() < m) side *= 2;
    groups = block_warps() / side;
    across = warp_rank() % side;
    group = warp_rank() / side;
    panels = (m + side * width() - 1) / (side * width());
  }
  static constexpr __host__ __device__ int width() { return 32 * Tile<A, Many>::kSlots; }  // of a warp
  __device__ int column(int panel, int slot) const { return (panel * side + across) * width() + slot * 32 + lane_rank(); }
};

// Sums down the columns, in parts that are still to be added: those of this block's groups, and those of all. A team of one has the same.
template <typename A>
struct Parts {
  A *own, *all;  // (groups, m), (rows, m)
  int rows;

  // After a pass: what the block has, to where all see it. A barrier of the team must follow.
  template <bool Many, typename Op>
  __device__ void publish(const Team<Many>& team, const Field<A, Many>& field, Op op) const {
    if constexpr (Many) {
      if (field.panels > 1) return;  // one group, and it wrote there
      __syncthreads();
      for (int j = threadIdx.x; j < field.m; j += blockDim.x) {
        A x = own[j];
        for (int group = 1; group < field.groups; ++group) x = op(x, own[group * field.m + j]);
        all[team.rank * field.m + j] = x;
      }
    }
  }
  // What they add up to, once all is published; stays in all[j] for the thread that asks, the only one of column j.
  template <typename Op>
  __device__ A collect(int j, int m, Op op) const {
    A x = all[j];
#pragma unroll 4
    for (int row = 1; row < rows; ++row) x = op(x, all[row * m + j]);
    return all[j] = x;
  }
};

// Sums of R values over a warp, R a power of two: lane l gets the sum of x[l / (32 / R)], in a third of the shuffles of R reductions.
template <int R, typename A>
__device__ A sum_rows(A (&x)[R]) {
  int step = 16;
#pragma unroll
  for (int half = R / 2; half >= 1; half /= 2, step /= 2) {
    const bool upper = lane_rank() & step;
#pragma unroll
    for (int k = 0; k < half; ++k) {
      const A send = upper ? x[k] : x[k + half], keep = upper ? x[k + half] : x[k];
      x[k] = keep + __shfl_xor_sync(0xFFFFFFFFu, send, step);
    }
  }
  A sum = x[0];
#pragma unroll
  for (; step > 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
  return sum;
}

// For every row i of the block: w[i] = weight(i, K_i v, once), then part[g][j] = sum of w[i] K_ij over the rows of group g. One reading of K
// where there is one panel. `once` is true in one of the threads that compute a row's weight. part: (groups, m); ends without a barrier.
template <typename T, typename A, bool Many, typename Weight>
__device__ void pass(const Field<A, Many>& field, const T* K, const A* v, A* w, A* part, Scratch<A, Many>* scratch, Weight weight) {
  constexpr int R = Tile<A, Many>::kRows, S = Tile<A, Many>::kSlots, kShare = 32 / R;
  const int m = field.m, stride = field.groups * R, first = field.begin + field.group * R;
  const int tiles = (field.end - field.begin + stride - 1) / stride;
  const bool leads = lane_rank() % kShare == 0;
  A acc[S], values[S];
  int turn = 0;

  const auto load_values = [&](int panel) {
#pragma unroll
    for (int s = 0; s < S; ++s) {
      const int j = field.column(panel, s);
      values[s] = j < m ? v[j] : A(0);
    }
  };
  const auto load = [&](int i0, int panel, T (&tile)[R][S]) {
#pragma unroll
    for (int s = 0; s < S; ++s) {
      const int j = field.column(panel, s);
#pragma unroll
      for (int k = 0; k < R; ++k) tile[k][s] = j < m && i0 + k < field.end ? K[(i0 + k) * m + j] : T(0);
    }
  };
  const auto row_weight = [&](int i0, A (&x)[R]) {
    A sum = sum_rows<R>(x);
    const int row = lane_rank() / kShare;
    if (field.side > 1) {  // uniform over the block
      turn ^= 1;
      A* const rows = scratch->rows[turn] + (field.group * R + row) * field.side;
      if (leads) rows[field.across] = sum;
      __syncthreads();
      sum = rows[0];
      for (int s = 1; s < field.side; ++s) sum += rows[s];
    }
    if (i0 + row >= field.end) return A(0);
    const bool once = leads && field.across == 0;
    const A result = weight(i0 + row, sum, once);
    if (once) w[i0 + row] = result;
    return result;
  };
  const auto clear = [&] {
#pragma unroll
    for (int s = 0; s < S; ++s) acc[s] = 0;
  };
  const auto store = [&](int panel) {
#pragma unroll
    for (int s = 0; s < S; ++s) {
      const int j = field.column(panel, s);
      if (j < m) part[field.group * m + j] = acc[s];
    }
  };

  T tile[R][S];
  if (field.panels == 1) {
    load_values(0);
    clear();
    for (int t = 0; t < tiles; ++t) {
      const int i0 = first + t * stride;
      A x[R];
      load(i0, 0, tile);
#pragma unroll
      for (int k = 0; k < R; ++k) {
        x[k] = 0;
#pragma unroll
        for (int s = 0; s < S; ++s) x[k] += A(tile[k][s]) * values[s];
      }
      const A mine = row_weight(i0, x);
#pragma unroll
      for (int k = 0; k < R; ++k) {
        const A wk = __shfl_sync(0xFFFFFFFFu, mine, k * kShare);
#pragma unroll
        for (int s = 0; s < S; ++s) acc[s] += wk * A(tile[k][s]);
      }
    }
    store(0);
    return;
  }
  for (int t = 0; t < tiles; ++t) {
    const int i0 = first + t * stride;
    A x[R];
#pragma unroll
    for (int k = 0; k < R; ++k) x[k] = 0;
    for (int panel = 0; panel < field.panels; ++panel) {
      load_values(panel);
      load(i0, panel, tile);
#pragma unroll
      for (int k = 0; k < R; ++k)
#pragma unroll
        for (int s = 0; s < S; ++s) x[k] += A(tile[k][s]) * values[s];
    }
    row_weight(i0, x);
  }
  __syncthreads();
  for (int panel = 0; panel < field.panels; ++panel) {
    clear();
    for (int t = 0; t < tiles; ++t) {
      const int i0 = first + t * stride;
      load(i0, panel, tile);
#pragma unroll
      for (int k = 0; k < R; ++k) {
        const A wk = i0 + k < field.end ? w[i0 + k] : A(0);
#pragma unroll
        for (int s = 0; s < S; ++s) acc[s] += wk * A(tile[k][s]);
      }
    }
    store(panel);
  }
}

}  // namespace transphere
