// One problem on its way. The state is P = t diag(u) K diag(v) with K = exp((f_i + g_j + h - C_ij) / eps): the logarithms of u, v and t
// move into f, g and h, and K is formed anew, before anything leaves the range of T.
#pragma once
#include <limits>
#include <vector>

#include "sinkhorn.h"
#include "sinkhorn_form.h"
#include "sinkhorn_rows.h"
#include "sinkhorn_system.h"

namespace transphere {

// Serves one problem after another of one shape.
template <typename T>
struct SinkhornState {
  SinkhornState(const SinkhornProblems<T>& problems, const Split& split);

  void start(int64_t problem);  // sinkhorn_start.cpp; all else: sinkhorn_state.cpp

  // An iteration: u from v and t, with sums = K'u; then v and t from u. The second half returns the error before it: how far v moves, and
  // t.
  void scale_all_rows();
  double scale_columns();
  double total() const;  // u'K v

  bool out_of_range() const { return drift + product() > far(); }
  // u, v and t into f, g and h, exactly 0 where the constraint is slack, and K from those.
  void form_again();
  // K becomes P, with its sums, and the logarithms of u, v and t move into f, g and h. Multiplying keeps each entry to a rounding; forming
  // K anew would shake it by several, which a plan near a permutation answers by going far.
  void merge();
  // The plan's error, from its own sums, after merge().
  double plan_error() const;
  void report(double error, double tol);

  const SinkhornProblems<T>& q;
  const Split& split;
  const int64_t n, m, width;
  int64_t problem = 0, iterations = 0;
  SinkhornForm<T> form;
  Matrix<T> K{};
  std::vector<double> f, g;
  double h = 0, drift = 0;  // drift: how far K has come since it was formed, as far() counts
  std::vector<T> u, v, old_v, cap_u, cap_v, sums, row_sums;  // those of columns (width); caps: where the potential would be 0
  T t = 1, old_t = 1;  // old: before scale_columns()

 private:
  double level(bool given);
  void form_kernel();
  void set_caps();
  void absorb();
  double product() const;
  void raise(std::vector<T>& u, const std::vector<T>& cap, int64_t size);

  // How far, in logarithms, products u K v may be from K before entries that were flushed to zero could count.
  static double far() { return std::is_same<T, float>::value ? 50 : 500; }

  const T* cost_ = nullptr;
  T* plan_ = nullptr;
  std::vector<double> least_;
  std::vector<T> scratch_, partial_;
};

}  // namespace transphere
