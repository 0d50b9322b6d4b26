// Newton's method on the dual of one problem, where iterations are slow.
#pragma once
#include <algorithm>
#include <limits>
#include <memory>

#include "sinkhorn_state.h"

namespace transphere {

template <typename T>
class SinkhornNewton {
 public:
  // Before another problem.
  void forget() {
    newtons_ = failures_ = stalls_ = 0, patience_ = 20;
    last_error_ = std::numeric_limits<double>::infinity();
  }

  // Iterations to wait for before a step.
  int64_t patience() const { return patience_; }
  // Of a step, in iterations: the product that the factor is of, and a few steps of its solve.
  double cost(const SinkhornState<T>& state) const { return newtons_ ? 16 : 24 + double(std::min(state.n, state.m)) / 4; }
  // Whether steps no longer help, within what rounding explains. To be asked before each.
  bool stalled(double error, double mass);

  // A step in all potentials that are free, followed by the rows' update, which can but raise the dual; shortened until the dual does not
  // fall, first to where no potential moves by more than kReach: between clusters a whole step can be 1e9 too long. Solved as loosely as
  // `error`, that of the state over its mass, allows. Where it fails altogether the state is that before.
  void step(SinkhornState<T>& state, double error);

 private:
  std::unique_ptr<PlanSystem<T>> system_;
  int64_t newtons_ = 0, patience_ = 0;
  int failures_ = 0, stalls_ = 0;
  double last_error_ = 0;  // when stalled() was last asked
};

}  // namespace transphere
