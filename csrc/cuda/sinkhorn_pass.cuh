// A pass of a block over its rows of the matrix.
#pragma once
#include "cuda/sinkhorn_field.cuh"

namespace transphere {

// Sums of R values over a warp, R a power of two: lane l gets the sum of x[l / (32 / R)], in a third of the shuffles of R reductions. The
// lanes of each 2 step that have the lower half of the values go first.
template <int R, int step = 16, typename A>
__device__ A sum_rows(const A (&x)[R]) {
  if constexpr (R == 1) {
    A sum = x[0];
#pragma unroll
    for (int lanes = step; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, lanes);
    return sum;
  } else {
    const bool upper = lane_rank() & step;
    A half[R / 2];
#pragma unroll
    for (int k = 0; k < R / 2; ++k) {
      const A low = x[k], high = x[k + R / 2];
      half[k] = (upper ? high : low) + __shfl_xor_sync(0xFFFFFFFFu, upper ? low : high, step);
    }
    return sum_rows<R / 2, step / 2>(half);
  }
}

// T: of the matrix; A: of the arithmetic. Where each warp has but one tile, it stays in registers from one pass to the next.
template <typename T, typename A, Span S>
class Pass {
 public:
  __device__ Pass(const Field<A, S>& field, Scratch<A, S>* scratch)
      : field_(field), rows_(scratch->rows), tiles_((field.rows() + field.groups * kRows - 1) / (field.groups * kRows)) {}

  // The matrix of the coming passes, after each change: what a warp holds of it is read here.
  __device__ __forceinline__ void take(const T* K) {
    K_ = K;
    if (tiles_ == 1) load(tile_row(0), 0);
  }

  // For every row i of the block: w[i] = weight(i, K_i v, once), then part[g][j] = sum of w[i] K_ij over the rows of group g. One reading
  // of K where there is one panel. `once` is true in one of the threads that compute a row's weight. part: (groups, m); ends without a
  // barrier.
  template <typename Weight>
  __device__ __forceinline__ void run(const A* v, A* w, A* part, Weight weight) {
    if (field_.panels == 1)
      narrow(v, w, part, weight);
    else
      wide(v, w, part, weight);
  }

 private:
  static constexpr int kRows = Tile<A, S>::kRows, kSlots = Tile<A, S>::kSlots, kShare = 32 / kRows;
  static constexpr bool kReread = Tile<A, S>::kWide;  // v for each tile: there are no registers to keep it
  const Field<A, S>& field_;
  A (*const rows_)[kSinkhornWarps * kRows];
  const int tiles_;
  const T* K_ = nullptr;  // the block's rows, (rows, m)
  int turn_ = 0;
  T tile_[kRows][kSlots];

  __device__ int tile_row(int t) const { return (t * field_.groups + field_.group) * kRows; }  // in the block
  // Slots in pairs: those that no lane has a column for are left out.
  template <typename Use>
  __device__ __forceinline__ void over_slots(int panel, Use use) const {
#pragma unroll
    for (int pair = 0; pair < kSlots; pair += 2)
      if (field_.has_slot(panel, pair)) {
        use(pair);
        use(pair + 1);
      }
  }
  __device__ __forceinline__ void load(int i0, int panel) {  // all of it: nothing of the tile before lives on
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const int j = field_.column(panel, s);
#pragma unroll
      for (int k = 0; k < kRows; ++k) tile_[k][s] = j < field_.m && i0 + k < field_.rows() ? K_[(i0 + k) * field_.m + j] : T(0);
    }
  }
  __device__ __forceinline__ void load_values(const A* v, int panel, A (&values)[kSlots]) const {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const int j = field_.column(panel, s);
      values[s] = j < field_.m ? v[j] : A(0);
    }
  }
  __device__ __forceinline__ void add_dots(int panel, const A (&values)[kSlots], A (&x)[kRows]) const {
    over_slots(panel, [&](int s) {
#pragma unroll
      for (int k = 0; k < kRows; ++k) x[k] += A(tile_[k][s]) * values[s];
    });
  }
  __device__ __forceinline__ void store(int panel, const A (&acc)[kSlots], A* part) const {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const int j = field_.column(panel, s);
      if (j < field_.m) part[field_.group * field_.m + j] = acc[s];
    }
  }

  // The weight of the row of this lane's share, from the warp's part of its product.
  template <typename Weight>
  __device__ __forceinline__ A row_weight(int i0, A (&x)[kRows], A* w, Weight weight) {
    A sum = sum_rows(x);
    const int row = lane_rank() / kShare;
    const bool leads = lane_rank() % kShare == 0;
    if (field_.side > 1) {  // uniform over the block
      turn_ ^= 1;
      A* const sums = rows_[turn_] + (field_.group * kRows + row) * field_.side;
      if (leads) sums[field_.across] = sum;
      __syncthreads();
      sum = sums[0];
      for (int s = 1; s < field_.side; ++s) sum += sums[s];
    }
    if (i0 + row >= field_.rows()) return A(0);
    const int i = field_.begin + i0 + row;
    const bool once = leads && field_.across == 0;
    const A result = weight(i, sum, once);
    if (once) w[i] = result;
    return result;
  }

  template <typename Weight>
  __device__ __forceinline__ void narrow(const A* v, A* w, A* part, Weight weight) {
    A acc[kSlots] = {}, values[kSlots];
    if (!kReread) load_values(v, 0, values);
    for (int t = 0; t < tiles_; ++t) {
      const int i0 = tile_row(t);
      A x[kRows] = {};
      if (tiles_ > 1) load(i0, 0);
      if (kReread) load_values(v, 0, values);
      add_dots(0, values, x);
      const A mine = row_weight(i0, x, w, weight);
      A weights[kRows];
#pragma unroll
      for (int k = 0; k < kRows; ++k) weights[k] = __shfl_sync(0xFFFFFFFFu, mine, k * kShare);
      over_slots(0, [&](int s) {
#pragma unroll
        for (int k = 0; k < kRows; ++k) acc[s] += weights[k] * A(tile_[k][s]);
      });
    }
    store(0, acc, part);
  }

  template <typename Weight>
  __device__ __forceinline__ void wide(const A* v, A* w, A* part, Weight weight) {
    for (int t = 0; t < tiles_; ++t) {
      A x[kRows] = {};
      for (int panel = 0; panel < field_.panels; ++panel) {
        A values[kSlots];
        load_values(v, panel, values);
        load(tile_row(t), panel);
        add_dots(panel, values, x);
      }
      row_weight(tile_row(t), x, w, weight);
    }
    __syncthreads();
    for (int panel = 0; panel < field_.panels; ++panel) {
      A acc[kSlots] = {};
      for (int t = 0; t < tiles_; ++t) {
        const int i0 = tile_row(t);
        load(i0, panel);
#pragma unroll
        for (int k = 0; k < kRows; ++k) {
          const A wk = i0 + k < field_.rows() ? w[field_.begin + i0 + k] : A(0);
          over_slots(panel, [&](int s) { acc[s] += wk * A(tile_[k][s]); });
        }
      }
      store(panel, acc, part);
    }
  }
};

}  // namespace transphere
