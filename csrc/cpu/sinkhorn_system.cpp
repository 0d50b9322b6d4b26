#include "sinkhorn_system.h"

#include <cmath>

namespace transphere {

// Beyond this order the factor's cubes cost more than many more iterations.
constexpr int64_t kLargestFactor = 2048;

constexpr int64_t kSplitGram = 1 << 23;  // products, some 50 us of one core

template <typename T>
SinkhornSystem<T>::SinkhornSystem(int64_t n, int64_t m, const Split& split)
    : n_(n), m_(m), width_(padded(m)), order_((m + kTile) / kTile * kTile), stride_(order_ + kLanes), split_(split), r_(n), c_(m), on_(m),
      outside_(m), right_(m + 1), solution_(m + 1), residual_(m + 1), direction_(m + 1), conditioned_(m + 1), applied_(m + 1), weight_(n),
      dots_(n), input_(width_), sums_(width_) {}

template <typename T>
void SinkhornSystem<T>::set(Matrix<T> P, const T* row_sums, const T* col_sums, const T* rows_on, const T* cols_on, bool mass, bool gauge) {
  P_ = P, mass_ = mass, gauge_ = gauge, total_ = outside_total_ = 0;
  for (int64_t j = 0; j < m_; ++j) c_[j] = col_sums[j], on_[j] = cols_on[j] != T(0) && col_sums[j] > T(0) ? 1 : 0;
  factored_ = factored_ && factored_on_ == on_;
  for (int64_t i = 0; i < n_; ++i) {
    r_[i] = row_sums[i];
    total_ += r_[i];
    const bool on = rows_on[i] != T(0) && row_sums[i] > T(0);
    outside_total_ += on ? 0 : r_[i];
    weight_[i] = on ? T(0) : T(1);
  }
  if (mass_) {
    over_rows<T>(n_, width_, split_, partial_, sums_.data(),
                 [&](int64_t begin, int64_t end, T* sums) { add_rows(P_, weight_.data(), sums, begin, end); });
    for (int64_t j = 0; j < m_; ++j) outside_[j] = on_[j] * double(sums_[j]);
  }
  for (int64_t i = 0; i < n_; ++i) weight_[i] = weight_[i] == T(0) ? T(1) / row_sums[i] : T(0);
}

// out = S d. With w = (P y)_i / r_i on I: c_j y_j + outside_j z - P_j'w on J, and outside'y + outside_total z. The parts of z that
// would cancel, c_j less what lies in I, are never formed.
template <typename T>
void SinkhornSystem<T>::apply(const std::vector<double>& d, std::vector<double>& out) {
  for (int64_t j = 0; j < m_; ++j) input_[j] = T(on_[j] * d[j]);
  over_rows<T>(n_, width_, split_, partial_, sums_.data(), [&](int64_t begin, int64_t end, T* sums) {
    multiply_rows(P_, input_.data(), weight_.data(), dots_.data(), sums, begin, end);
  });
  const double z = mass_ ? d[m_] : 0;
  out[m_] = outside_total_ * z;
  for (int64_t j = 0; j < m_; ++j) {
    out[j] = on_[j] * (c_[j] * d[j] - double(sums_[j]));
    if (mass_) out[j] += outside_[j] * z, out[m_] += outside_[j] * d[j];
  }
  if (!mass_) out[m_] = 0;
}

template <typename T>
double SinkhornSystem<T>::norm(const std::vector<double>& residual) const {
  double sum = mass_ ? residual[m_] * residual[m_] / total_ : 0;
  for (int64_t j = 0; j < m_; ++j)
    if (on_[j] != 0) sum += residual[j] * residual[j] / c_[j];
  return sum;
}

// Balanced, what the matrix gives sums to 0, and the constant that it does not see is chosen by c'y = 0.
template <typename T>
void SinkhornSystem<T>::centre_residual(std::vector<double>& x) const {
  if (!gauge_) return;
  double sum = 0, total = 0;
  for (int64_t j = 0; j < m_; ++j) sum += on_[j] * x[j], total += on_[j] * c_[j];
  for (int64_t j = 0; j < m_; ++j) x[j] -= on_[j] * c_[j] * (sum / total);
}

template <typename T>
void SinkhornSystem<T>::precondition(Preconditioner by, const std::vector<double>& residual, std::vector<double>& out) {
  if (by == kDiagonal) {
    for (int64_t j = 0; j < m_; ++j) out[j] = on_[j] != 0 ? residual[j] / c_[j] : 0;
    out[m_] = mass_ ? residual[m_] / std::fmax(outside_total_, 1e-6 * total_) : 0;
  } else {
    double largest = 0;
    for (const double x : residual) largest = std::fmax(largest, std::fabs(x));
    const double scale = largest > 0 ? largest : 1;
    rounded_.assign(order_, 0.0f);
    for (int64_t j = 0; j <= m_; ++j) rounded_[j] = float(residual[j] / scale);
    cholesky_solve(factor_.data(), order_, stride_, rounded_.data());
    for (int64_t j = 0; j < m_; ++j) out[j] = on_[j] * double(rounded_[j]) * scale;
    out[m_] = mass_ ? double(rounded_[m_]) * scale : 0;
  }
  if (gauge_) {
    double sum = 0, total = 0;
    for (int64_t j = 0; j < m_; ++j) sum += on_[j] * c_[j] * out[j], total += on_[j] * c_[j];
    for (int64_t j = 0; j < m_; ++j) out[j] -= on_[j] * (sum / total);
  }
}

// S as a Laplacian: its off-diagonal entries, -P_j'diag(1/r)P_k, are sums of one sign, exact to rounding, and the diagonal is the sum of
// their sizes and of what leaks to rows and columns that are off. c_j - P_j'diag(1/r)P_j would be nothing but rounding near a permutation.
template <typename T>
void SinkhornSystem<T>::factorise() {
  const int64_t stride = stride_;
  panels_.assign(order_ * n_, 0.0f);
  for (int64_t i = 0; i < n_; ++i) {
    const T scale = std::sqrt(weight_[i]), *row = P_[i];
    for (int64_t j = 0; j < m_; ++j) panels_[(j / kTile * n_ + i) * kTile + j % kTile] = float(scale * row[j] * T(on_[j]));
  }
  factor_.assign(order_ * stride, 0.0f);
  const auto gram = [&](int64_t begin, int64_t end) { gram_tiles(panels_.data(), n_, order_, factor_.data(), stride, begin, end); };
  if (n_ * order_ * order_ < kSplitGram) gram(0, order_ / kTile);
  else split_(order_ / kTile, gram);

  std::vector<double> diagonal(order_, 0.0), leak(m_ + 1, 0.0);
  if (!gauge_) {
    std::vector<double> ones(m_ + 1, 1.0);
    ones[m_] = 0;
    apply(ones, leak);
  }
  for (int64_t j = 0; j < m_; ++j) {
    float* row = factor_.data() + j * stride;
    for (int64_t k = j + 1; k < m_; ++k) {
      diagonal[j] += row[k];
      diagonal[k] += row[k];
      row[k] = -row[k];
    }
  }
  floor_.assign(order_, 1.0f);
  double total = 0;
  for (int64_t j = 0; j < m_; ++j) total += on_[j] * c_[j];
  for (int64_t j = 0; j < order_; ++j) {
    float* row = factor_.data() + j * stride;
    if (j < m_ && on_[j] != 0) {
      row[j] = float(diagonal[j] + std::fmax(leak[j], 0) + 1e-7 * c_[j]);
      floor_[j] = float(1e-7 * c_[j]);
      if (mass_) row[m_] = float(outside_[j]);
      if (gauge_)
        for (int64_t k = j; k < m_; ++k) row[k] += float(on_[k] * c_[j] * c_[k] / total);
    } else if (j == m_ && mass_) {
      row[j] = float(outside_total_ + 1e-6 * total_);
      floor_[j] = float(1e-6 * total_);
    } else {
      row[j] = 1.0f;
    }
  }
  cholesky(factor_.data(), order_, stride, floor_.data(), split_);
  factored_on_ = on_;
  factored_ = true;
}

// Preconditioned conjugate gradients from solution_, at most `most` steps, until norm(residual) <= enough.
template <typename T>
bool SinkhornSystem<T>::descend(Preconditioner by, double enough, int64_t most) {
  apply(solution_, applied_);
  for (int64_t j = 0; j <= m_; ++j) residual_[j] = right_[j] - applied_[j];
  centre_residual(residual_);
  double last = 0;
  for (int64_t step = 0; norm(residual_) > enough; ++step) {
    if (step == most) return false;
    precondition(by, residual_, conditioned_);
    double product = 0, curvature = 0;
    for (int64_t j = 0; j <= m_; ++j) product += residual_[j] * conditioned_[j];
    const double beta = step ? product / last : 0;
    last = product;
    for (int64_t j = 0; j <= m_; ++j) direction_[j] = conditioned_[j] + beta * direction_[j];
    apply(direction_, applied_);
    for (int64_t j = 0; j <= m_; ++j) curvature += direction_[j] * applied_[j];
    if (!(product > 0 && curvature > 0)) return false;  // rounding is all that is left, or a NaN
    const double length = product / curvature;
    for (int64_t j = 0; j <= m_; ++j) {
      solution_[j] += length * direction_[j];
      residual_[j] -= length * applied_[j];
    }
    centre_residual(residual_);
  }
  return true;
}

template <typename T>
void SinkhornSystem<T>::solve(const double* p, const double* q, double o, double tolerance, double* x, double* y, double& z) {
  std::vector<T> share(n_);
  double taken = 0;
  for (int64_t i = 0; i < n_; ++i) {
    share[i] = T(p[i]) * weight_[i];
    if (weight_[i] > T(0)) taken += p[i];
  }
  over_rows<T>(n_, width_, split_, partial_, sums_.data(),
               [&](int64_t begin, int64_t end, T* sums) { add_rows(P_, share.data(), sums, begin, end); });
  for (int64_t j = 0; j < m_; ++j) right_[j] = on_[j] * (q[j] - double(sums_[j]));
  right_[m_] = mass_ ? o - taken : 0;
  centre_residual(right_);
  for (double& s : solution_) s = 0;

  const double enough = tolerance * tolerance * norm(right_);
  if (enough > 0) {
    if (m_ > kLargestFactor) {
      descend(kDiagonal, enough, 1000);
    } else if (!(factored_ ? descend(kFactor, enough, 12) : descend(kDiagonal, enough, 8 + m_ / 8))) {
      factorise();
      if (!descend(kFactor, enough, 30)) descend(kFactor, enough, 30);
    }
  }
  for (int64_t j = 0; j < m_; ++j) input_[j] = T(y[j] = on_[j] * solution_[j]);
  z = mass_ ? solution_[m_] : 0;
  split_rows(n_, width_, split_, [&](int64_t begin, int64_t end) { dot_rows(P_, input_.data(), dots_.data(), begin, end); });
  for (int64_t i = 0; i < n_; ++i) x[i] = weight_[i] > T(0) ? (p[i] - double(dots_[i])) / r_[i] - z : 0;
}

template <typename T>
PlanSystem<T>::PlanSystem(int64_t n, int64_t m, const Split& split)
    : r(n), c(padded(m)), rows_on(n), cols_on(padded(m)), p(n), q(m), x(n), y(m), n_(n), m_(m), transposed_(m > n), split_(split),
      system_(transposed_ ? m : n, transposed_ ? n : m, split) {}

template <typename T>
void PlanSystem<T>::sums(Matrix<T> P, const T* rows, const T* cols) {
  split_rows(n_, P.width, split_, [&](int64_t begin, int64_t end) { dot_rows(P, cols, r.data(), begin, end); });
  over_rows<T>(n_, P.width, split_, partial_, c.data(), [&](int64_t begin, int64_t end, T* sums) { add_rows(P, rows, sums, begin, end); });
}

template <typename T>
void PlanSystem<T>::solve(Matrix<T> P, bool mass, bool gauge, double tolerance, bool fresh) {
  if (fresh) system_.forget();
  if (!transposed_) {
    system_.set(P, r.data(), c.data(), rows_on.data(), cols_on.data(), mass, gauge);
    return system_.solve(p.data(), q.data(), o, tolerance, x.data(), y.data(), z);
  }
  const int64_t width = padded(n_);
  copy_.assign(m_ * width, T(0));
  split_rows(m_, width, split_, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < n_; i += kLanes)
      for (int64_t j = begin; j < end; ++j)
        for (int64_t k = i; k < n_ && k < i + kLanes; ++k) copy_[j * width + k] = P[k][j];
  });
  system_.set({copy_.data(), width, width}, c.data(), r.data(), cols_on.data(), rows_on.data(), mass, gauge);
  system_.solve(q.data(), p.data(), o, tolerance, y.data(), x.data(), z);
}

template class SinkhornSystem<float>;
template class SinkhornSystem<double>;
template class PlanSystem<float>;
template class PlanSystem<double>;

}  // namespace transphere
