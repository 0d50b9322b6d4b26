#include "cpu/philox_lanes.h"

#ifdef TS_X86_LEVELS
#include <immintrin.h>
#endif

namespace transphere {
namespace {

#ifdef TS_X86_LEVELS

using Kernel = void(PhiloxKey key, uint32_t* c, int64_t stride, int64_t count);

// Masks that keep all lanes: the forms without one begin with an undefined vector, of which g++ warns, and compile to the same.
#define LEVEL __attribute__((target("avx512f"))) void philox_v4
#define LANES 16
#define VECTORS 2
#define EVEN(a, b) ((V)_mm512_maskz_mul_epu32(0xFF, (__m512i)(a), (__m512i)(b)))
#define ODD(a) ((V)_mm512_maskz_shuffle_epi32(0xFFFF, (__m512i)(a), _MM_PERM_DDBB))
#include "cpu/philox_level.h"
#undef LEVEL
#undef LANES
#undef VECTORS
#undef EVEN
#undef ODD

#define LEVEL __attribute__((target("avx2"))) void philox_v3
#define LANES 8
#define VECTORS 1
#define EVEN(a, b) ((V)_mm256_mul_epu32((__m256i)(a), (__m256i)(b)))
#define ODD(a) ((V)_mm256_shuffle_epi32((__m256i)(a), 0xF5))
#include "cpu/philox_level.h"
#undef LEVEL
#undef LANES
#undef VECTORS
#undef EVEN
#undef ODD

#define LEVEL void philox_v1
#define LANES 4
#define VECTORS 1
#define EVEN(a, b) ((V)_mm_mul_epu32((__m128i)(a), (__m128i)(b)))
#define ODD(a) ((V)_mm_shuffle_epi32((__m128i)(a), 0xF5))
#include "cpu/philox_level.h"
#undef LEVEL
#undef LANES
#undef VECTORS
#undef EVEN
#undef ODD

Kernel* best() {
  if (__builtin_cpu_supports("x86-64-v4")) return philox_v4;
  return __builtin_cpu_supports("x86-64-v3") ? philox_v3 : philox_v1;
}

#endif

}  // namespace

void philox_lanes(PhiloxKey key, uint32_t* c, int64_t stride, int64_t count) {
#ifdef TS_X86_LEVELS
  static Kernel* const kernel = best();
  kernel(key, c, stride, count);
#else
  for (int64_t at = 0; at < count; ++at) {
    const Words words = philox(key, c[at], c[stride + at], c[2 * stride + at], c[3 * stride + at]);
    for (int i = 0; i < 4; ++i) c[i * stride + at] = words.w[i];
  }
#endif
}

}  // namespace transphere
