// What an iteration does to vectors besides its pass over K, and the logarithms on the way: in lanes, always summed in the same order.
#pragma once
#include "portable.h"

namespace transphere {

// v = b / (t sums), at most cap (null: no cap), 0 where b is; old_v is the one before.
struct ColumnSums {
  double moved, before, after;  // sum |v - old_v| sums, old_v'sums, v'sums
};
template <typename T>
ColumnSums scale_vector(const T* b, const T* sums, const T* cap, T t, T* v, T* old_v, int64_t m);

// The largest entry, at least 0; that of x / cap.
template <typename T>
T largest(const T* x, int64_t n);
template <typename T>
T largest_ratio(const T* x, const T* cap, int64_t n);
// x / most, at most cap; what comes within a few roundings of cap is cap.
template <typename T>
void raise_vector(T* x, const T* cap, T most, int64_t n);

// cap_i = exp(-f_i / eps).
template <typename T>
void cap_vector(const double* f, double over_eps, T* cap, int64_t n);
// f += eps log u and u = 1, where on; f <= 0 and exactly 0 where u = cap (null: no cap).
template <typename T>
void absorb_vector(double* f, T* u, const T* cap, const T* on, double eps, int64_t n);
// sum |sums - weight|, or with potentials f <= 0 (else null) sum |sums - min(weight, sums exp(-f / eps))|.
template <typename T>
double miss_vector(const T* sums, const T* weight, const double* f, double over_eps, int64_t n);

// out = log(x / y), 0 where one of them is.
template <typename T>
void log_ratio(const T* x, const T* y, T* out, int64_t n);
// out_k = sum x_i weight_i ys_ki, k < count.
template <typename T>
void weighted_dots(const T* x, const T* ys, int count, const T* weight, int64_t n, double* out);
// out = -sum_k by_k xs_k, k < count; returns its largest size, not a number if there is one.
template <typename T>
double combine_vectors(const T* xs, const double* by, int count, T* out, int64_t n);
// v *= exp(move), at most cap (null: no cap).
template <typename T>
void move_vector(const T* move, const T* cap, T* v, int64_t n);

}  // namespace transphere
