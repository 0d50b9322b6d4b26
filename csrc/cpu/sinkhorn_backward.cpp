#include <limits>

#include "sinkhorn.h"
#include "sinkhorn_form.h"
#include "sinkhorn_rows.h"
#include "sinkhorn_system.h"

namespace transphere {
namespace {

template <typename T>
class Gradient {
 public:
  Gradient(const SinkhornGradients<T>& q, const Split& split)
      : q_(q), split_(split), n_(q.n), m_(q.m), width_(padded(q.m)), form_(q.n, q.m), system_(q.n, q.m, split), sums_(width_),
        scratch_(width_ == m_ ? 0 : n_ * width_) {}

  void solve(int64_t k) {
    const T *plan = q_.plan + k * n_ * m_, *H = q_.grad_log_plan + k * n_ * m_;
    form_.set(q_.a + k * n_, q_.b + k * m_, q_.mass ? q_.mass + k : nullptr);
    const Matrix<T> P = padded_rows(plan);
    PlanSystem<T>& s = system_;
    s.sums(P, form_.rows_on.data(), form_.cols_on.data());
    const T *f = q_.f + k * n_, *g = q_.g + k * m_;
    for (int64_t i = 0; i < n_; ++i) s.rows_on[i] = T(form_.rows_on[i] != T(0) && (form_.tight_rows || f[i] < T(0)));
    for (int64_t j = 0; j < m_; ++j) s.cols_on[j] = T(form_.cols_on[j] != T(0) && (form_.tight_cols || g[j] < T(0)));

    over_rows<T>(n_, m_, split_, partial_, sums_.data(),
                 [&](int64_t begin, int64_t end, T* sums) { sum_rows(H, m_, s.p.data(), sums, begin, end); });
    s.o = 0;
    for (int64_t i = 0; i < n_; ++i) s.o += s.p[i];
    for (int64_t j = 0; j < m_; ++j) s.q[j] = sums_[j];
    const bool balanced = form_.tight_rows && form_.tight_cols;
    s.solve(P, form_.has_mass(), balanced, 32 * double(std::numeric_limits<T>::epsilon()), true);
    if (balanced) choose_constant();

    T *da = q_.grad_a + k * n_, *db = q_.grad_b + k * m_;
    for (int64_t i = 0; i < n_; ++i) da[i] = T(s.x[i]);
    for (int64_t j = 0; j < m_; ++j) db[j] = T(s.y[j]);
    q_.grad_mass[k] = T(s.z);
    split_rows(n_, m_, split_, [&](int64_t begin, int64_t end) {
      gradient_rows(plan, H, da, db, T(s.z), T(1 / q_.eps), m_, q_.grad_cost + k * n_ * m_, begin, end);
    });
  }

 private:
  // The system may have been solved transposed, with r'lam = 0: c'mu = 0 is wanted.
  void choose_constant() {
    PlanSystem<T>& s = system_;
    double sum = 0, total = 0;
    for (int64_t j = 0; j < m_; ++j)
      if (s.cols_on[j] != T(0)) sum += double(s.c[j]) * s.y[j], total += double(s.c[j]);
    const double shift = total > 0 ? sum / total : 0;
    for (int64_t j = 0; j < m_; ++j) s.y[j] -= s.cols_on[j] != T(0) ? shift : 0;
    for (int64_t i = 0; i < n_; ++i) s.x[i] += s.rows_on[i] != T(0) ? shift : 0;
  }

  Matrix<T> padded_rows(const T* plan) {
    if (width_ == m_) return {const_cast<T*>(plan), m_, m_};  // read only
    for (int64_t i = 0; i < n_; ++i)
      for (int64_t j = 0; j < m_; ++j) scratch_[i * width_ + j] = plan[i * m_ + j];
    return {scratch_.data(), width_, width_};
  }

  const SinkhornGradients<T>& q_;
  const Split& split_;
  const int64_t n_, m_, width_;
  SinkhornForm<T> form_;
  PlanSystem<T> system_;
  std::vector<T> sums_, scratch_, partial_;
};

}  // namespace

template <typename T>
void sinkhorn_backward_cpu(const SinkhornGradients<T>& gradients, int64_t begin, int64_t end, const Split& split) {
  Gradient<T> gradient(gradients, split);
  for (int64_t k = begin; k < end; ++k) gradient.solve(k);
}
template void sinkhorn_backward_cpu(const SinkhornGradients<float>&, int64_t, int64_t, const Split&);
template void sinkhorn_backward_cpu(const SinkhornGradients<double>&, int64_t, int64_t, const Split&);

}  // namespace transphere
