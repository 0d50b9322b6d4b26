// Fibers: one stack each, switched by hand. Only emulator.cpp includes this.
//
// A suspended context is one pointer, its stack pointer, at which lie the registers that a call must keep. Under AddressSanitizer each
// switch is announced, or the sanitizer would take the other stack for an overflow.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#define TS_EMULATOR_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(TS_EMULATOR_UCONTEXT)  // a test of the way that serves every other machine
#include <ucontext.h>
#elif defined(__x86_64__)
// switch(save, load): keep the callee-saved registers on this stack, its pointer in *save, and go on where `load` was left.
// resume: the second half alone, entered by the fault handler with the stack pointer already set.
asm(R"(
.text
.p2align 4
.hidden transphere_emulator_switch
.globl transphere_emulator_switch
.type transphere_emulator_switch, @function
transphere_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
.hidden transphere_emulator_resume
.globl transphere_emulator_resume
transphere_emulator_resume:
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size transphere_emulator_switch, .-transphere_emulator_switch
)");
#define TS_EMULATOR_OWN_SWITCH 1
#elif defined(__aarch64__)
asm(R"(
.text
.p2align 4
.hidden transphere_emulator_switch
.globl transphere_emulator_switch
.type transphere_emulator_switch, %function
transphere_emulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
.hidden transphere_emulator_resume
.globl transphere_emulator_resume
transphere_emulator_resume:
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size transphere_emulator_switch, .-transphere_emulator_switch
)");
#define TS_EMULATOR_OWN_SWITCH 1
#else
#include <ucontext.h>
#endif

#ifdef TS_EMULATOR_OWN_SWITCH
extern "C" void transphere_emulator_switch(void** save, void* load);
extern "C" void transphere_emulator_resume();
#endif

namespace transphere::emulator {

#ifdef TS_EMULATOR_ASAN
constexpr size_t kStackBytes = 256 << 10;
#else
constexpr size_t kStackBytes = 64 << 10;
#endif
constexpr size_t kGuardBytes = 256 << 10;  // more than one frame skips

struct Context {
  void* sp = nullptr;
#ifndef TS_EMULATOR_OWN_SWITCH
  ucontext_t machine;
#endif
#ifdef TS_EMULATOR_ASAN
  void* fake_stack = nullptr;
  const void* bottom = nullptr;
  size_t bytes = 0;
#endif
};

// From `from`, which goes on when someone switches back to it, to `to`. A context that will never go on again says so.
inline void switch_context(Context& from, Context& to, bool last = false) {
#ifdef TS_EMULATOR_ASAN
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, to.bottom, to.bytes);
#endif
#ifdef TS_EMULATOR_OWN_SWITCH
  (void)last;
  transphere_emulator_switch(&from.sp, to.sp);
#else
  (void)last;
  swapcontext(&from.machine, &to.machine);
#endif
#ifdef TS_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

// The first thing a new context does; `from` is the one that started it, whose stack the sanitizer learns here.
inline void context_started(Context& from) {
#ifdef TS_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &from.bottom, &from.bytes);
#else
  (void)from;
#endif
}

// A stack with memory below it that faults.
class Stack {
 public:
  Stack() {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    base_ = static_cast<char*>(mmap(nullptr, kGuardBytes + kStackBytes, PROT_NONE, flags, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + kGuardBytes, kStackBytes, PROT_READ | PROT_WRITE)) abort();
  }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  ~Stack() { munmap(base_, kGuardBytes + kStackBytes); }

  bool holds(const void* address) const { return address >= base_ + kGuardBytes && address < base_ + kGuardBytes + kStackBytes; }
  bool overflowed_at(const void* address) const { return address >= base_ && address < base_ + kGuardBytes; }

  // A context that will call `entry`, which must never return.
  void prepare(Context& context, void (*entry)()) const {
    char* const top = base_ + kGuardBytes + kStackBytes;
#ifdef TS_EMULATOR_ASAN
    __asan_unpoison_memory_region(base_ + kGuardBytes, kStackBytes);  // what abandoned calls left
    context.fake_stack = nullptr;
    context.bottom = base_ + kGuardBytes;
    context.bytes = kStackBytes;
#endif
#if defined(__x86_64__) && defined(TS_EMULATOR_OWN_SWITCH)
    // At the entry of a function the stack pointer is 8 modulo 16; the slot above it is the return address that will not be used.
    uint64_t* const sp = reinterpret_cast<uint64_t*>(top - 64);
    for (int i = 0; i < 8; ++i) sp[i] = 0;
    sp[6] = reinterpret_cast<uint64_t>(entry);
    context.sp = sp;
#elif defined(__aarch64__) && defined(TS_EMULATOR_OWN_SWITCH)
    uint64_t* const sp = reinterpret_cast<uint64_t*>(top - 160);
    for (int i = 0; i < 20; ++i) sp[i] = 0;
    sp[11] = reinterpret_cast<uint64_t>(entry);  // x30
    context.sp = sp;
#else
    (void)top;
    getcontext(&context.machine);
    context.machine.uc_stack.ss_sp = base_ + kGuardBytes;
    context.machine.uc_stack.ss_size = kStackBytes;
    context.machine.uc_link = nullptr;
    makecontext(&context.machine, entry, 0);
#endif
  }

 private:
  char* base_;
};

}  // namespace transphere::emulator
