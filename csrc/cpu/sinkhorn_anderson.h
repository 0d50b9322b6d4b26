// Anderson's acceleration of Sinkhorn's iteration, (v, t) to (v', t'): from the last few of them, the combination that they move the least,
// to first order and in the norm that b gives. Near the solution it is what conjugate gradients are, at the price of some dots.
#pragma once
#include <vector>

#include "sinkhorn_state.h"

namespace transphere {

template <typename T>
class SinkhornAnderson {
 public:
  explicit SinkhornAnderson(int64_t m) : m_(m), step_(m), last_step_(m), last_v_(m), steps_(kMemory * m), moves_(kMemory * m) {}

  // Another problem, or another K.
  void forget() { held_ = false, pairs_ = 0, newest_ = -1, lowest_ = 0, last_error_ = 0; }

  // Moves v and t on from where an iteration has left them. They stay where the combination before made `error`, that before the
  // iteration, worse (to go back to where it started is no quicker), and where iterations are quick by themselves.
  void extrapolate(SinkhornState<T>& state, double error);

 private:
  static constexpr int kMemory = 5;

  void remember(const SinkhornState<T>& state);
  bool combine(double weight_t, double (&combination)[kMemory]) const;

  const int64_t m_;
  bool held_ = false;                         // the last iteration's step, v' and t'
  int pairs_ = 0, newest_ = -1;               // differences between iterations: how many, the newest's place
  double lowest_ = 0, last_error_ = 0;        // 0: none yet
  std::vector<T> step_, last_step_, last_v_;  // (m): log v' / v, the last iteration's, and its v'
  std::vector<T> steps_, moves_;              // (kMemory, m): differences of log v' / v and of log v'
  double step_t_ = 0, last_step_t_ = 0, last_t_ = 1, steps_t_[kMemory], moves_t_[kMemory];  // the same of t
  double products_[kMemory][kMemory], along_[kMemory];  // of steps_ with each other and with step_, weighted by b
};

}  // namespace transphere
