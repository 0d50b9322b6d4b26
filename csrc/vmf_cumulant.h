// Cumulants of w = mu . z under the von Mises-Fisher law: derivatives of Lambda(k) = log E_uniform exp(k w).
//   order 0: Lambda     1: A = E w = I_{nu+1}(k) / I_nu(k)     2: A' = Var w     3: A''     4: A'''     (nu = d/2 - 1)
//   order -1: k A - Lambda, the Legendre transform of Lambda at A and the divergence to the uniform law
//
// Debye's uniform expansion, I_nu(k) ~ exp(s) (k / (nu + s))^nu (2 pi s)^-1/2 sum_j u_j(t) / nu^j with s = hypot(nu, k), t = nu / s, taken
// in logarithm: log sum_j u_j(t) / nu^j = phi(t) = sum_j s^-j P_j(t^2), P_j of degree j. In this form it is an expansion in 1/s, and holds
// at nu = 0 too. Every derivative in k comes from ds/dk = k/s and dt/dk = -t k/s^2, so from the sums L_m = (t d/dt)^m phi.
//   k >= 32, or nu >= 32     the expansion at nu itself
//   elsewhere                at nu + steps >= 32, and downward by A_nu = k / (2 nu + 2 + k A_{nu+1}) and its derivatives
// Nothing is subtracted that cancels and no Bessel function is evaluated: 1e-12 holds at any d >= 2 and kappa, 0 and infinity among them.
// docs/mathematics.md has the formulas; A''' has a zero, near which its error is relative to A''/k.
#pragma once
#include <cmath>
#include <type_traits>

#include "fastmath.h"
#include "portable.h"

namespace transphere {

constexpr int kDivergence = -1;  // the order that stands for k A - Lambda
constexpr double kDebyeLeast = 32;
constexpr int kDebyeTerms = 15;      // the most that an order takes
constexpr int kDifferenceTerms = 11;
constexpr double kLargest = 1.7976931348623157e308;  // above it lies only infinity

// Terms that leave a relative error below 3e-13 where the expansion is at its worst, s = 32; from s = 224 the second count does.
constexpr int debye_terms(int order, bool high) {
  constexpr int least[] = {11, 9, 9, 12, 14, 15}, few[] = {5, 5, 5, 6, 6, 6};
  return (high ? few : least)[order + 1];
}
constexpr double kDebyeHigh = 224;

// c[j][i] belongs to t^(j + 2i) / nu^j in phi. From u_{j+1} = t^2 (1 - t^2) u_j' / 2 + int_0^t (1 - 5 s^2) u_j(s) ds / 8  (DLMF 10.41.9).
struct LogDebye {
  double c[kDebyeTerms + 1][kDebyeTerms + 1] = {};
  double fall[kDifferenceTerms + 1][kDifferenceTerms + 1] = {};  // of (P_j(1) - P_j(x)) / (1 - x)
  double at_one[kDifferenceTerms + 1] = {};                      // P_j(1)

  constexpr LogDebye() {
    double u[kDebyeTerms + 1][kDebyeTerms + 1] = {};
    u[0][0] = 1;
    for (int j = 0; j < kDebyeTerms; ++j)
      for (int i = 0; i <= j; ++i) {
        const double e = j + 2 * i;
        u[j + 1][i] += u[j][i] * (e / 2 + 1 / (8 * (e + 1)));
        u[j + 1][i + 1] -= u[j][i] * (e / 2 + 5 / (8 * (e + 3)));
      }
    for (int j = 1; j <= kDebyeTerms; ++j) {  // j phi_j = j u_j - sum_{i < j} i phi_i u_{j-i}
      for (int a = 0; a <= j; ++a) c[j][a] = u[j][a];
      for (int i = 1; i < j; ++i)
        for (int a = 0; a <= i; ++a)
          for (int b = 0; b <= j - i; ++b) c[j][a + b] -= c[i][a] * u[j - i][b] * i / j;
    }
    for (int j = 1; j <= kDifferenceTerms; ++j) {
      for (int i = j - 1; i >= 0; --i) fall[j][i] = fall[j][i + 1] + c[j][i + 1];
      at_one[j] = fall[j][0] + c[j][0];
    }
  }

  constexpr double weighted(int j, int i, int m) const {
    double x = c[j][i];
    while (m--) x *= j + 2 * i;
    return x;
  }
};
constexpr LogDebye kLogDebye;

// sum_{j >= J} s^-j Q_j(x): M >= 0 takes Q_j = (t d/dt)^M P_j, so that the sum is L_M; kFall takes (P_j(1) - P_j(x)) / (1 - x).
constexpr int kFall = -1;

template <int M, int J, int I = 0>
TS_HD double debye_polynomial(double x) {
  constexpr double c = M == kFall ? kLogDebye.fall[J][I] : kLogDebye.weighted(J, I, M == kFall ? 0 : M);
  if constexpr (I == (M == kFall ? J - 1 : J))
    return c;
  else
    return c + x * debye_polynomial<M, J, I + 1>(x);
}

template <int M, int TERMS, int J = 1>
TS_HD double debye_sum(double x, double inverse_s) {
  if constexpr (J == TERMS)
    return inverse_s * debye_polynomial<M, J>(x);
  else
    return inverse_s * (debye_polynomial<M, J>(x) + debye_sum<M, TERMS, J + 1>(x, inverse_s));
}

// What depends on the dimension alone.
struct VmfDimension {
  double low, high;  // d/2 - 1, and the order at which the expansion holds for every k
  int steps;         // between them
  double log_constant = 0;
  double at_one[kDifferenceTerms] = {};  // sum_j P_j(1) high^-j (1 + t + .. + t^(j-1)), by powers of t

  TS_HD explicit VmfDimension(int64_t d) : low(0.5 * double(d) - 1), high(low), steps(0) {
    if (low < kDebyeLeast) steps = int(ceil(kDebyeLeast - low)), high = low + steps;
  }

  void prepare_logarithm() {  // for orders -1 and 0
    log_constant = std::lgamma(low + 1) + 0.69314718055994531 * low - 0.91893853320467274;
    double scale = 1;
    for (int j = 1; j <= kDifferenceTerms; ++j) {
      scale /= high;
      for (int l = 0; l < j; ++l) at_one[l] += kLogDebye.at_one[j] * scale;
    }
  }
};

// One concentration at one order of the expansion.
struct VmfPoint {
  double k, nu, inverse_s, r, t, D;  // r = k / s, D = s - nu

  TS_HD VmfPoint(double k_, double nu_) : k(k_), nu(nu_) {
    const double s = k < 1e150 ? std::sqrt(k * k + nu * nu) : k;
    inverse_s = 1 / s;
    r = k / s, t = nu * inverse_s, D = k * (k / (s + nu));
  }
};

// A, and up to ORDER its derivatives; half = 1/2 + L_1.
template <int ORDER, bool HIGH>
TS_HD void vmf_expand(const VmfPoint& p, double& half, double& A, double& A1, double& A2, double& A3) {
  constexpr int terms = debye_terms(ORDER, HIGH);
  const double t = p.t, i = p.inverse_s, r2 = p.r * p.r, t2 = t * t, once = 1 / (1 + t);
  half = 0.5 + debye_sum<1, terms>(t2, i);
  A = p.r * (once - i * half);
  if constexpr (ORDER >= 2) {
    const double L2 = debye_sum<2, terms>(t2, i);
    A1 = i * i * (p.nu * once + (r2 - t2) * half + r2 * L2);
    if constexpr (ORDER >= 3) {
      const double L3 = debye_sum<3, terms>(t2, i);
      const double H = p.nu * (2 + t) * once * once + 2 * (r2 - 3 * t2) * half + 3 * (r2 - t2) * L2 + r2 * L3;
      A2 = -p.r * i * i * i * H;
      if constexpr (ORDER >= 4) {
        const double L4 = debye_sum<4, terms>(t2, i);
        const double cubed = p.nu * t * (3 + t) * once * once * once;
        const double slope = r2 * L4 - cubed - 16 * t2 * half - (18 * t2 - 2 * r2) * L2 - (5 * t2 - 3 * r2) * L3;  // t dH/dt
        A3 = i * i * i * i * ((3 * r2 - t2) * H + r2 * slope);
      }
    }
  }
}

// D - Lambda at nu >= kDebyeLeast: phi(t) - phi(1) is summed as a difference, so that small k keeps its digits.
template <int ORDER, bool HIGH>
TS_HD double vmf_deficit_above(const VmfPoint& p, const VmfDimension& o) {
  constexpr int terms = debye_terms(ORDER, HIGH);
  double powers = o.at_one[terms - 1];
  for (int l = terms - 2; l >= 0; --l) powers = powers * p.t + o.at_one[l];
  const double fall = (1 + p.t) * debye_sum<kFall, terms>(p.t * p.t, p.inverse_s) + powers;  // (phi(1) - phi(t)) / (1 - t)
  const double x = p.D / p.nu;
  return p.nu * log1p_positive(0.5 * x) + 0.5 * log1p_positive(x) + p.D * p.inverse_s * fall;
}

// The same at k >= kDebyeLeast and any nu.
template <int ORDER>
TS_HD double vmf_deficit_direct(const VmfPoint& p, const VmfDimension& o) {
  const double s = p.nu + p.D, phi = debye_sum<0, debye_terms(ORDER, false)>(p.t * p.t, p.inverse_s);
  return p.nu * (log1p_positive(p.nu + s - 1) - 1) + 0.5 * log1p_positive(s - 1) - phi - o.log_constant;
}

// From order nu + 1 to nu, m = 2 nu + 2. Orders up to 1 divide once, at the end: there A (1 + product) is carried in A's place,
// product = prod(1 + k A / m) - 1 being what Lambda's exponential grows by.
template <int ORDER>
TS_HD void vmf_descend(double k, double m, double inverse_m, double& product, double& A, double& A1, double& A2, double& A3) {
  if constexpr (ORDER <= 1) {
    const double x = k * inverse_m, before = 1 + product;
    product += x * A;
    A = x * before;
  } else {
    const double inverse = 1 / (m + k * A), B = k * inverse, M1 = A + k * A1, B1 = (m - k * k * A1) * inverse * inverse;
    if constexpr (ORDER >= 3) {
      const double M2 = 2 * A1 + k * A2, B2 = -(B * M2 + 2 * B1 * M1) * inverse;
      if constexpr (ORDER >= 4) A3 = -(B * (3 * A2 + k * A3) + 3 * B1 * M2 + 3 * B2 * M1) * inverse;
      A2 = B2;
    }
    A1 = B1;
    A = B;
  }
}

template <int ORDER>
TS_HD double vmf_value(const VmfPoint& p, bool shifted, double deficit, double product, double half, double A, double A1, double A2,
                       double A3) {
  if constexpr (ORDER <= 1) A /= 1 + product;
  if constexpr (ORDER <= 0) {
    const double cgf = p.D - deficit + log1p_positive(product);
    return ORDER == 0 ? cgf : shifted ? p.k * A - cgf : deficit - p.r * p.r * half;
  }
  return ORDER <= 1 ? A : ORDER == 2 ? A1 : ORDER == 3 ? A2 : A3;
}

// The value at 0, at infinity, of NaN and of negative kappa.
template <int ORDER>
TS_HD double vmf_at_ends(double kappa, double value, const VmfDimension& o) {
  const double d = 2 * o.low + 2;
  const double zero = ORDER == 2 ? 1 / d : ORDER == 4 ? -6 / (d * d * (d + 2)) : 0, infinity = ORDER <= 0 ? INFINITY : ORDER == 1 ? 1 : 0;
  value = kappa > kLargest ? infinity : value;
  return kappa > 0 ? value : kappa == 0 ? zero : NAN;
}

TS_HD double vmf_regular(double kappa) { return kappa > 0 && kappa <= kLargest ? kappa : 1; }

template <int ORDER>
TS_HD double vmf_cumulant(double kappa, const VmfDimension& o) {
  const double k = vmf_regular(kappa);
  const bool shifted = o.steps > 0 && k < kDebyeLeast;
  const VmfPoint p(k, shifted ? o.high : o.low);
  double half = 0, A = 0, A1 = 0, A2 = 0, A3 = 0, deficit = 0, product = 0;
  vmf_expand<ORDER, false>(p, half, A, A1, A2, A3);
  if constexpr (ORDER <= 0) deficit = p.nu >= kDebyeLeast ? vmf_deficit_above<ORDER, false>(p, o) : vmf_deficit_direct<ORDER>(p, o);
  if (shifted)
    for (double m = 2 * o.high; m > 2 * o.low + 1; m -= 2) vmf_descend<ORDER>(k, m, 1 / m, product, A, A1, A2, A3);
  return vmf_at_ends<ORDER>(kappa, vmf_value<ORDER>(p, shifted, deficit, product, half, A, A1, A2, A3), o);
}

// Orders 1 to 3, for kernels that need one value in passing.
TS_HD double vmf_cumulant(double kappa, int64_t d, int order) {
  const VmfDimension o(d);
  return order == 1 ? vmf_cumulant<1>(kappa, o) : order == 2 ? vmf_cumulant<2>(kappa, o) : vmf_cumulant<3>(kappa, o);
}

// f(std::integral_constant<int, order>{}).
template <typename F>
void dispatch_vmf_order(int order, F&& f) {
  switch (order) {
    case -1: return f(std::integral_constant<int, -1>{});
    case 0: return f(std::integral_constant<int, 0>{});
    case 1: return f(std::integral_constant<int, 1>{});
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
    default: return f(std::integral_constant<int, 4>{});
  }
}

// out[i] = the cumulant at kappa[i], computed in double, for i in [begin, end).
template <typename T>
void vmf_cumulant_cpu(const T* kappa, T* out, const VmfDimension& o, int order, int64_t begin, int64_t end);

#ifdef TS_CUDA
template <typename T>
cudaError_t vmf_cumulant_cuda(const T* kappa, T* out, int64_t n, const VmfDimension& o, int order, cudaStream_t stream);
#endif

}  // namespace transphere
