// The linear system behind Newton's method and the gradients of a plan (csrc/sinkhorn.h, "Backward"): on rows I and columns J
//   r_i x_i + sum_J P_ij y_j + r_i z = p_i,   c_j y_j + sum_I P_ij x_i + c_j z = q_j,   sum_I r x + sum_J c y + s z = o
// (z and the last line if there is a mass of its own). x is eliminated; conjugate gradients for (y, z), preconditioned by the diagonal and,
// where that is slow, by a float32 Cholesky factor of the eliminated matrix.
#pragma once
#include <vector>

#include "cholesky.h"
#include "sinkhorn_rows.h"

namespace transphere {

template <typename T>
class SinkhornSystem {
 public:
  // For plans (n, m), m the smaller side or nearly.
  SinkhornSystem(int64_t n, int64_t m, const Split& split);

  // The plan of the coming solves, (n, m) padded, with its exact sums; rows and columns that are in I and J (1 or 0).
  // `gauge`: a constant moves freely between x and y, and c'y = 0 is wanted.
  void set(Matrix<T> P, const T* row_sums, const T* col_sums, const T* rows_on, const T* cols_on, bool mass, bool gauge);

  // Forgets the factor of earlier plans.
  void forget() { factored_ = false; }

  // Solves to `tolerance` in the preconditioned norm. The factor of an earlier plan is tried first, where there is one.
  void solve(const double* p, const double* q, double o, double tolerance, double* x, double* y, double& z);

 private:
  enum Preconditioner { kDiagonal, kFactor };
  void apply(const std::vector<double>& d, std::vector<double>& out);
  void precondition(Preconditioner by, const std::vector<double>& residual, std::vector<double>& out);
  void centre_residual(std::vector<double>& x) const;
  void factorise();
  bool descend(Preconditioner by, double enough, int64_t most);
  double norm(const std::vector<double>& residual) const;

  const int64_t n_, m_, width_, order_, stride_;  // order_ and stride_: of the factor, whose row m_ is that of z
  const Split& split_;
  Matrix<T> P_{};
  bool mass_ = false, gauge_ = false, factored_ = false;
  double total_ = 0, outside_total_ = 0;  // of all entries; of those in rows that are off
  std::vector<double> r_, c_, on_, outside_;  // on_: columns; outside_: each column's part in rows that are off
  std::vector<double> right_, solution_, residual_, direction_, conditioned_, applied_, factored_on_;
  std::vector<T> weight_, dots_, input_, sums_, partial_;
  std::vector<float> panels_, factor_, floor_, rounded_;
};

// Large matrices go in chunks of rows, by their shape alone: sums over rows have the same bits however many threads there are.
constexpr int64_t kChunk = 64, kSplit = 1 << 19;

// Runs pass(begin, end) over the rows.
template <typename F>
void split_rows(int64_t n, int64_t width, const Split& split, const F& pass) {
  if (n * width < kSplit) return pass(0, n);
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  split(chunks, [&](int64_t begin, int64_t end) { pass(begin * kChunk, end * kChunk < n ? end * kChunk : n); });
}

// Runs pass(begin, end, sums) over the rows, and adds the chunks' sums up by twos: one after another, those of 10^6 rows would lose
// three digits.
template <typename T, typename F>
void over_rows(int64_t n, int64_t width, const Split& split, std::vector<T>& partial, T* sums, const F& pass) {
  if (n * width < kSplit) {
    for (int64_t j = 0; j < width; ++j) sums[j] = 0;
    return pass(0, n, sums);
  }
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  partial.assign(chunks * width, T(0));
  split(chunks, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) pass(k * kChunk, k * kChunk + kChunk < n ? k * kChunk + kChunk : n, partial.data() + k * width);
  });
  for (int64_t step = 1; step < chunks; step *= 2)
    for (int64_t k = 0; k + step < chunks; k += 2 * step)
      for (int64_t j = 0; j < width; ++j) partial[k * width + j] += partial[(k + step) * width + j];
  for (int64_t j = 0; j < width; ++j) sums[j] = partial[j];
}

// The system of a plan of any shape: it eliminates the larger side, on a transposed copy where those are the columns.
template <typename T>
class PlanSystem {
 public:
  PlanSystem(int64_t n, int64_t m, const Split& split);

  // r and c, the sums of P over the columns and rows that are on.
  void sums(Matrix<T> P, const T* rows, const T* cols);
  // x, y and z from p, q, o, r, c, rows_on and cols_on; not `fresh`: the factor of the last solve may serve.
  void solve(Matrix<T> P, bool mass, bool gauge, double tolerance, bool fresh);

  std::vector<T> r, c, rows_on, cols_on;  // c and cols_on padded
  std::vector<double> p, q, x, y;
  double o = 0, z = 0;

 private:
  const int64_t n_, m_;
  const bool transposed_;
  const Split& split_;
  SinkhornSystem<T> system_;
  std::vector<T> copy_, partial_;
};

}  // namespace transphere
