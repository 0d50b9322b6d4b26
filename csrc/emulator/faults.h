// While a kernel runs, a fault of the machine is its error, not the process's end. Only emulator.cpp includes this.
#pragma once
#include <signal.h>
#include <ucontext.h>

#include <cstddef>

#include "emulator/fiber.h"

// The sanitizer reports faults itself, and a context of ucontext cannot be entered from a signal handler.
#if defined(TS_EMULATOR_OWN_SWITCH) && !defined(TS_EMULATOR_ASAN) && !defined(__SANITIZE_THREAD__)
#define TS_EMULATOR_FAULTS 1
#endif

namespace transphere::emulator {

// Called in the handler: nullptr if the fault is not the kernel's, else the context to go on with.
using Describe = Context* (*)(int signal, const void* address);

class FaultGuard {
 public:
  explicit FaultGuard(Describe describe) {
#ifdef TS_EMULATOR_FAULTS
    describe_ = describe;
    stack_t stack{};
    stack.ss_sp = stack_;  // the fault may be that the fiber's own is full
    stack.ss_size = sizeof(stack_);
    sigaltstack(&stack, &old_stack_);
    struct sigaction action {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < kSignals; ++i) sigaction(signals_[i], &action, &old_[i]);
#else
    (void)describe;
#endif
  }
#ifdef TS_EMULATOR_FAULTS
  ~FaultGuard() {
    for (int i = 0; i < kSignals; ++i) sigaction(signals_[i], &old_[i], nullptr);
    sigaltstack(&old_stack_, nullptr);
  }

 private:
  static void handle(int signal, siginfo_t* info, void* machine) {
    Context* const next = describe_(signal, info->si_addr);
    if (!next) {
      for (int i = 0; i < kSignals; ++i) sigaction(signals_[i], &old_[i], nullptr);
      return;  // it happens again, to its old handler
    }
    auto& registers = static_cast<ucontext_t*>(machine)->uc_mcontext;
#if defined(__x86_64__)
    registers.gregs[REG_RSP] = greg_t(next->sp);
    registers.gregs[REG_RIP] = greg_t(&transphere_emulator_resume);
#else
    registers.sp = (unsigned long long)next->sp;
    registers.pc = (unsigned long long)&transphere_emulator_resume;
#endif
  }

  static constexpr int kSignals = 3;
  static constexpr int signals_[kSignals] = {SIGSEGV, SIGBUS, SIGFPE};
  static inline Describe describe_ = nullptr;
  static inline struct sigaction old_[kSignals];
  static inline stack_t old_stack_;
  alignas(16) static inline char stack_[64 << 10];
#endif
};

}  // namespace transphere::emulator
