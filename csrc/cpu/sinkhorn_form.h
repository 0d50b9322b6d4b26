// The targets of one problem as they count (csrc/sinkhorn.h, "Forms").
#pragma once
#include <type_traits>
#include <vector>

#include "sinkhorn_rows.h"

namespace transphere {

template <typename T>
struct SinkhornForm {
  SinkhornForm(int64_t n, int64_t m) : a(n), b(m), rows_on(n), cols_on(padded(m)) {}

  void set(const T* weights_a, const T* weights_b, const T* wanted) {
    const int64_t n = a.size(), m = b.size();
    double A = 0, B = 0;
    for (int64_t i = 0; i < n; ++i) A += double(weights_a[i]);
    for (int64_t j = 0; j < m; ++j) B += double(weights_b[j]);
    const double least = 1 - (std::is_same<T, float>::value ? 1e-6 : 1e-12);
    tight_rows = !wanted || double(*wanted) >= least * A;
    tight_cols = !wanted || double(*wanted) >= least * B;
    mass = tight_rows ? A : tight_cols ? B : double(*wanted);
    const double scale = tight_rows && tight_cols ? A / B : 1;
    for (int64_t i = 0; i < n; ++i) a[i] = weights_a[i], rows_on[i] = T(a[i] > T(0));
    for (int64_t j = 0; j < m; ++j) b[j] = T(double(weights_b[j]) * scale), cols_on[j] = T(weights_b[j] > T(0));
  }

  bool has_mass() const { return !(tight_rows || tight_cols); }  // a constraint of its own

  std::vector<T> a, b, rows_on, cols_on;  // cols_on is padded, with zeros
  double mass = 0;
  bool tight_rows = true, tight_cols = true;
};

}  // namespace transphere
