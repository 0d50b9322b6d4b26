// Positions and weights as whole numbers: order, gaps, levels and their median are then exact, whatever the order of summation.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace transphere {

constexpr int kPositionBits = 52;                         // a float32 from 2^-28 on is a multiple of 2^-52
constexpr int64_t kTurn = int64_t(1) << kPositionBits;
constexpr double kWeightUnit = 1.0 / (int64_t(1) << 60);  // of levels with weights, whose rows have sum 1

inline int64_t to_level(double weight) { return int64_t(weight / kWeightUnit); }

// To [0, 1); NaN for NaN and infinities.
template <typename T>
inline T wrap(T x) {
  const T r = x - std::floor(x);
  return r >= T(1) ? T(0) : r;
}

// [0, 1) to multiples of 1 / kTurn, modulo kTurn: the mantissa of 1 + turns.
inline int64_t to_position(double turns) {
  const double shifted = 1.0 + turns;
  int64_t bits;
  std::memcpy(&bits, &shifted, 8);
  return bits & (kTurn - 1);
}

}  // namespace transphere
