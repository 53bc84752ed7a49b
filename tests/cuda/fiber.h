// Fibers: stacks that take turns on one thread of the operating system, known to the sanitizers where these watch.
//
// This file and blocks.cpp are compiled without instrumentation, so a sanitizer sees what the kernels do and not how
// they are run; HARNESS_ASAN and HARNESS_TSAN say which one is linked.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <new>

#if defined(HARNESS_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(HARNESS_TSAN)
#include <sanitizer/tsan_interface.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace harness {

// What happens before release(at) happens before what follows a later acquire(at).
inline void release([[maybe_unused]] void* at) {
#if defined(HARNESS_TSAN)
  __tsan_release(at);
#endif
}
inline void acquire([[maybe_unused]] void* at) {
#if defined(HARNESS_TSAN)
  __tsan_acquire(at);
#endif
}

#if defined(__x86_64__)
// Leaves the registers that a call preserves on the stack, and the stack's top in *from.
extern "C" void harness_switch_stack(void** from, void* to);
asm(R"(
.text
.globl harness_switch_stack
.hidden harness_switch_stack
.type harness_switch_stack, @function
harness_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size harness_switch_stack, .-harness_switch_stack
)");
#endif

class Fiber {
 public:
  // The stack that is running now.
  Fiber() {
#if defined(HARNESS_TSAN)
    sanitizer_ = __tsan_get_current_fiber();
#endif
  }

  // One that runs entry(), which never returns, when it is first switched to.
  explicit Fiber(void (*entry)()) : entry_(entry) {
    void* memory = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    bottom_ = static_cast<unsigned char*>(memory);
    size_ = kStack;
    mprotect(bottom_, size_t(sysconf(_SC_PAGESIZE)), PROT_NONE);  // a kernel that runs off its stack stops there
#if defined(HARNESS_TSAN)
    sanitizer_ = __tsan_create_fiber(0);
#endif
#if defined(__x86_64__)
    void** top = reinterpret_cast<void**>(bottom_ + size_);
    *--top = nullptr;  // where start would return to
    *--top = reinterpret_cast<void*>(&start);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    stack_ = top;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = bottom_;
    context_.uc_stack.ss_size = size_;
    context_.uc_link = nullptr;
    makecontext(&context_, &start, 0);
#endif
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // It must not be the one that runs; what it was doing is forgotten.
  ~Fiber() {
    if (!entry_) return;
#if defined(HARNESS_TSAN)
    __tsan_destroy_fiber(sanitizer_);
#endif
#if defined(HARNESS_ASAN)
    __asan_unpoison_memory_region(bottom_, size_);
#endif
    munmap(bottom_, size_);
  }

  // Stops this one, which runs, and goes on with another; returns when someone switches back.
  void switch_to(Fiber& other) {
    previous_ = this;
    running_ = &other;
#if defined(HARNESS_TSAN)
    __tsan_switch_to_fiber(other.sanitizer_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(HARNESS_ASAN)
    __sanitizer_start_switch_fiber(&sanitizer_, other.bottom_, other.size_);
#endif
#if defined(__x86_64__)
    harness_switch_stack(&stack_, other.stack_);
#else
    swapcontext(&context_, &other.context_);
#endif
    arrive(sanitizer_);
  }

 private:
  static constexpr size_t kStack = 256 * 1024;

  static void start() {
    arrive(nullptr);
    running_->entry_();
  }
  // Also learns where the stack that was left lies: that of the process is not known otherwise.
  static void arrive([[maybe_unused]] void* saved) {
#if defined(HARNESS_ASAN)
    const void* bottom = nullptr;
    size_t size = 0;
    __sanitizer_finish_switch_fiber(saved, &bottom, &size);
    previous_->bottom_ = static_cast<unsigned char*>(const_cast<void*>(bottom));
    previous_->size_ = size;
#endif
  }

  static inline Fiber *running_ = nullptr, *previous_ = nullptr;

  void (*entry_)() = nullptr;
  unsigned char* bottom_ = nullptr;
  size_t size_ = 0;
  void* sanitizer_ = nullptr;  // TSan's fiber, or ASan's saved stack
#if defined(__x86_64__)
  void* stack_ = nullptr;
#else
  ucontext_t context_;
#endif
};

}  // namespace harness
