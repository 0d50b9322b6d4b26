// What every binding needs. Bindings are the only files that know torch, and only its stable ABI.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <tuple>

namespace transphere {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// f(T{}) with T the tensor's floating type.
template <typename F>
void dispatch_float(const Tensor& x, const char* op, F&& f) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return f(float{});
    case ScalarType::Double: return f(double{});
    default: STD_TORCH_CHECK(false, op, ": expected float32 or float64");
  }
}

template <typename T>
const T* data(const Tensor& x) {
  return x.const_data_ptr<T>();
}
template <typename T>
T* out(const Tensor& x) {
  return x.mutable_data_ptr<T>();
}

// Splits [0, n) over torch's intra-op threads; `cost` is the rough work of one index in nanoseconds.
template <typename F>
void parallel(int64_t n, int64_t cost, F&& f) {
  const int64_t grain = 20000 / (cost > 0 ? cost : 1);
  torch::stable::parallel_for(0, n, grain > 0 ? grain : 1, f);
}

}  // namespace transphere
