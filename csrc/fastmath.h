// Branch-free elementary functions that the compiler can vectorise. Minimax polynomials fitted for this library; the
// bounds are over all float32 arguments in the stated range. The double versions are libm's, but for log1p_positive.
#pragma once
#include <cmath>
#include <cstring>

#include "portable.h"

namespace transphere {

// log(v), v in [2^-24, 1] or any positive normal number; relative error below 2e-7.
TS_HD float log_positive(float v) {
  int32_t bits;
  std::memcpy(&bits, &v, 4);
  const int32_t shifted = bits - 0x3F3504F3;  // split at sqrt(1/2)
  const int32_t exponent = shifted >> 23;
  bits = (shifted & 0x007FFFFF) + 0x3F3504F3;
  float m;
  std::memcpy(&m, &bits, 4);
  const float f = m - 1.0f;
  float p = -0.0763442984f;
  p = p * f + 0.127615503f;
  p = p * f - 0.131601951f;
  p = p * f + 0.142017625f;
  p = p * f - 0.166233565f;
  p = p * f + 0.200012267f;
  p = p * f - 0.250008211f;
  p = p * f + 0.333333317f;
  const float f2 = f * f;
  return (p * f2 * f - 0.5f * f2) + f + float(exponent) * 0.693147181f;
}
TS_HD double log_positive(double v) { return std::log(v); }

// log(1 + x), x >= 0 and finite; relative error below 2e-16. atanh's series in f / (2 + f), for 1 + x = 2^e (1 + f), f in [-.3, .42].
TS_HD double log1p_positive(double x) {
#ifdef __CUDA_ARCH__
  return log1p(x);
#else
  const double u = 1 + x, rounded = x - (u - 1);
  uint64_t bits;
  std::memcpy(&bits, &u, 8);
  bits += 0x3FF0000000000000 - 0x3FE6A09E667F3BCD;  // split at sqrt(1/2)
  uint64_t exponent_bits = (bits >> 52) | 0x4330000000000000;  // 2^52 + the biased exponent, as a double
  uint64_t mantissa_bits = (bits & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD;
  double e, m;
  std::memcpy(&e, &exponent_bits, 8);
  std::memcpy(&m, &mantissa_bits, 8);
  e -= 4503599627370496.0 + 1023;
  const double f = m - 1, s = f / (2 + f), z = s * s;  // z <= .0295
  double p = 2.0 / 21;
  p = p * z + 2.0 / 19;
  p = p * z + 2.0 / 17;
  p = p * z + 2.0 / 15;
  p = p * z + 2.0 / 13;
  p = p * z + 2.0 / 11;
  p = p * z + 2.0 / 9;
  p = p * z + 2.0 / 7;
  p = p * z + 2.0 / 5;
  p = p * z + 2.0 / 3;
  const double half_square = 0.5 * f * f;
  const double low = e * 1.9082149292705877e-10 + rounded / u;  // log 2 in two parts; what 1 + x lost
  return e * 0.6931471803691238 + (f - (half_square - (s * (half_square + z * p) + low)));
#endif
}

// sin and cos of 2 pi (u + 2^-25), u a multiple of 2^-24 in [0, 1): the middle of u's cell, so that neither is ever 0. Absolute error below 1e-7.
TS_HD void sincos_midpoint(float u, float& sine, float& cosine) {
  const float quarter = float(int32_t(4.0f * u + 0.5f));  // 0 .. 4
  const int32_t q = int32_t(quarter);
  const float r = (u - 0.25f * quarter) + 2.98023224e-8f, r2 = r * r;  // r in [-1/8, 1/8], exact
  float s = -75.4020678f, c = 59.2204071f;
  s = s * r2 + 81.5925535f;
  s = s * r2 - 41.3416626f;
  s = (s * r2 + 6.28318529f) * r;
  c = c * r2 - 85.4428521f;
  c = c * r2 + 64.9393162f;
  c = c * r2 - 19.7392087f;
  c = c * r2 + 1.0f;
  const float a = (q & 1) ? c : s, b = (q & 1) ? s : c;
  sine = (q & 2) ? -a : a;
  cosine = ((q + 1) & 2) ? -b : b;
}

// sin(x) for angles of at most a few turns.
TS_HD double sine(double x) {
#ifdef __CUDA_ARCH__
  return sinpi(x * 0.31830988618379067);  // needs no reduction by pi, whose slow path takes a stack
#else
  return std::sin(x);
#endif
}

// sin and cos of 2 pi u.
TS_HD void sincos_turns(double u, double& sine, double& cosine) {
#ifdef __CUDA_ARCH__
  sincospi(2 * u, &sine, &cosine);
#else
  sine = std::sin(6.283185307179586 * u);
  cosine = std::cos(6.283185307179586 * u);
#endif
}
TS_HD void sincos_midpoint(double u, double& sine, double& cosine) { sincos_turns(u + 2.98023223876953125e-8, sine, cosine); }

// The angle of (x, y) in turns, in [0, 1); 0 at the origin, NaN for NaN; absolute error below 4e-8.
TS_HD float angle_turns(float x, float y) {
  const float ax = std::fabs(x), ay = std::fabs(y);
  const float hi = ax > ay ? ax : ay, lo = ax > ay ? ay : ax;
  const float a = lo / (hi > 0.0f ? hi : 1.0f), t = a * a;
  float p = 0.000462109157f;
  p = p * t - 0.0025914991f;
  p = p * t + 0.00684989259f;
  p = p * t - 0.0119901881f;
  p = p * t + 0.016957432f;
  p = p * t - 0.0226113521f;
  p = p * t + 0.0318199335f;
  p = p * t - 0.0530512667f;
  p = (p * t + 0.159154941f) * a;
  p = ay > ax ? 0.25f - p : p;
  p = x < 0.0f ? 0.5f - p : p;
  p = y < 0.0f ? 1.0f - p : p;
  p = p >= 1.0f ? 0.0f : p;
  return x + y == x + y ? p : x + y;
}
TS_HD double angle_turns(double x, double y) {
  const double p = x == 0.0 && y == 0.0 ? 0.0 : std::atan2(y, x) * 0.15915494309189535;
  const double q = p < 0.0 ? p + 1.0 : p;
  return q >= 1.0 ? 0.0 : q;
}

}  // namespace transphere
