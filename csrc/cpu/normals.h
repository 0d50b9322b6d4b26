// The Gaussian vectors of draws (vmf_sample.h), in planes.
#pragma once
#include <algorithm>

#include "cpu/philox_lanes.h"
#include "fastmath.h"
#include "half.h"
#include "wood.h"

namespace transphere {

// Box-Muller: two normals of two words, as in csrc/cuda/vmf_sample.cu.
inline void normal_pair(uint32_t radius_word, uint32_t angle_word, double& g0, double& g1) {
  const double radius2 = -2 * log_positive(uniform_positive<double>(radius_word));
  const double radius = std::sqrt(radius2 > kLeastRadius2 ? radius2 : kLeastRadius2);
  double sine, cosine;
  sincos_midpoint(uniform<double>(angle_word), sine, cosine);
  g0 = radius * cosine;
  g1 = radius * sine;
}

// The same to rounding in fewer steps: the scale of the logarithm's argument is in its exponent, the factor -2 in the coefficients, and the
// angle, a multiple of half turns and a rest in [-1/4, 1/4] turns, is taken apart in integers. Errors below 4e-7 of the radius; never 0.
inline void normal_pair(uint32_t radius_word, uint32_t angle_word, float& g0, float& g1) {
  const int32_t shifted = int32_t(bits_of(float(int32_t(0x1000000u - (radius_word >> 8))))) - 0x4B3504F3;  // 2^24 sqrt(1/2)
  const float exponent = float(shifted >> 23), f = float_of(uint32_t(shifted & 0x007FFFFF) + 0x3F3504F3u) - 1.0f;
  float p = 0.152688597f;  // of log_positive
  p = p * f - 0.255231006f;
  p = p * f + 0.263203902f;
  p = p * f - 0.28403525f;
  p = p * f + 0.33246713f;
  p = p * f - 0.400024534f;
  p = p * f + 0.500016422f;
  p = p * f - 0.666666634f;
  p = p * f + 1.0f;
  p = p * f - 2.0f;
  const float radius2 = p * f - exponent * 1.38629436f;
  const float radius = std::sqrt(radius2 > kLeastRadius2 ? radius2 : kLeastRadius2);

  // Minus after an odd number of half turns.
  const float signed_radius = float_of(bits_of(radius) ^ ((angle_word + 0x40000000u) & 0x80000000u));
  const uint32_t middle = (angle_word & 0xFFFFFF00u) | 0x80u;
  const float r = float(int32_t(middle << 1)) * 1.16415321826934814e-10f, t = r * r;
  float s = 39.5388686f, c = -56.1060227f;  // sin(2 pi r) / r and cos(2 pi r) / (1/16 - r^2)
  s = s * t - 76.5501077f;
  s = s * t + 81.6010209f;
  s = s * t - 41.3416554f;
  s = s * t + 6.28318516f;
  c = c * t + 81.7181819f;
  c = c * t - 59.8266636f;
  c = c * t + 15.9999991f;
  g0 = (0.25f - r) * (0.25f + r) * signed_radius * c;
  g1 = r * signed_radius * s;
}

// Standard normals of the `count` samples from `first` on: plane t (stride) holds, sample by sample, the coordinates [t q, (t + 1) q).
// Up to kPhiloxBatch - 1 numbers beyond the last are written.
template <typename T>
inline void normals(PhiloxKey key, uint64_t first, int64_t count, int64_t q, T* planes, int64_t stride) {
  constexpr int kChunk = 4 * kPhiloxBatch;
  const uint32_t first_low = uint32_t(first), first_high = uint32_t(first >> 32), q_ = uint32_t(q);
  const float over_q = 1.0f / float(q);
  uint32_t row = 0, column = 0;  // of lane 0
  for (int64_t begin = 0; begin < count * q; begin += kChunk) {
    const int lanes = int(std::min<int64_t>(kChunk, (count * q - begin + kPhiloxBatch - 1) / kPhiloxBatch * kPhiloxBatch));
    alignas(64) uint32_t c[4][kChunk];
    for (int base = 0; base < lanes; base += kLanes) {
      uint32_t *c0 = c[0] + base, *c1 = c[1] + base, *c2 = c[2] + base, *c3 = c[3] + base;
      TS_SIMD
      for (int l = 0; l < kLanes; ++l) {
        const uint32_t at = column + uint32_t(l);
        const uint32_t rows = uint32_t(int32_t((float(int32_t(at)) + 0.5f) * over_q));  // at / q, exact below 2^22
        const uint32_t low = first_low + row + rows;
        c0[l] = at - rows * q_;
        c1[l] = kNormalStream;
        c2[l] = low;
        c3[l] = first_high + (low < first_low ? 1u : 0u);
      }
      column += kLanes;
      while (column >= q_) column -= q_, ++row;
    }
    philox_lanes(key, c[0], kChunk, lanes);
    for (int pair = 0; pair < 4; pair += 2) {
      const uint32_t *radii = c[pair], *angles = c[pair + 1];
      T* __restrict g0 = planes + pair * stride + begin;
      T* __restrict g1 = g0 + stride;
      TS_SIMD
      for (int l = 0; l < lanes; ++l) normal_pair(radii[l], angles[l], g0[l], g1[l]);
    }
  }
}

}  // namespace transphere
