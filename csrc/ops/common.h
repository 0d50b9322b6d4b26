// What every binding needs. Bindings are the only files that know torch, and only its stable ABI.
//
// A binding is written once, as a template over where its kernel runs:
//
//   template <typename On>
//   Tensor forward(const Tensor& x) {
//     const On on(x);                                          // x's device is the current one from here to the end
//     ...
//     if constexpr (On::cuda) on.check("op", op_cuda(..., on.stream()));
//     else parallel(n, cost, [&](int64_t b, int64_t e) { op_cpu(..., b, e); });
//   }
//   template <typename On>
//   void ops(Library& m) { m.impl(On::op("op"), TORCH_BOX(&forward<On>)); }
//   TS_REGISTER(ops)
#pragma once
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>

#include "portable.h"
#include "team.h"

#ifdef TRANSPHERE_WITH_CUDA
// It lies in libtorch_cuda alone: weak, so that the one binary also loads on a torch without CUDA.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);
#endif

namespace transphere {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Library = torch::stable::detail::StableLibrary;

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

inline int threads() { return int(torch::stable::get_num_threads()); }

// A team for one problem of `cost` nanoseconds: no more members than find a tenth of a millisecond's work.
inline Team team(int64_t cost) {
  const int size = int(std::clamp<int64_t>(cost / 100000, 1, threads()));
  return {size, [size](const std::function<void(int)>& f) {
            torch::stable::parallel_for(0, size, 1, [&](int64_t b, int64_t e) {
              for (; b < e; ++b) f(int(b));
            });
          }};
}

struct OnCpu {
  static constexpr bool cuda = false;
  explicit OnCpu(const Tensor&) {}
  static const char* op(const char* name) { return name; }
};

#ifdef TS_CUDA
class OnCuda {
 public:
  static constexpr bool cuda = true;

  static void check(const char* op, cudaError_t error) { STD_TORCH_CHECK(error == cudaSuccess, op, ": ", cudaGetErrorString(error)); }

#ifdef TRANSPHERE_EMULATED
  // The emulator's device has the host's memory: the tensors are the CPU's, and the ops stand beside the CPU's own.
  explicit OnCuda(const Tensor&) {}
  static cudaStream_t stream() { return nullptr; }
  static const char* op(const char* name) {
    static std::string emulated;
    return (emulated = std::string(name) + "_emulated").c_str();
  }
#else
  explicit OnCuda(const Tensor& x) : device_(x.get_device_index()), guard_(device_) {}
  static const char* op(const char* name) { return name; }

  cudaStream_t stream() const {
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "transphere: this torch was built without CUDA");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device_, &stream));
    return static_cast<cudaStream_t>(stream);
  }

 private:
  int32_t device_;
  torch::stable::accelerator::DeviceGuard guard_;
#endif
};
#endif

#if defined(TRANSPHERE_EMULATED)
#define TS_REGISTER(ops) \
  STABLE_TORCH_LIBRARY_IMPL(transphere, CPU, m) { ops<OnCuda>(m); }
#elif defined(TRANSPHERE_WITH_CUDA)
#define TS_REGISTER(ops)                                           \
  STABLE_TORCH_LIBRARY_IMPL(transphere, CPU, m) { ops<OnCpu>(m); } \
  STABLE_TORCH_LIBRARY_IMPL(transphere, CUDA, m) { ops<OnCuda>(m); }
#else
#define TS_REGISTER(ops) \
  STABLE_TORCH_LIBRARY_IMPL(transphere, CPU, m) { ops<OnCpu>(m); }
#endif

}  // namespace transphere
