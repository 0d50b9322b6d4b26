// Storage types of 16 bits: computed in float32, stored rounded to nearest, ties to even. In bit operations, which vectorise everywhere.
#pragma once
#include <cstdint>
#include <cstring>

#include "portable.h"

namespace transphere {

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

TS_HD uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
TS_HD float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

TS_HD float widen(float x) { return x; }
TS_HD double widen(double x) { return x; }
TS_HD float widen(BFloat16 x) { return float_of(uint32_t(x.bits) << 16); }
TS_HD float widen(Half x) {
  const uint32_t magnitude = x.bits & 0x7FFFu, sign = uint32_t(x.bits & 0x8000u) << 16;
  const uint32_t normal = (magnitude << 13) + ((magnitude < 0x7C00u ? 112u : 224u) << 23);
  const uint32_t small = bits_of(float(int32_t(magnitude)) * 5.9604644775390625e-8f);
  return float_of(sign | (magnitude < 0x0400u ? small : normal));
}

TS_HD void narrow(float x, float& out) { out = x; }
TS_HD void narrow(double x, double& out) { out = x; }
TS_HD void narrow(float x, BFloat16& out) {
  const uint32_t bits = bits_of(x), rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  out.bits = uint16_t((bits & 0x7FFFFFFFu) > 0x7F800000u ? (bits >> 16) | 0x40u : rounded);
}
TS_HD void narrow(float x, Half& out) {
  const uint32_t bits = bits_of(x), magnitude = bits & 0x7FFFFFFFu;
  const uint32_t normal = (magnitude - (112u << 23) + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t small = bits_of(float_of(magnitude) + 0.5f) - 0x3F000000u;  // 2^-24, the spacing of half's small numbers, is that at .5
  const uint32_t large = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
  const uint32_t result = magnitude < 0x38800000u ? small : magnitude < 0x47800000u ? normal : large;
  out.bits = uint16_t(result | ((bits >> 16) & 0x8000u));
}

}  // namespace transphere
