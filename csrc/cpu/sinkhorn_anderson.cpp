#include "sinkhorn_anderson.h"

#include <cmath>

#include "sinkhorn_vectors.h"

namespace transphere {
namespace {

constexpr double kRidge = 1e-8;    // relative to the diagonal: differences are nearly parallel
constexpr double kFurthest = 5;    // in logarithms: what goes further is noise
constexpr double kWorse = 2;       // times the lowest error
constexpr double kQuick = 0.05;    // times the last error

}  // namespace

template <typename T>
void SinkhornAnderson<T>::remember(const SinkhornState<T>& state) {
  step_.swap(last_step_);
  last_step_t_ = step_t_;
  log_ratio(state.v.data(), state.old_v.data(), step_.data(), m_);
  step_t_ = state.form.has_mass() ? std::log(double(state.t) / double(state.old_t)) : 0;
  if (held_) {
    newest_ = (newest_ + 1) % kMemory;
    pairs_ = pairs_ < kMemory ? pairs_ + 1 : kMemory;
    T* step = steps_.data() + newest_ * m_;
    for (int64_t j = 0; j < m_; ++j) step[j] = step_[j] - last_step_[j];
    log_ratio(state.v.data(), last_v_.data(), moves_.data() + newest_ * m_, m_);
    steps_t_[newest_] = step_t_ - last_step_t_;
    moves_t_[newest_] = state.form.has_mass() ? std::log(double(state.t) / last_t_) : 0;
    weighted_dots(step, steps_.data(), pairs_, state.form.b.data(), m_, products_[newest_]);
    for (int k = 0; k < pairs_; ++k) products_[k][newest_] = products_[newest_][k];
    weighted_dots(step_.data(), steps_.data(), pairs_, state.form.b.data(), m_, along_);
  }
  std::copy(state.v.begin(), state.v.begin() + m_, last_v_.begin());
  last_t_ = state.t;
  held_ = true;
}

// Least squares over the differences, by Cholesky's factor of their equilibrated products.
template <typename T>
bool SinkhornAnderson<T>::combine(double weight_t, double (&x)[kMemory]) const {
  double L[kMemory][kMemory], scale[kMemory];
  for (int i = 0; i < pairs_; ++i) {
    const double square = products_[i][i] + weight_t * steps_t_[i] * steps_t_[i];
    if (!(square > 0)) return false;
    scale[i] = 1 / std::sqrt(square);
    x[i] = scale[i] * (along_[i] + weight_t * steps_t_[i] * step_t_);
    for (int j = 0; j <= i; ++j) {
      double sum = i == j ? 1 + kRidge : scale[i] * scale[j] * (products_[i][j] + weight_t * steps_t_[i] * steps_t_[j]);
      for (int k = 0; k < j; ++k) sum -= L[i][k] * L[j][k];
      if (i == j && !(sum > 0)) return false;
      L[i][j] = i == j ? std::sqrt(sum) : sum / L[j][j];
    }
    for (int k = 0; k < i; ++k) x[i] -= L[i][k] * x[k];
    x[i] /= L[i][i];
  }
  for (int i = pairs_ - 1; i >= 0; --i) {
    for (int k = i + 1; k < pairs_; ++k) x[i] -= L[k][i] * x[k];
    x[i] /= L[i][i];
  }
  for (int i = 0; i < pairs_; ++i) x[i] *= scale[i];
  return true;
}

template <typename T>
void SinkhornAnderson<T>::extrapolate(SinkhornState<T>& state, double error) {
  if (lowest_ > 0 && error > kWorse * lowest_) return forget();
  const bool quick = error < kQuick * last_error_;
  lowest_ = lowest_ > 0 && lowest_ < error ? lowest_ : error;
  last_error_ = error;
  remember(state);
  double combination[kMemory];
  if (quick || !pairs_ || !combine(state.form.has_mass() ? state.form.mass : 0, combination)) return;

  double move_t = 0;
  for (int k = 0; k < pairs_; ++k) move_t -= combination[k] * moves_t_[k];
  T* move = last_step_.data();  // not needed before the next step takes its place
  const double furthest = combine_vectors(moves_.data(), combination, pairs_, move, m_);
  if (!(std::fmax(furthest, std::fabs(move_t)) <= kFurthest)) return forget();
  move_vector(move, state.form.tight_cols ? nullptr : state.cap_v.data(), state.v.data(), m_);
  state.t *= T(std::exp(move_t));
}

template class SinkhornAnderson<float>;
template class SinkhornAnderson<double>;

}  // namespace transphere
