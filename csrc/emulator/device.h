// Functions of one thread that CUDA has and C++ has not, or has under std.
#pragma once
#include <cmath>
#include <cstring>

#include "emulator/runtime.h"
#include "emulator/warp.h"

#define TS_BITS(name, From, To) \
  inline To name(From value) { return transphere::emulator::from_bits<To>(transphere::emulator::to_bits(value)); }
TS_BITS(__float_as_uint, float, unsigned)
TS_BITS(__float_as_int, float, int)
TS_BITS(__uint_as_float, unsigned, float)
TS_BITS(__int_as_float, int, float)
TS_BITS(__double_as_longlong, double, long long)
TS_BITS(__longlong_as_double, long long, double)
#undef TS_BITS

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (x >> i & 1u) << (31 - i);
  return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline int __mulhi(int a, int b) { return int((int64_t(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((static_cast<unsigned __int128>(a) * b) >> 64);
}

template <typename T>
T __ldg(const T* p) { return *p; }
template <typename T>
T __ldcg(const T* p) { return *p; }
template <typename T>
T __ldcs(const T* p) { return *p; }
template <typename T>
void __stcs(T* p, T value) { *p = value; }
template <typename T>
void __stcg(T* p, T value) { *p = value; }

// Approximations in CUDA, the correctly rounded values here.
inline float __fdividef(float x, float y) { return x / y; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline void __sincosf(float x, float* s, float* c) { *s = std::sin(x), *c = std::cos(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }

// Newer C libraries have some of CUDA's names themselves.
#if !defined(__GLIBC__) || !__GLIBC_PREREQ(2, 42)
inline float rsqrtf(float x) { return float(1 / std::sqrt(double(x))); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
#endif
inline float __frsqrt_rn(float x) { return float(1 / std::sqrt(double(x))); }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __fma_rn(double x, double y, double z) { return std::fma(x, y, z); }

#if !defined(__GLIBC__) || !__GLIBC_PREREQ(2, 41)
// sin and cos of pi x; the reduction to [-1/2, 1/2] is exact.
inline double sinpi(double x) {
  const double n = std::nearbyint(x), r = x - n;
  return (std::fmod(std::fabs(n), 2.0) == 1.0 ? -1 : 1) * std::sin(3.141592653589793 * r);
}
inline double cospi(double x) {
  const double n = std::nearbyint(x), r = x - n;
  return (std::fmod(std::fabs(n), 2.0) == 1.0 ? -1 : 1) * std::cos(3.141592653589793 * r);
}
inline float sinpif(float x) { return float(sinpi(x)); }
inline float cospif(float x) { return float(cospi(x)); }
#endif
inline void sincospif(float x, float* s, float* c) { *s = sinpif(x), *c = cospif(x); }
inline void sincospi(double x, double* s, double* c) { *s = sinpi(x), *c = cospi(x); }

inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __float2int_rd(float x) { return int(std::floor(x)); }
inline int __float2int_ru(float x) { return int(std::ceil(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }

#define TS_MIN_MAX(T)                                      \
  inline T min(T a, T b) { return b < a ? b : a; }         \
  inline T max(T a, T b) { return a < b ? b : a; }
TS_MIN_MAX(int)
TS_MIN_MAX(unsigned)
TS_MIN_MAX(long)
TS_MIN_MAX(unsigned long)
TS_MIN_MAX(long long)
TS_MIN_MAX(unsigned long long)
#undef TS_MIN_MAX
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }
