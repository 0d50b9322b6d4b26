// Philox4x32-10 (Salmon et al., SC 2011): the one generator of every backend. Counter in, four words out, no state.
//
// A draw is named by what it is for, never by who computes it:
//   counter = (index, stream, sample low, sample high), key = the two seed words.
#pragma once
#include "portable.h"

namespace transphere {

constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u, kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;

struct PhiloxKey {
  uint32_t k0, k1;
};

struct Words {
  uint32_t w[4];
};

TS_HD Words philox(PhiloxKey key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(kPhiloxM0) * c0, p1 = uint64_t(kPhiloxM1) * c2;
    c0 = uint32_t(p1 >> 32) ^ c1 ^ key.k0;
    c2 = uint32_t(p0 >> 32) ^ c3 ^ key.k1;
    c1 = uint32_t(p1);
    c3 = uint32_t(p0);
    key.k0 += kPhiloxW0;
    key.k1 += kPhiloxW1;
  }
  return {{c0, c1, c2, c3}};
}

// The 24 leading bits as an exact uniform: in [0, 1), and in (0, 1] where a logarithm follows.
template <typename T>
TS_HD T uniform(uint32_t word) {
  return T(int32_t(word >> 8)) * T(5.9604644775390625e-8);
}
template <typename T>
TS_HD T uniform_positive(uint32_t word) {
  return T(int32_t(0x1000000u - (word >> 8))) * T(5.9604644775390625e-8);
}

}  // namespace transphere
