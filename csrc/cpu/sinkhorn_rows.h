// The passes over the rows of one problem that Sinkhorn, Newton's method and the backward are made of. A matrix here has `width`
// columns, the problem's m padded with zeros to whole vectors; so have the vectors over columns.
#pragma once
#include "portable.h"

namespace transphere {

template <typename T>
struct Matrix {
  T* at;
  int64_t stride, width;
  T* operator[](int64_t i) const { return at + i * stride; }
};

constexpr int64_t kVector = 64;  // bytes; a matrix's width in them is whole
constexpr int64_t padded(int64_t m) { return (m + kLanes - 1) / kLanes * kLanes; }

// K_ij = exp((f_i + g_j - C_ij) / eps), 0 where rows_on or cols_on (width) is. C is (n, m); what is off is not read.
template <typename T>
void kernel_rows(const T* cost, int64_t m, const double* f, const double* g, const T* rows_on, const T* cols_on, double over_eps,
                 Matrix<T> K, int64_t begin, int64_t end);

// least_i = the least C_ij - g_j, inf if there is none; g_j = -inf leaves a column out.
template <typename T>
void least_in_rows(const T* cost, int64_t m, const double* g, double* least, int64_t begin, int64_t end);
// least_j = min(least_j, C_ij - f_i) over the rows that are on.
template <typename T>
void least_in_columns(const T* cost, int64_t m, const double* f, const T* rows_on, double* least, int64_t begin, int64_t end);

// Half an iteration and what the other half needs: u_i = a_i / (t K_i v), at most cap_i (cap null: no cap), and sums += u_i K_i.
template <typename T>
void scale_rows(Matrix<T> K, const T* v, T t, const T* a, const T* cap, T* u, T* sums, int64_t begin, int64_t end);

// dots_i = K_i x, sums += (weight_i dots_i) K_i: a product with K'diag(weight)K in one pass.
template <typename T>
void multiply_rows(Matrix<T> K, const T* x, const T* weight, T* dots, T* sums, int64_t begin, int64_t end);
// dots_i = K_i x.
template <typename T>
void dot_rows(Matrix<T> K, const T* x, T* dots, int64_t begin, int64_t end);
// sums += weight_i K_i.
template <typename T>
void add_rows(Matrix<T> K, const T* weight, T* sums, int64_t begin, int64_t end);

// K becomes diag(u) K diag(v), with its sums over the columns that are in `ones` and, added, over rows.
template <typename T>
void plan_rows(Matrix<T> K, const T* u, const T* v, const T* ones, T* row_sums, T* col_sums, int64_t begin, int64_t end);

// row_sums_i, and sums (m) += the rows of H, (n, m).
template <typename T>
void sum_rows(const T* H, int64_t m, double* row_sums, T* sums, int64_t begin, int64_t end);

// out_ij = (P_ij (x_i + y_j + z) - H_ij) / eps, all of (n, m).
template <typename T>
void gradient_rows(const T* P, const T* H, const T* x, const T* y, T z, T over_eps, int64_t m, T* out, int64_t begin, int64_t end);

}  // namespace transphere
