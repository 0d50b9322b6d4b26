// The _sync primitives of a warp.
#pragma once
#include "emulator/block.h"

namespace transphere::emulator {

template <typename T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <typename T>
T from_bits(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof(T));
  return value;
}

inline int checked_width(int width, const Site& site) {
  if (width < 1 || width > 32 || (width & (width - 1)))
    fail(cudaErrorInvalidValue, "shuffle of width %d, not a power of two up to 32 (%s:%d)", width, site.file, site.line);
  return width;
}

template <typename T>
T shuffle(unsigned mask, T value, int source, const Site& site) {
  return from_bits<T>(meet_warp(Operation::shuffle, mask, to_bits(value), source, site));
}

}  // namespace transphere::emulator

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, TS_SITE) {
  transphere::emulator::checked_width(width, TS_HERE);
  const int base = transphere::emulator::lane() & ~(width - 1);
  return transphere::emulator::shuffle(mask, value, base + (source & (width - 1)), TS_HERE);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, TS_SITE) {
  transphere::emulator::checked_width(width, TS_HERE);
  const int me = transphere::emulator::lane(), first = me & ~(width - 1);
  return transphere::emulator::shuffle(mask, value, delta <= unsigned(me - first) ? me - int(delta) : me, TS_HERE);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, TS_SITE) {
  transphere::emulator::checked_width(width, TS_HERE);
  const int me = transphere::emulator::lane(), last = me | (width - 1);
  return transphere::emulator::shuffle(mask, value, delta <= unsigned(last - me) ? me + int(delta) : me, TS_HERE);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, TS_SITE) {
  transphere::emulator::checked_width(width, TS_HERE);
  const int me = transphere::emulator::lane(), source = me ^ lanes;
  return transphere::emulator::shuffle(mask, value, source >= 0 && source <= (me | (width - 1)) ? source : me, TS_HERE);
}

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, TS_SITE) {
  transphere::emulator::meet_warp(transphere::emulator::Operation::warp_barrier, mask, 0, 0, TS_HERE);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, TS_SITE) {
  return unsigned(transphere::emulator::meet_warp(transphere::emulator::Operation::ballot, mask, predicate != 0, 0, TS_HERE));
}
inline int __any_sync(unsigned mask, int predicate, TS_SITE) {
  return int(transphere::emulator::meet_warp(transphere::emulator::Operation::any, mask, predicate != 0, 0, TS_HERE));
}
inline int __all_sync(unsigned mask, int predicate, TS_SITE) {
  return int(transphere::emulator::meet_warp(transphere::emulator::Operation::all, mask, predicate != 0, 0, TS_HERE));
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, TS_SITE) {
  using namespace transphere::emulator;
  return unsigned(meet_warp(Operation::match_any, mask, to_bits(value), 0, TS_HERE));
}
// Whoever asks is active; CUDA promises no more.
inline unsigned __activemask() { return 1u << transphere::emulator::lane(); }

#define TS_REDUCE(T, name, operation)                                                                             \
  inline T __reduce_##name##_sync(unsigned mask, T value, TS_SITE) {                                              \
    using namespace transphere::emulator;                                                                         \
    return T(meet_warp(Operation::operation, mask, uint64_t(int64_t(value)), 0, TS_HERE));                        \
  }
TS_REDUCE(int, add, reduce_add)
TS_REDUCE(int, min, reduce_min)
TS_REDUCE(int, max, reduce_max)
TS_REDUCE(unsigned, add, reduce_add)
TS_REDUCE(unsigned, min, reduce_min)
TS_REDUCE(unsigned, max, reduce_max)
TS_REDUCE(unsigned, and, reduce_and)
TS_REDUCE(unsigned, or, reduce_or)
TS_REDUCE(unsigned, xor, reduce_xor)
#undef TS_REDUCE
