// From a launch on the host to the threads of its grid.
#pragma once
#include <tuple>

#include "emulator/block.h"

namespace transphere::emulator {

struct Launch {
  const char* name;
  const void* kernel;
  dim3 grid, block;
  size_t shared_bytes;
  bool together;     // all blocks take turns, and may wait for each other
  unsigned cluster;  // so many of x do, if not 0
  void (*call)(const void* arguments);  // one thread's run
  const void* arguments;
};

cudaError_t run(const Launch& launch);

template <typename... P>
cudaError_t launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, bool together, unsigned cluster,
                   P... arguments) {
  const auto bound = std::make_pair(kernel, std::tuple<P...>(arguments...));
  const auto call = [](const void* pointer) {
    const auto& [function, values] = *static_cast<decltype(&bound)>(pointer);
    std::apply(function, values);
  };
  return run({name, reinterpret_cast<const void*>(kernel), grid, block, shared_bytes, together, cluster, call, &bound});
}

}  // namespace transphere::emulator
