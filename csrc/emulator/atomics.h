// Atomics. Threads take turns only where the emulator lets them, so plain reads and writes are atomic; before each one another may go.
#pragma once
#include <type_traits>

#include "emulator/block.h"

namespace transphere::emulator {

template <typename T>
using Same = typename std::enable_if<true, T>::type;  // not deduced: the pointer decides

// Not instrumented: as an access it is atomic.
template <typename T, typename F>
[[gnu::noinline, gnu::no_sanitize("thread")]] T atomic(T* address, F&& next) {
  interleave();
  atomic_access(address, sizeof(T));
  const T old = *address;
  *address = next(old);
  return old;
}

}  // namespace transphere::emulator

#define TS_ATOMIC(name, ...)                                                                    \
  template <typename T>                                                                         \
  T name(T* address, transphere::emulator::Same<T> value) {                                     \
    return transphere::emulator::atomic(address, [value](T old) { return T(__VA_ARGS__); });    \
  }                                                                                             \
  template <typename T>                                                                         \
  T name##_block(T* address, transphere::emulator::Same<T> value) {                             \
    return name(address, value);                                                                \
  }
TS_ATOMIC(atomicAdd, old + value)
TS_ATOMIC(atomicSub, old - value)
TS_ATOMIC(atomicMin, value < old ? value : old)
TS_ATOMIC(atomicMax, value > old ? value : old)
TS_ATOMIC(atomicAnd, old & value)
TS_ATOMIC(atomicOr, old | value)
TS_ATOMIC(atomicXor, old ^ value)
TS_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
TS_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
TS_ATOMIC(atomicExch, (void(old), value))
#undef TS_ATOMIC

template <typename T>
T atomicCAS(T* address, transphere::emulator::Same<T> expected, transphere::emulator::Same<T> value) {
  return transphere::emulator::atomic(address, [=](T old) { return old == expected ? value : old; });
}
