// Shared memory: the dynamic one between pages that fault, and the segment of the static ones. Only emulator.cpp includes this.
#pragma once
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

namespace transphere::emulator {

// Ends (to 16 bytes) where memory that faults begins, and memory that faults lies before it; the gaps to both hold a pattern that is
// checked. The sanitizer wants memory of its own, of the exact size.
class DynamicShared {
 public:
  explicit DynamicShared(size_t bytes) : bytes_(bytes) {
#ifdef TS_EMULATOR_ASAN
    data_ = static_cast<char*>(::operator new(bytes, std::align_val_t(256)));
#else
    const size_t page = size_t(sysconf(_SC_PAGESIZE)), room = (bytes + page - 1) / page * page;
    mapped_ = room + 2 * kGuard;
    base_ = static_cast<char*>(mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED) throw std::bad_alloc();
    first_ = base_ + kGuard;
    last_ = first_ + room;
    if (room && mprotect(first_, room, PROT_READ | PROT_WRITE)) throw std::bad_alloc();
    data_ = last_ - (bytes + 15) / 16 * 16;
    memset(first_, kPattern, size_t(data_ - first_));
    memset(data_ + bytes, kPattern, size_t(last_ - data_) - bytes);
#endif
  }
  DynamicShared(const DynamicShared&) = delete;
  DynamicShared& operator=(const DynamicShared&) = delete;
#ifdef TS_EMULATOR_ASAN
  ~DynamicShared() { ::operator delete(data_, std::align_val_t(256)); }
  bool faults_at(const void*) const { return false; }
  bool intact() const { return true; }
#else
  ~DynamicShared() { munmap(base_, mapped_); }
  bool faults_at(const void* address) const {
    return (address >= base_ && address < first_) || (address >= last_ && address < base_ + mapped_);
  }
  bool intact() const {
    for (const char* p = first_; p < data_; ++p)
      if (*p != kPattern) return false;
    for (const char* p = data_ + bytes_; p < last_; ++p)
      if (*p != kPattern) return false;
    return true;
  }
#endif
  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr char kPattern = 0x5A;
  static constexpr size_t kGuard = 1 << 20;
  size_t bytes_;
  char* data_;
#ifndef TS_EMULATOR_ASAN
  size_t mapped_;
  char *base_, *first_, *last_;
#endif
};

struct Range {
  char* data;
  size_t bytes;

  bool holds(const void* address) const { return address >= data && address < data + bytes; }
  void fill(const uint32_t (&pattern)[64]) const {
    for (size_t at = 0; at < bytes; at += sizeof(pattern)) memcpy(data + at, pattern, std::min(sizeof(pattern), bytes - at));
  }
};

// This library's thread-local segment: __shared__ variables are thread-local, and nothing else in it is.
inline Range static_shared() {
#ifdef TS_EMULATOR_ASAN
  return {nullptr, 0};
#else
  static thread_local char anchor;
  *const_cast<volatile char*>(&anchor) = 0;  // the segment comes into being on first use
  struct Segment {
    const void* inside;
    char* data;
    size_t bytes;
  } segment{&anchor, nullptr, 0};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        Segment& found = *static_cast<Segment*>(out);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          if (info->dlpi_phdr[i].p_type != PT_TLS || !info->dlpi_tls_data) continue;
          char* const data = static_cast<char*>(info->dlpi_tls_data);
          if (found.inside < data || found.inside >= data + info->dlpi_phdr[i].p_memsz) continue;
          found.data = data;
          found.bytes = info->dlpi_phdr[i].p_memsz;
          return 1;
        }
        return 0;
      },
      &segment);
  return {segment.data, segment.bytes};
#endif
}

}  // namespace transphere::emulator
