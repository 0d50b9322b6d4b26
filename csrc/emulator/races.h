// Races, found by what is ordered rather than by what went wrong. Only emulator.cpp includes this.
//
// Kernels compiled with -fsanitize=thread (but linked without its runtime) report every access to memory here. Two accesses of different
// threads to one byte, one of them a write and not both atomic, must be ordered: by a barrier of the block between them, by __syncwarp for
// lanes of one warp, by atomics on one address, or by a barrier of the cluster; shuffles and votes order nothing. Between blocks of
// different clusters there is no order. In global memory a grid that uses atomics is not judged between blocks.
//
// Two readers are remembered for a word, and an atomic is taken to have seen all that came before the last one on its address: a race may
// be missed, none is made up.
#pragma once
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "emulator/cluster.h"
#include "emulator/text.h"

namespace transphere::emulator {

class Races {
 public:
  struct Access {
    uint64_t block = 0, time = 0;
    int thread = -1;
    uint8_t bytes = 0;  // of the word of four
    bool write = false, atomic = false;
    const void* code = nullptr;
  };

  Cluster cluster;  // of the running block

  void start_grid() {
    words_.clear();
    released_.clear();
    atomics_ = false;
    block_ = blocks_ = 0;
    cluster.clear();
  }
  // What is of one block alone; blocks that take turns are exchanged.
  struct Block {
    uint64_t block = 0, barrier = 0;
    std::vector<uint64_t> acquired;
    std::vector<std::array<uint64_t, 32>> warps;
  };
  void exchange(Block& other) {
    std::swap(block_, other.block);
    std::swap(barrier_, other.barrier);
    std::swap(acquired_, other.acquired);
    std::swap(warps_, other.warps);
  }
  void start_block(int threads) {
    block_ = ++blocks_;
    barrier_ = ++clock_;
    acquired_.assign(size_t(threads), 0);
    warps_.assign(size_t(threads), {});
  }
  uint64_t block() const { return block_; }
  uint64_t tick() { return ++clock_; }
  void barrier() { barrier_ = ++clock_; }
  void warp_barrier(int first, unsigned mask) {
    std::array<uint64_t, 32> seen{};
    for (int i = 0; i < 32; ++i)
      if (mask >> i & 1)
        for (int j = 0; j < 32; ++j) seen[j] = std::max(seen[j], warps_[first + i][j]);
    ++clock_;
    for (int i = 0; i < 32; ++i)
      if (mask >> i & 1) seen[i] = clock_;
    for (int i = 0; i < 32; ++i)
      if (mask >> i & 1) warps_[first + i] = seen;
  }

  // The earlier access that this one races with, or nullptr. `owner` is 0 for global memory; for shared memory the block, or the first
  // block of the cluster, that has it: to another one it is another memory.
  const Access* access(int thread, uintptr_t address, size_t size, bool write, bool atomic, uint64_t owner, const void* code) {
    ++clock_;
    if (atomic) {
      atomics_ = true;
      uint64_t& released = released_[address];
      acquired_[thread] = std::max(acquired_[thread], released);
      released = clock_;
    }
    for (uintptr_t word = address / 4; word <= (address + size - 1) / 4; ++word) {
      const uintptr_t begin = std::max(address, 4 * word), end = std::min(address + size, 4 * word + 4);
      const Access now{block_, clock_, thread, uint8_t(((1u << (end - begin)) - 1) << (begin - 4 * word)), write, atomic, code};
      Word& cell = words_[word];
      if (owner && cell.owner != owner) cell = {};
      cell.owner = owner;
      for (const Access* before : {&cell.write, &cell.reads[0], &cell.reads[1]})
        if (before->thread >= 0 && (write || before->write) && (before->bytes & now.bytes) && !(atomic && before->atomic) &&
            !ordered(*before, now, owner != 0)) {
          found_ = *before;
          return &found_;
        }
      if (write)
        cell.write = now, cell.reads[0] = cell.reads[1] = {};
      else if (cell.reads[0].thread == thread || cell.reads[0].thread < 0)
        cell.reads[0] = now;
      else
        cell.reads[1] = now;
    }
    return nullptr;
  }

  // file:line of an instruction, if there are the tools and the debugging information.
  static std::string where(const void* code) {
    Dl_info info;
    if (!dladdr(code, &info) || !info.dli_fname) return "?";
    const auto offset = static_cast<const char*>(code) - static_cast<const char*>(info.dli_fbase) - 1;
    char line[500] = "";
    if (FILE* pipe = popen(text("addr2line -e '%s' 0x%tx 2>/dev/null", info.dli_fname, offset).c_str(), "r")) {
      if (!fgets(line, sizeof(line), pipe)) line[0] = 0;
      pclose(pipe);
    }
    const std::string found = line;
    return found.empty() || found[0] == '?' ? text("%s+0x%tx", info.dli_fname, offset) : found.substr(0, found.find_first_of(" \n"));
  }

 private:
  struct Word {
    uint64_t owner = 0;
    Access write, reads[2];
  };

  bool ordered(const Access& before, const Access& now, bool shared) const {
    if (cluster.holds(before.block) && cluster.ordered(before.block, before.thread, before.time, now.block, now.thread)) return true;
    if (before.block != now.block) return shared ? before.time < acquired_[now.thread] : atomics_;
    if (before.thread == now.thread || before.time < barrier_ || before.time < acquired_[now.thread]) return true;
    return before.thread / 32 == now.thread / 32 && before.time < warps_[now.thread][before.thread % 32];
  }

  std::unordered_map<uintptr_t, Word> words_;
  std::unordered_map<uintptr_t, uint64_t> released_;    // the last atomic on an address
  std::vector<uint64_t> acquired_;                      // for each thread: what came before it is seen
  std::vector<std::array<uint64_t, 32>> warps_;         // the same, of each lane of its warp
  uint64_t clock_ = 0, barrier_ = 0, block_ = 0, blocks_ = 0;
  bool atomics_ = false;
  Access found_;
};

}  // namespace transphere::emulator
