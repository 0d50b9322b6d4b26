// The part of CUDA's runtime API that hosts of kernels use. One device, whose memory is the host's; every stream is program order.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorIllegalAddress = 700,
  cudaErrorAssert = 710,
  cudaErrorMisalignedAddress = 716,
  cudaErrorLaunchFailure = 719,
  cudaErrorCooperativeLaunchTooLarge = 720,
  cudaErrorInvalidClusterSize = 912
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
  cudaFuncAttributeNonPortableClusterSizeAllowed = 14
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };

struct CUstream_st;
using cudaStream_t = CUstream_st*;

cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);  // for the latest error of this kind, what happened and where
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

namespace transphere::emulator {

constexpr size_t kSharedDefault = 48 << 10;  // dynamic shared memory without cudaFuncSetAttribute
constexpr int kMultiprocessors = 4;
size_t shared_limit();  // with it: sm_80's 163 KiB or sm_90's 227 KiB
cudaError_t allow_shared(const void* kernel, int bytes);
cudaError_t allow_large_clusters(const void* kernel);
cudaError_t active_clusters(int* count, const void* kernel, unsigned size, unsigned threads);
[[gnu::format(printf, 2, 3)]] cudaError_t record(cudaError_t error, const char* format, ...);

}  // namespace transphere::emulator

template <typename F>
cudaError_t cudaFuncSetAttribute(F* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributeNonPortableClusterSizeAllowed && value)
    return transphere::emulator::allow_large_clusters(reinterpret_cast<const void*>(kernel));
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  return transphere::emulator::allow_shared(reinterpret_cast<const void*>(kernel), value);
}
template <typename F>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, F*, int threads, size_t) {
  *blocks = threads > 0 ? std::max(1, 2048 / threads) : 0;
  return cudaSuccess;
}

inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : transphere::emulator::record(cudaErrorInvalidDevice, "device %d", device);
}
inline cudaError_t cudaDeviceSynchronize() { return cudaPeekAtLastError(); }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaPeekAtLastError(); }
inline cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  *pointer = bytes ? aligned_alloc(256, (bytes + 255) / 256 * 256) : nullptr;
  if (*pointer) memset(*pointer, 0xFF, bytes);
  return *pointer || !bytes ? cudaSuccess : transphere::emulator::record(cudaErrorMemoryAllocation, "%zu bytes", bytes);
}
inline cudaError_t cudaFree(void* pointer) { return free(pointer), cudaSuccess; }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t = nullptr) {
  return memmove(to, from, bytes), cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind);
}
inline cudaError_t cudaMemsetAsync(void* to, int byte, size_t bytes, cudaStream_t = nullptr) {
  return memset(to, byte, bytes), cudaSuccess;
}

// Vector types, aligned as CUDA aligns them.
#define TS_VECTORS(T, name, align2, align4)                                                                          \
  struct alignas(align2) name##2 { T x, y; };                                                                        \
  struct name##3 { T x, y, z; };                                                                                     \
  struct alignas(align4) name##4 { T x, y, z, w; };                                                                  \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                         \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                                 \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
TS_VECTORS(float, float, 8, 16)
TS_VECTORS(double, double, 16, 16)
TS_VECTORS(int, int, 8, 16)
TS_VECTORS(unsigned, uint, 8, 16)
TS_VECTORS(long long, longlong, 16, 16)
TS_VECTORS(signed char, char, 2, 4)
TS_VECTORS(unsigned char, uchar, 2, 4)
TS_VECTORS(short, short, 4, 8)
TS_VECTORS(unsigned short, ushort, 4, 8)
#undef TS_VECTORS

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};
