// The threads that share one large problem. Kernels know no thread library: who calls them brings it.
#pragma once
#include <cstdint>
#include <functional>
#include <utility>

namespace transphere {

struct Team {
  int size = 1;
  std::function<void(const std::function<void(int)>&)> spread;  // calls its argument with 0, ..., size - 1, at once or in turn

  template <typename F>
  void run(F&& f) const {
    if (size == 1) f(0);
    else spread(f);
  }

  // A member's share of [0, count).
  std::pair<int64_t, int64_t> share(int member, int64_t count) const { return {count * member / size, count * (member + 1) / size}; }
};

}  // namespace transphere
