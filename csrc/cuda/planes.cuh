// Neighbouring planes of a projected point side by side in a thread, as many as 16 bytes hold where P and the pointers let it, and else one.
#pragma once
#include <cstdint>
#include <initializer_list>

#include "portable.h"

namespace transphere {

template <typename T, int WIDTH>
struct alignas(WIDTH * sizeof(T)) Planes {
  T value[WIDTH];
};

// f(Planes<T, WIDTH>()) with the widest that fits.
template <typename T, typename F>
cudaError_t by_width(int64_t P, std::initializer_list<const T*> arrays, F f) {
  constexpr int kWidth = 16 / sizeof(T);
  for (const T* array : arrays)
    if (P % kWidth || reinterpret_cast<uintptr_t>(array) % 16) return f(Planes<T, 1>());
  return f(Planes<T, kWidth>());
}

template <typename V, typename T>
TS_HD V* as(T* p) { return reinterpret_cast<V*>(p); }

}  // namespace transphere
