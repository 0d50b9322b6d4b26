// Acceleration of the columns' updates: every second one goes to where the last few say that updates lead (Anderson mixing of log v, in
// turns with plain updates: Pratapa, Suryanarayana and Pask, "Anderson acceleration of the Jacobi iterative method", 2016), which near a
// permutation or between clusters saves most of the iterations. Where updates grow instead, it waits, each time twice as long.
#pragma once
#include "cuda/sinkhorn_pass.cuh"

namespace transphere {

template <typename T, Span S>
class Mixing {
 public:
  static constexpr int kDepth = 4, kKept = kDepth + 1;
  static constexpr __host__ __device__ int64_t bytes(int64_t columns) { return 2 * kKept * (columns + 1) * int64_t(sizeof(T)); }

  // history: bytes for the block's columns, or null for no mixing.
  __device__ Mixing(Team<S>& team, const Field<T, S>& field, T* history)
      : team_(team), history_(history), columns_(field.right - field.left) {}

  // What came before is forgotten.
  __device__ void forget() {
    count_ = 0;
    last_ = INFINITY;
  }
  // And mixing waits.
  __device__ void restart() {
    forget();
    patience_ = patience_ < 256 ? 2 * patience_ : patience_;
  }

  // Begins an update; whether it is to be mixed.
  __device__ bool begin(bool last) {
    if (!history_) return false;
    ++count_;
    return !last && count_ >= patience_ && (count_ - patience_) % 2 == 0;
  }
  // By how much the plain update changes log v of the block's column k, which is this thread's (k = threadIdx.x mod blockDim.x).
  __device__ void note(int k, T change) {
    if (!history_) return;
    changes(0)[k] = change;
    steps(0)[k] = 0;
  }
  // The same of log t, where t moves: a column more, which each block has and the first one counts.
  __device__ void note_t(T change) {
    if (int(threadIdx.x) == columns_ % int(blockDim.x)) note(columns_, change);
  }

  // Of a mixed update, after all is noted: the coefficients of step(). All threads of the team call it; false: the update remains plain.
  __device__ bool solve(bool with_t) {
    T x[16] = {};  // the products of differences of changes, those with the last change, and its square
#pragma unroll 1
    for (int k = threadIdx.x; k < columns_ + (with_t && team_.rank == 0); k += blockDim.x) {
      const T now = changes(0)[k];
      T d[kDepth];
#pragma unroll
      for (int i = 0; i < kDepth; ++i) d[i] = changes(i)[k] - changes(i + 1)[k];
#pragma unroll
      for (int i = 0; i < kDepth; ++i)
#pragma unroll
        for (int j = 0; j <= i; ++j) x[i * (i + 1) / 2 + j] += d[i] * d[j];
#pragma unroll
      for (int i = 0; i < kDepth; ++i) x[10 + i] += d[i] * now;
      x[14] += now * now;
    }
    const double* const sums = team_.sums(sum_rows(x));
    const float size = float(sums[14]);
    if (!(size <= 100 * last_) || (with_t && count_ > 48)) {  // where constraints come and go, mixed updates may circle
      restart();
      return false;
    }
    last_ = size;
    factor(sums);
    return true;
  }

  // What mixing adds to the change of column k.
  __device__ T step(int k) { return steps(0)[k] = combined(k); }
  // That of log t, for all threads.
  __device__ T step_t() {
    const T step = combined(columns_);
    if (int(threadIdx.x) == columns_ % int(blockDim.x)) steps(0)[columns_] = step;
    return step;
  }

 private:
  Team<S>& team_;
  T* const history_;
  const int columns_;
  int count_ = 0, patience_ = 6;
  float last_ = INFINITY;
  T c_[kDepth];

  // Of the last update, of that before it, and so on.
  __device__ T* changes(int back) const { return history_ + (count_ + kKept - back) % kKept * (columns_ + 1); }
  __device__ T* steps(int back) const { return changes(back) + kKept * (columns_ + 1); }

  __device__ T combined(int k) const {
    T sum = 0;
#pragma unroll
    for (int i = 0; i < kDepth; ++i) sum -= c_[i] * (changes(i)[k] + steps(i + 1)[k]);
    sum = sum < -10 ? T(-10) : sum > 10 ? T(10) : sum;  // far steps end in a restart, not in an overflow
    return sum == sum ? sum : T(0);
  }

  // c: least squares of the last change by the differences, through L D L' of their products with a little more on the diagonal.
  __device__ void factor(const double* sums) {
    double LD[kDepth][kDepth], L[kDepth][kDepth], over_D[kDepth], y[kDepth];
#pragma unroll
    for (int i = 0; i < kDepth; ++i) {
      y[i] = sums[10 + i];
#pragma unroll
      for (int j = 0; j <= i; ++j) {
        double w = sums[i * (i + 1) / 2 + j];
        if (i == j) w += 1e-5 * w;
#pragma unroll
        for (int k = 0; k < j; ++k) w -= LD[i][k] * L[j][k];
        if (i == j) {
          over_D[i] = w > 0 ? 1 / w : 0;
        } else {
          LD[i][j] = w;
          L[i][j] = w * over_D[j];
          y[i] -= L[i][j] * y[j];
        }
      }
    }
#pragma unroll
    for (int i = kDepth - 1; i >= 0; --i) {
      y[i] *= over_D[i];
#pragma unroll
      for (int j = i + 1; j < kDepth; ++j) y[i] -= L[j][i] * y[j];
      c_[i] = T(y[i]);
    }
  }
};

}  // namespace transphere
