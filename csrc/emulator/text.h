// printf into strings.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <string>

#include "emulator/runtime.h"

namespace transphere::emulator {

inline std::string format_list(const char* format, va_list list) {
  char text[1000];
  vsnprintf(text, sizeof(text), format, list);
  return text;
}
[[gnu::format(printf, 1, 2)]] inline std::string text(const char* format, ...) {
  va_list list;
  va_start(list, format);
  std::string result = format_list(format, list);
  va_end(list);
  return result;
}

inline std::string name(uint3 i) { return text("(%u, %u, %u)", i.x, i.y, i.z); }

}  // namespace transphere::emulator
