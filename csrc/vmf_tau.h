// dw/dkappa of a von Mises-Fisher draw.
//
// implicit (unbiased), at fixed F(w): tau_d(w) = (1 / p(w)) int_w^1 (t - A) p(t) dt. Integration by parts links dimensions d and d + 2:
//   tau_d = v / (d - 1) [1 - A_d (w + k tau_{d+2})],   v = 1 - w^2,   A_d = k / (d + k A_{d+2}).
// Downward both forget where they began by a factor of about A^2 a step. They begin `tau_steps` up, at D, with
//   tau_D = v / g [1 + (k / g^2) (w + x0 + n x0 (c + g) / c^2)],   A_D = x0 (1 - n / c^2),
// n = D - 1, c = hypot(2k, n), x0 = 2k / (n + c), g = k w + (n + c) / 2. Relative error within 6 standard deviations, at any d >= 2:
// below 3e-8 for k < 1000 (1e-15 at d = 512), and 5e-7 beyond, where no step is needed.
//
// pathwise: v / c, the derivative of the accepted proposal, whose mean is n A / (k c) instead of Var w. See docs/mathematics.md.
#pragma once
#include "wood.h"

namespace transphere {

TS_HD int tau_steps(double k, double d) { return k < 1000 ? int(6 + 3.5 * sqrt(k * Wood(k, d).x0)) : 0; }

struct Tau {
  double tau, B;  // B = 1 - A, which keeps its digits at large k

  TS_HD Tau(double w, double v, double k, double D) {
    const double n = D - 1, c = length(2 * k, n), x0 = 2 * k / (n + c), g = k * w + 0.5 * (n + c);
    tau = v / g * (1 + k / (g * g) * (w + x0 + n * x0 * (c + g) / (c * c)));
    B = 2 * n / (n + 2 * k + c) + x0 * n / (c * c);
  }
  TS_HD Tau(double tau_, double B_) : tau(tau_), B(B_) {}

  TS_HD void step_down_to(double d, double w, double v, double k) {
    const double below = w > 0 ? v / (1 + w) : 1 - w;  // 1 - w
    const double scale = 1 / (d + k * (1 - B));
    B = (d - k * B) * scale;
    tau = v * (1 / (d - 1)) * (B + k * scale * (below - k * tau));
  }
};

// One slope; v > 0.
TS_HD double vmf_tau(double w, double v, double k, int64_t d, bool pathwise) {
  if (infinite(k)) return 0;
  if (pathwise) return v / length(2 * k, double(d - 1));
  const int steps = tau_steps(k, double(d));
  Tau state(w, v, k, double(d + 2 * steps));
  for (int i = steps - 1; i >= 0; --i) state.step_down_to(double(d + 2 * i), w, v, k);
  return state.tau;
}

// kLanes of them, each with its own k and d the same; where v is 0 the slope is 0.
inline void vmf_tau_lanes(const double (&w)[kLanes], const double (&v)[kLanes], const double (&k)[kLanes], int64_t d, bool pathwise,
                          double (&slope)[kLanes]) {
  double B[kLanes], steps[kLanes], finite[kLanes];
  int most = 0;
  TS_SIMD
  for (int l = 0; l < kLanes; ++l) {
    finite[l] = infinite(k[l]) ? 0.0 : k[l];
    steps[l] = double(tau_steps(finite[l], double(d)));
  }
  TS_SIMD
  for (int l = 0; l < kLanes; ++l) most = int(steps[l]) > most ? int(steps[l]) : most;
  if (pathwise) {
    TS_SIMD
    for (int l = 0; l < kLanes; ++l) slope[l] = v[l] / length(2 * finite[l], double(d - 1));
  } else {
    TS_SIMD
    for (int l = 0; l < kLanes; ++l) {
      const Tau start(w[l], v[l], finite[l], double(d) + 2 * steps[l]);
      slope[l] = start.tau;
      B[l] = start.B;
    }
    for (int i = most - 1; i >= 0; --i)
      TS_SIMD
      for (int l = 0; l < kLanes; ++l) {
        Tau state(slope[l], B[l]);
        state.step_down_to(double(d + 2 * i), w[l], v[l], finite[l]);
        slope[l] = i < steps[l] ? state.tau : slope[l];
        B[l] = i < steps[l] ? state.B : B[l];
      }
  }
  TS_SIMD
  for (int l = 0; l < kLanes; ++l) slope[l] = infinite(k[l]) || !(v[l] > 0) ? 0.0 : slope[l];
}

}  // namespace transphere
