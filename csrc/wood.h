// Wood's rejection step for the von Mises-Fisher law, in a form without cancellation at any dimension or concentration.
//
// With n = d - 1, c = hypot(2k, n), x0 = 2k / (n + c), the proposal moves the first coordinate x of a uniform point of the sphere to
//   w = (x + x0) / s,   1 - w = (1 - x)(1 - x0) / s,   1 - w^2 = (1 - x^2)(1 - x0^2) / s^2,   s = 1 + x0 x,
// and is accepted iff Exp(1) > n [log s - x0 x / s]: the Moebius form of Wood (1994), see docs/mathematics.md.
#pragma once
#include <cmath>

#include "fastmath.h"
#include "philox.h"

namespace transphere {

constexpr int kMaxAttempts = 32;  // acceptance is at least .6577: the last attempt is reached once in 1e15 draws
constexpr float kLeastRadius2 = 5.9604644775390625e-8f;  // a Gaussian pair is never (0, 0): the whole vector would be, at d = 2
constexpr uint32_t kNormalStream = 0, kAttemptStream = 1;

struct Wood {
  double n, x0, one_minus_x0;

  TS_HD Wood(double kappa, double d) : n(d - 1) {
    const double c = length(2 * kappa, n);
    x0 = 2 * kappa / (n + c);
    one_minus_x0 = 2 * n / (n + 2 * kappa + c);
  }

  // x and 1 - x^2 of the uniform point, Exp(1) from `word`; returns acceptance, with w and 1 - w^2.
  TS_HD bool propose(double x, double one_minus_x2, uint32_t word, double& w, double& one_minus_w2) const {
    const double small = one_minus_x2 / (1 + fabs(x));  // 1 - |x|
    const double one_minus_x = x >= 0 ? small : 1 - x, one_plus_x = x >= 0 ? 1 + x : small;
    const double s = one_plus_x - one_minus_x0 * x, over_s = 1 / s;
    w = 1 - one_minus_x * one_minus_x0 * over_s;
    one_minus_w2 = one_minus_x2 * one_minus_x0 * (1 + x0) * over_s * over_s;
    return -log_positive(uniform_positive<double>(word)) > n * (log_positive(s) - x0 * x * over_s);
  }
};

// First coordinate of a uniform point of S^n, redrawn after a rejection: Ulrich's (1984) exact symmetric beta.
TS_HD void uniform_coordinate(double n, uint32_t word1, uint32_t word2, double& x, double& one_minus_x2) {
  const double u = uniform<double>(word1), power = n > 1 ? 2 / (n - 1) : 0;
  double p, one_minus_p, sine, cosine;
  exp_and_rest(power * log_positive(u > 0 ? u : 1.0), p, one_minus_p);  // p = u^power, but 0 where u is, and on the circle
  const bool none = (n <= 1) | (u == 0);  // without a branch
  p = none ? 0.0 : p;
  one_minus_p = none ? 1.0 : one_minus_p;
  sincos_turns(uniform<double>(word2), sine, cosine);
  x = sqrt(one_minus_p) * cosine;
  one_minus_x2 = p + one_minus_p * sine * sine;
}

// One attempt at w and 1 - w^2. The first proposal comes from a Gaussian vector: x = g0 / |g|, rest2 = |g|^2 - g0^2.
TS_HD bool attempt_w(const Wood& wood, uint32_t word0, uint32_t word1, uint32_t word2, bool is_first, double g0, double rest2, double& w,
                     double& one_minus_w2) {
  double x, one_minus_x2;
  if (is_first) {
    const double scale = 1 / (g0 * g0 + rest2);
    x = g0 * sqrt(scale);
    one_minus_x2 = rest2 * scale;
  } else {
    uniform_coordinate(wood.n, word1, word2, x, one_minus_x2);
  }
  return wood.propose(x, one_minus_x2, word0, w, one_minus_w2);
}

}  // namespace transphere
