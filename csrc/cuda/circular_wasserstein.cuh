// What the ways of circular_wasserstein.cu share: points and weights as whole numbers, and the arithmetic of the sorted circle.
#pragma once
#include <cstdint>
#include <numeric>

#include "cuda/lanes.cuh"

namespace transphere {

constexpr int kKeys = 8;  // points a thread

// Levels are multiples of `unit`: uniform weights are `up` for a point of u and -`down` for one of v.
template <typename Level>
struct Units {
  Level up, down, most;  // most: no level is larger in magnitude
  double unit;
};

// Weighted levels are multiples of 2^-60, or 2^-40 in float32, 16 bits below its rounding of the largest one.
template <typename T>
constexpr int kWeightBits = sizeof(T) == 4 ? 40 : 60;

template <typename T, typename Level, bool WEIGHTED>
Units<Level> units(int64_t n, int64_t m) {
  if (WEIGHTED) return {0, 0, Level(int64_t(2) << kWeightBits<T>), 1.0 / double(int64_t(1) << kWeightBits<T>)};  // sums pass 1 by rounding
  const int64_t g = std::gcd(n, m), up = m / g, down = n / g;
  return {Level(up), Level(down), Level(up * n), 1.0 / double(up * n)};
}

// x modulo 1 in units of 2^-bits, rounded down; sets bad, and gives 0, where x is no number.
template <typename Length, typename T>
__device__ Length fixed_point(T x, int bits, int& bad) {
  T r = x - floor(x);
  if (!(r - r == T(0))) bad = 1;
  r = r < T(1) ? r : T(0);  // also for NaN
  return Length(r * T(uint64_t(1) << bits));
}

template <typename T>
__device__ int64_t weight_in_units(T w, int& bad) {
  if (!(w - w == T(0))) return bad = 1, 0;
  return int64_t(double(w) * double(int64_t(1) << kWeightBits<T>));
}

template <typename Level>
__device__ Level distance(Level a, Level b) { return a < b ? b - a : a - b; }

// A thread's share of the sorted circle, slots past the last point with gap and weight 0.
template <typename Length, typename Level>
struct Share {
  Length gap[kKeys];                   // from a point to the next one
  Level weight[kKeys], level[kKeys];   // of the point, and of all points up to it

  // Of weights to levels; the total over the group.
  template <int LANES>
  __device__ Level accumulate(Level before) {
    Level sum = 0, total;
#pragma unroll
    for (int j = 0; j < kKeys; ++j) level[j] = sum += weight[j];
    before += group_scan<LANES>(sum, total);
#pragma unroll
    for (int j = 0; j < kKeys; ++j) level[j] += before;
    return total;
  }
  // How much of the circle has a level of at most M.
  __device__ Length length_up_to(Level M) const {
    Length sum = 0;
#pragma unroll
    for (int j = 0; j < kKeys; ++j) sum += level[j] <= M ? gap[j] : Length(0);
    return sum;
  }
};

}  // namespace transphere
