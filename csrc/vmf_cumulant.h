// Cumulants of w = mu . z under the von Mises-Fisher law: derivatives of Lambda(k) = log E_uniform exp(k w).
//   order 0: Lambda     1: A = E w = I_{nu+1}(k) / I_nu(k)     2: A' = Var w     3: A'' = the third cumulant,      nu = d/2 - 1
//
// At nu >= kDebyeOrder the uniform (Debye) expansion of I_nu in 1/nu, written without cancellation; below it, the recurrence downward in nu, all of
// whose terms are positive. No Bessel function is evaluated, so nothing underflows: kappa 0 .. 1e300, any d >= 2. See docs/mathematics.md.
#pragma once
#include <cmath>

#include "portable.h"

namespace transphere {

constexpr int kDebyeTerms = 7;
constexpr double kDebyeOrder = 40;
constexpr double kLargest = 1.7976931348623157e308;  // above it lies only infinity

// u_j(t) = sum_i c[j][i] t^(j + 2i), from u_{j+1} = t^2 (1 - t^2) u_j' / 2 + int_0^t (1 - 5 s^2) u_j(s) ds / 8  (DLMF 10.41.9).
struct DebyePolynomials {
  double c[kDebyeTerms + 1][kDebyeTerms + 1] = {};
  constexpr DebyePolynomials() {
    c[0][0] = 1;
    for (int j = 0; j < kDebyeTerms; ++j)
      for (int i = 0; i <= j; ++i) {
        const double e = j + 2 * i;  // t^e of u_j gives t^(e+1) and t^(e+3) of u_{j+1}
        c[j + 1][i] += c[j][i] * (e / 2 + 1 / (8 * (e + 1)));
        c[j + 1][i + 1] -= c[j][i] * (e / 2 + 5 / (8 * (e + 3)));
      }
  }
};

// Sums over j of the polynomials over nu^j, and their t-derivatives: U = sum u_j, S = sum_{j >= 1} (u_{j-1}/2 + t u'_{j-1}), dU = U(t) - U(1).
struct DebyeSums {
  double U = 1, U_t = 0, S = 0, S_t = 0, U_1 = 1, dU = 0;

  TS_HD DebyeSums(double nu, double t, double one_minus_t) {
    constexpr DebyePolynomials p;
    double scale = 1, tj = 1;  // nu^-j, t^j
    const double t2 = t * t;
    for (int j = 0; j <= kDebyeTerms; ++j) {
      double u = 0, u_t = 0, s = 0, s_t = 0, u_1 = 0, du = 0, power = tj, falling = one_minus_power(t, one_minus_t, j);
      for (int i = 0; i <= j; ++i) {
        const double e = j + 2 * i, term = p.c[j][i] * power;
        u += term;
        u_t += e * term;  // t u'
        s += (0.5 + e) * term;
        s_t += e * (0.5 + e) * term;
        u_1 += p.c[j][i];
        du -= p.c[j][i] * falling;
        power *= t2;
        falling = falling + (1 - falling) * one_minus_t * (1 + t);  // 1 - t^(e+2)
      }
      if (j) U += scale * u, U_t += scale * u_t, U_1 += scale * u_1, dU += scale * du;
      S += scale / nu * s;
      S_t += scale / nu * s_t;
      scale /= nu;
      tj *= t;
    }
    if (t > 0) U_t /= t, S_t /= t;
  }

  TS_HD static double one_minus_power(double t, double one_minus_t, int j) {  // 1 - t^j without cancellation
    double sum = 0, power = 1;
    for (int i = 0; i < j; ++i) sum += power, power *= t;
    return one_minus_t * sum;
  }
};

TS_HD double vmf_third_cumulant(double k, double d, double A, double A1) {
  if (k > 0.01 * d) return -2 * A * A1 + (d - 1) / k * (A / k - A1);
  const double a3 = -1 / (d * d * (d + 2)), a5 = 2 / (d * d * d * (d + 2) * (d + 4));
  const double a7 = -(5 * d + 12) / (d * d * d * d * (d + 2) * (d + 2) * (d + 4) * (d + 6));
  return k * (6 * a3 + k * k * (20 * a5 + k * k * 42 * a7));
}

TS_HD double vmf_cumulant(double k, int64_t d, int order) {
  if (!(k >= 0)) return NAN;
  if (k > kLargest) return order == 0 ? INFINITY : order == 1 ? 1 : 0;
  if (k == 0) return order == 2 ? 1 / double(d) : 0;
  const double nu0 = 0.5 * double(d) - 1;
  const int steps = nu0 < kDebyeOrder ? int(ceil(kDebyeOrder - nu0)) : 0;
  const double nu = nu0 + steps;

  const double s = hypot(nu, k), t = nu / s, D = k * (k / (s + nu));  // D = s - nu
  const DebyeSums sum(nu, t, D / s);
  double lambda = 0;
  if (order == 0) lambda = D - nu * log1p(D / (2 * nu)) - 0.5 * log1p(D / nu) + log1p(sum.dU / sum.U_1);
  const double W = sum.S / sum.U, W_t = (sum.S_t - W * sum.U_t) / sum.U, r = k / s;
  double A = k / (s + nu) - r * t * W;
  double A1 = t / (s + nu) - W * t / s * (t * t - r * r) + r * r * t * t / s * W_t;

  for (int i = steps - 1; i >= 0; --i) {  // from order nu0 + i + 1 to nu0 + i
    const double m = 2 * (nu0 + i + 1), M = m + k * A;
    lambda += log1p(k * A / m);
    A1 = (m - k * k * A1) / (M * M);
    A = k / M;
  }
  switch (order) {
    case 0: return lambda;
    case 1: return A;
    case 2: return A1;
    default: return vmf_third_cumulant(k, double(d), A, A1);
  }
}

// out[i] = the cumulant at kappa[i], computed in double, for i in [begin, end).
template <typename T>
void vmf_cumulant_cpu(const T* kappa, T* out, int64_t d, int order, int64_t begin, int64_t end);

#ifdef TS_CUDA
template <typename T>
cudaError_t vmf_cumulant_cuda(const T* kappa, T* out, int64_t n, int64_t d, int order, cudaStream_t stream);
#endif

}  // namespace transphere
