// Memory that a kernel writes before it reads it: not initialised, aligned for the widest vectors and, where it is large, in huge pages.
// Else a sort of millions of points spends as long on page faults as on the points, and one thread alone on zeros.
#pragma once
#include <cstdint>
#include <new>
#include <utility>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace transphere {

template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t size) : alignment_(std::align_val_t(size * sizeof(T) < kHugePage ? 64 : kHugePage)) {
    data_ = static_cast<T*>(::operator new(size * sizeof(T), alignment_));
#ifdef __linux__
    if (size * sizeof(T) >= kHugePage) madvise(data_, size * sizeof(T), MADV_HUGEPAGE);
#endif
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { ::operator delete(data_, alignment_); }

  void swap(Scratch& other) { std::swap(data_, other.data_), std::swap(alignment_, other.alignment_); }
  T* data() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  static constexpr std::size_t kHugePage = std::size_t(1) << 21;
  std::align_val_t alignment_;
  T* data_;
};

}  // namespace transphere
