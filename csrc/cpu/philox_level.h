// The kernel of philox_lanes.h for one x86-64 level. philox_lanes.cpp includes it once for each and says what differs:
//   LEVEL(name) the name and target of the function      LANES of 32 bits in a vector         VECTORS side by side, to hide latency
//   EVEN(a, b)  the products of the even lanes, 64 bits   ODD(a) its odd lanes in even places
// No include guard; a template would be compiled for the baseline.

LEVEL(PhiloxKey key, uint32_t* c, int64_t stride, int64_t count) {
  typedef uint32_t V __attribute__((vector_size(4 * LANES)));
  typedef uint64_t Wide __attribute__((vector_size(4 * LANES)));
  typedef uint32_t Unaligned __attribute__((vector_size(4 * LANES), aligned(4)));
  for (int64_t at = 0; at < count; at += VECTORS * LANES) {
    // In even places; what the odd ones hold reaches no even one. Of each vector first the even counters, then the odd ones.
    V x[2 * VECTORS][4];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        x[2 * v][i] = *(const Unaligned*)(c + i * stride + at + v * LANES);
        x[2 * v + 1][i] = ODD(x[2 * v][i]);
      }
    PhiloxKey k = key;
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const V k0 = V{} + k.k0, k1 = V{} + k.k1, m0 = V{} + kPhiloxM0, m1 = V{} + kPhiloxM1;
#pragma GCC unroll 4
      for (int v = 0; v < 2 * VECTORS; ++v) {
        const V p0 = EVEN(x[v][0], m0), p1 = EVEN(x[v][2], m1);
        x[v][0] = ODD(p1) ^ x[v][1] ^ k0;
        x[v][2] = ODD(p0) ^ x[v][3] ^ k1;
        x[v][1] = p1;
        x[v][3] = p0;
      }
      k.k0 += kPhiloxW0;
      k.k1 += kPhiloxW1;
    }
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const Wide words = ((Wide)x[2 * v][i] & 0xFFFFFFFFu) | ((Wide)x[2 * v + 1][i] << 32);
        *(Unaligned*)(c + i * stride + at + v * LANES) = (V)words;
      }
  }
}
