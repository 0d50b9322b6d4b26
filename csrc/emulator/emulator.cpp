#include "emulator/emulator.h"

#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "emulator/group.h"
#include "emulator/meeting.h"
#include "emulator/scheduler.h"

namespace {
bool check_races = true;
}

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace transphere::emulator {
// --- threads ---

void Scheduler::enter() {
  Scheduler& self = instance();
  context_started(self.main_);
  try {
    self.launch_->call(self.launch_->arguments);
  } catch (const std::exception& e) {
    self.note(cudaErrorLaunchFailure, text("an exception left the kernel: %s", e.what()).c_str());
  } catch (...) {
    self.note(cudaErrorLaunchFailure, "an exception left the kernel");
  }
  Thread& thread = *self.running_;
  thread.state = Thread::exited;
  ++self.exited_;
  switch_context(thread.context, self.main_, true);
  abort();
}

void Scheduler::resume(Thread& thread) {
  if (thread.state == Thread::fresh) {
    if (stacks_.empty()) stacks_.push_back(std::make_unique<Stack>());
    thread.stack = std::move(stacks_.back());
    stacks_.pop_back();
    thread.stack->prepare(thread.context, enter);
  }
  thread.state = Thread::ready;
  running_ = &thread;
  threadIdx = thread.index;
  switch_context(main_, thread.context);
  running_ = nullptr;
  if (thread.state == Thread::exited) stacks_.push_back(std::move(thread.stack));
}

void Scheduler::wait(Thread::State state, bool last) {
  Thread& thread = *running_;
  thread.state = state;
  if (state == Thread::ready) last ? ready_.add_last(rank()) : ready_.add(rank());
  switch_context(thread.context, main_);
}

void Scheduler::rest() {
  rests_ = true;
  wait(Thread::ready, true);
}

void Scheduler::note(cudaError_t error, const char* text_) {
  if (error_) return;
  error_ = error;
  message_ = text("%s, in ", text_);
  if (running_) message_ += "thread " + name(running_->index) + " of ";
  message_ += "block " + name(blockIdx) + " of " + launch_->name;
}

const DynamicShared* Scheduler::faulting(const void* address) const {
  if (shared_->faults_at(address)) return shared_.get();
  for (const Resting& block : group_)
    if (block.shared->faults_at(address)) return block.shared.get();
  return nullptr;
}

Context* Scheduler::on_fault(int signal, const void* address) {
  if (!running()) return nullptr;
  if (signal == SIGFPE)
    note(cudaErrorLaunchFailure, "integer division by zero");
  else if (running_->stack->overflowed_at(address))
    note(cudaErrorLaunchFailure, "the stack of a thread is full");
  else if (const DynamicShared* shared = faulting(address))
    note(cudaErrorIllegalAddress,
         text("access outside dynamic shared memory%s, at byte %td of %zu", shared == shared_.get() ? "" : " of another block",
              static_cast<const char*>(address) - shared->data(), shared->bytes()).c_str());
  else
    note(cudaErrorIllegalAddress, text("illegal or misaligned memory access, address %p", address).c_str());
  return &main_;
}

void Scheduler::check_aligned(const void* address, size_t bytes) {
  if (running() && uintptr_t(address) % bytes)
    fail(cudaErrorMisalignedAddress, "access of %zu bytes at address %p, which is not a multiple of that", bytes, address);
}

void Scheduler::access(const void* address, size_t bytes, bool write, bool atomic, const void* code) {
  if (!running() || running_->stack->holds(address)) return;
  const bool dynamic = Range{shared_->data(), shared_->bytes()}.holds(address);
  const int mapped = dynamic ? -1 : owner_of(address);
  const bool shared = dynamic || mapped >= 0 || static_shared_.holds(address);
  if (mapped >= 0) check_mapped(mapped, code);
  const uint64_t owner = !shared ? 0 : launch_->cluster && (dynamic || mapped >= 0) ? races_.cluster.first() : races_.block();
  const auto* other = races_.access(rank(), uintptr_t(address), bytes, write, atomic, owner, code);
  if (!other || !check_races) return;
  const std::string them = other->block == races_.block() ? "thread " + name(threads_[other->thread].index) : "a thread of another block";
  const char *this_is = write ? "write" : "read", *that_is = other->write ? "write" : "read";
  fail(cudaErrorLaunchFailure, "race: %s of %zu bytes of %s memory at %s, unordered with a %s by %s at %s", this_is, bytes,
       shared ? "shared" : "global", Races::where(code).c_str(), that_is, them.c_str(), Races::where(other->code).c_str());
}

// --- blocks and grids ---

void Scheduler::start_block(uint3 index) {
  blockIdx = index;
  uint32_t pattern[64];
  for (uint32_t& word : pattern) word = garbage();
  static_shared_.fill(pattern);
  Range{shared_->data(), shared_->bytes()}.fill(pattern);
  for (int i = 0; i < count_; ++i) {
    const unsigned row = unsigned(i) / launch_->block.x;
    threads_[i].index = {unsigned(i) % launch_->block.x, row % launch_->block.y, row / launch_->block.y};
    threads_[i].state = Thread::fresh;
  }
  waiting_ = exited_ = 0;
  races_.start_block(count_);
  ready_.start(count_, seed_, random_);
}

void Scheduler::run_block() {
  rests_ = false;
  while (!error_ && !ready_.empty() && !(rests_ && (launch_->together || launch_->cluster))) resume(threads_[ready_.take(random_)]);
  if (error_ || !ready_.empty() || waits_for_cluster()) return;
  if (exited_ < count_) note(cudaErrorLaunchFailure, stuck().c_str());
  if (!error_ && !shared_->intact())
    note(cudaErrorIllegalAddress, text("a write beside the %zu bytes of dynamic shared memory", shared_->bytes()).c_str());
}

uint3 Scheduler::index_of(uint64_t block) const {
  const uint64_t row = block / launch_->grid.x;
  return {unsigned(block % launch_->grid.x), unsigned(row % launch_->grid.y), unsigned(row / launch_->grid.y)};
}

cudaError_t Scheduler::run(const Launch& launch, uint64_t seed, std::string& message) {
  owner_ = pthread_self();
  launch_ = &launch;
  seed_ = seed;
  random_ = Random(seed);
  error_ = cudaSuccess;
  blockDim = launch.block;
  gridDim = launch.grid;
  count_ = int(launch.block.x * launch.block.y * launch.block.z);
  if (threads_.size() < size_t(count_)) threads_.resize(count_);
  shared_ = std::make_unique<DynamicShared>(launch.shared_bytes);
  static_shared_ = static_shared();
  races_.start_grid();
  group_.clear();
  {
    FaultGuard guard([](int signal, const void* address) { return instance().on_fault(signal, address); });
    const uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
    const BlockOrder order(blocks, seed, random_);
    if (launch.together || launch.cluster) {
      const uint64_t size = launch.cluster ? launch.cluster : blocks;
      const BlockOrder groups(blocks / size, seed, random_);
      std::vector<uint64_t> group(size);
      for (uint64_t i = 0; i < blocks / size && !error_; ++i) {
        for (uint64_t k = 0; k < size; ++k) group[k] = launch.cluster ? groups[i] * size + k : order[k];
        run_group(group, launch.cluster && seed == 1);
      }
    } else
      for (uint64_t i = 0; i < blocks && !error_; ++i) {
        start_block(index_of(order[i]));
        run_block();
      }
  }
  running_ = nullptr;
  ready_.clear();
  for (Thread& thread : threads_)  // abandoned where they were
    if (thread.stack) stacks_.push_back(std::move(thread.stack));
  message = message_;
  return error_;
}

// --- what kernels call ---

int meet_block(Operation operation, int predicate, Site site) { return Scheduler::instance().meet_block(operation, predicate, site); }
uint64_t meet_warp(Operation operation, unsigned mask, uint64_t value, int source, Site site) {
  return Scheduler::instance().meet_warp(operation, mask, value, source, site);
}
void arrive_at_cluster(Site site) { Scheduler::instance().arrive_at_cluster(site); }
void wait_for_cluster(Site site) { Scheduler::instance().wait_for_cluster(site); }
unsigned cluster_rank() { return Scheduler::instance().cluster_rank(); }
unsigned cluster_size() { return Scheduler::instance().cluster_size(); }
void* map_shared(const void* address, unsigned rank, Site site) { return Scheduler::instance().map_shared(address, rank, site); }
int lane() { return Scheduler::instance().rank() % 32; }
void yield() { Scheduler::instance().wait(Thread::ready, true); }
void rest() { Scheduler::instance().rest(); }
void interleave() {
  Scheduler& scheduler = Scheduler::instance();
  // In the fixed orders only now and then, so that a thread that spins ends.
  if (scheduler.random().below(scheduler.ordered() ? 256 : 4) == 0) yield();
}
unsigned garbage() { return 0x7FF80000u | unsigned(Scheduler::instance().random().next() & 0x7FFFF); }
void atomic_access(const void* address, size_t bytes) {
  Scheduler::instance().access(address, bytes, true, true, __builtin_return_address(0));
}
void* dynamic_shared() { return Scheduler::instance().shared().data(); }

void fail(cudaError_t error, const char* format, ...) {
  va_list list;
  va_start(list, format);
  Scheduler::instance().note(error, format_list(format, list).c_str());
  va_end(list);
  Scheduler::instance().wait(Thread::exited);  // the grid is over, and nobody comes back
  abort();
}

// --- what hosts call ---

namespace {

std::mutex mutex;  // launches of all OS threads, one after another
uint64_t order_seed = 2;
int architecture = 80;
std::map<const void*, size_t> allowed;
std::set<const void*> allowed_clusters;  // of more than 8
cudaError_t last_error = cudaSuccess, described_error = cudaSuccess;
std::string description, shown;

cudaError_t check(const Launch& launch) {
  const dim3 &g = launch.grid, &b = launch.block;
  if (!g.x || !g.y || !g.z || g.x > 0x7FFFFFFFu || g.y > 65535 || g.z > 65535)
    return record(cudaErrorInvalidConfiguration, "%s: grid (%u, %u, %u)", launch.name, g.x, g.y, g.z);
  if (!b.x || !b.y || !b.z || b.x > 1024 || b.y > 1024 || b.z > 64 || uint64_t(b.x) * b.y * b.z > 1024)
    return record(cudaErrorInvalidConfiguration, "%s: block (%u, %u, %u), more than 1024 threads or none", launch.name, b.x, b.y, b.z);
  const uint64_t blocks = uint64_t(g.x) * g.y * g.z, resident = uint64_t(kMultiprocessors) * std::max(1u, 2048 / (b.x * b.y * b.z));
  if (launch.together && blocks > resident)
    return record(cudaErrorCooperativeLaunchTooLarge, "%s: %ju blocks together, not up to %ju", launch.name, uintmax_t(blocks),
                  uintmax_t(resident));
  if (launch.cluster) {
    const bool beyond = allowed_clusters.count(launch.kernel) > 0;
    if (architecture < 90 || launch.cluster > (beyond ? 16 : 8) || g.x % launch.cluster || launch.together)
      return record(cudaErrorInvalidClusterSize, "%s: clusters of %u in a grid of %u blocks; sm_%d has %s", launch.name, launch.cluster,
                    g.x, architecture, architecture < 90 ? "none" : beyond ? "up to 16" : "up to 8, or 16 of a kernel that allows it");
  }
  const auto found = allowed.find(launch.kernel);
  const size_t limit = found == allowed.end() ? kSharedDefault : std::max(kSharedDefault, found->second);
  if (launch.shared_bytes > limit)
    return record(cudaErrorInvalidValue, "%s: %zu bytes of dynamic shared memory, not up to %zu", launch.name, launch.shared_bytes, limit);
  return cudaSuccess;
}

}  // namespace

cudaError_t record(cudaError_t error, const char* format, ...) {
  va_list list;
  va_start(list, format);
  description = format_list(format, list);
  va_end(list);
  return last_error = described_error = error;
}

cudaError_t run(const Launch& launch) {
  if (Scheduler::instance().running()) fail(cudaErrorInvalidConfiguration, "a kernel launches a kernel");
  const std::lock_guard<std::mutex> lock(mutex);
  if (const cudaError_t error = check(launch)) return error;
  std::string message;
  const cudaError_t error = Scheduler::instance().run(launch, order_seed, message);
  return error ? record(error, "%s", message.c_str()) : cudaSuccess;
}

size_t shared_limit() { return architecture >= 90 ? 227 << 10 : 163 << 10; }

cudaError_t allow_shared(const void* kernel, int bytes) {
  if (bytes < 0 || size_t(bytes) > shared_limit())
    return record(cudaErrorInvalidValue, "%d bytes of dynamic shared memory, sm_%d has %zu", bytes, architecture, shared_limit());
  allowed[kernel] = size_t(bytes);
  return cudaSuccess;
}

cudaError_t allow_large_clusters(const void* kernel) {
  allowed_clusters.insert(kernel);
  return cudaSuccess;
}

cudaError_t active_clusters(int* count, const void* kernel, unsigned size, unsigned threads) {
  const bool can = architecture >= 90 && size <= (allowed_clusters.count(kernel) ? 16 : 8);
  *count = can ? int(kMultiprocessors * std::max(1u, 2048 / threads) / size) : 0;
  return can ? cudaSuccess : record(cudaErrorInvalidClusterSize, "clusters of %u on sm_%d", size, architecture);
}

}  // namespace transphere::emulator

using namespace transphere::emulator;

#define TS_EXPORT extern "C" __attribute__((visibility("default")))
TS_EXPORT void transphere_emulator_seed(uint64_t seed) { order_seed = seed; }              // 0: ascending order, 1: descending, else random
TS_EXPORT void transphere_emulator_architecture(int sm) { architecture = sm; }              // 80 or 90: shared memory, clusters
TS_EXPORT void transphere_emulator_races(int check) { check_races = check != 0; }          // whether a race that is found is an error
TS_EXPORT const char* transphere_emulator_message() { return description.c_str(); }        // the latest error's

cudaError_t cudaPeekAtLastError() { return last_error; }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorAssert: return "cudaErrorAssert";
    case cudaErrorMisalignedAddress: return "cudaErrorMisalignedAddress";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorCooperativeLaunchTooLarge: return "cudaErrorCooperativeLaunchTooLarge";
    case cudaErrorInvalidClusterSize: return "cudaErrorInvalidClusterSize";
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  shown = cudaGetErrorName(error);
  if (error && error == described_error) shown += ": " + description;
  return shown.c_str();
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = kMultiprocessors; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = int(kSharedDefault); break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = int(shared_limit()); break;
    case cudaDevAttrComputeCapabilityMajor: *value = architecture / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = architecture % 10; break;
  }
  return cudaSuccess;
}

// What -fsanitize=thread calls.
#define TS_ACCESS(name, ...)                                                                                       \
  extern "C" void __tsan_##name(void* address) { Scheduler::instance().access(address, __VA_ARGS__, false, __builtin_return_address(0)); }
#define TS_ALIGNED(name, bytes, write)                                                                             \
  extern "C" void __tsan_##name(void* address) {                                                                   \
    Scheduler::instance().check_aligned(address, bytes);                                                           \
    Scheduler::instance().access(address, bytes, write, false, __builtin_return_address(0));                       \
  }
#define TS_ACCESSES(bytes)                    \
  TS_ALIGNED(read##bytes, bytes, false)       \
  TS_ALIGNED(write##bytes, bytes, true)       \
  TS_ACCESS(unaligned_read##bytes, bytes, false) \
  TS_ACCESS(unaligned_write##bytes, bytes, true)
TS_ACCESSES(1)
TS_ACCESSES(2)
TS_ACCESSES(4)
TS_ACCESSES(8)
TS_ACCESSES(16)
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void* address, size_t bytes) {
  Scheduler::instance().access(address, bytes, false, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t bytes) {
  Scheduler::instance().access(address, bytes, true, false, __builtin_return_address(0));
}
}
