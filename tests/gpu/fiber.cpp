#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace stand_in {
namespace {

constexpr size_t PAGE = 65536;  // a multiple of the page size of every CPU
constexpr size_t STACK = 2 * PAGE;

thread_local Fiber* starting;

}  // namespace

void Fiber::enter() {
  Fiber* const self = starting;
  self->body_(self->argument_);
  for (;;) self->suspend();
}

#ifdef __x86_64__

// switch_stacks(void** from, void* to): the registers that a function keeps go onto the stack, the
// stack pointer to *from, and back from the other stack.
extern "C" __attribute__((visibility("hidden"))) void stand_in_switch_stacks(void** from, void* to);
asm(R"(
  .text
  .globl stand_in_switch_stacks
  .hidden stand_in_switch_stacks
  .type stand_in_switch_stacks, @function
stand_in_switch_stacks:
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
  .size stand_in_switch_stacks, . - stand_in_switch_stacks
)");

void Fiber::start(Body body, void* argument) {
  body_ = body;
  argument_ = argument;
  // Six registers, where the switch returns to, and a return address that nobody uses.
  auto* const top = reinterpret_cast<uint64_t*>(memory_ + PAGE + STACK);
  for (int word = 1; word <= 8; ++word) top[-word] = 0;
  top[-2] = reinterpret_cast<uint64_t>(&Fiber::enter);
  inside_ = top - 8;
}

void Fiber::resume() {
  starting = this;
  stand_in_switch_stacks(&outside_, inside_);
}

void Fiber::suspend() { stand_in_switch_stacks(&inside_, outside_); }

#else

void Fiber::start(Body body, void* argument) {
  body_ = body;
  argument_ = argument;
  if (inside_ == nullptr) {
    inside_ = new ucontext_t;
    outside_ = new ucontext_t;
  }
  auto* const inside = static_cast<ucontext_t*>(inside_);
  getcontext(inside);
  inside->uc_stack.ss_sp = memory_ + PAGE;
  inside->uc_stack.ss_size = STACK;
  inside->uc_link = nullptr;
  makecontext(inside, &Fiber::enter, 0);
}

void Fiber::resume() {
  starting = this;
  swapcontext(static_cast<ucontext_t*>(outside_), static_cast<ucontext_t*>(inside_));
}

void Fiber::suspend() {
  swapcontext(static_cast<ucontext_t*>(inside_), static_cast<ucontext_t*>(outside_));
}

#endif

Fiber::Fiber() : inside_(nullptr), outside_(nullptr) {
  void* const at = mmap(nullptr, PAGE + STACK, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<char*>(at);
  mprotect(memory_, PAGE, PROT_NONE);
}

Fiber::~Fiber() {
  munmap(memory_, PAGE + STACK);
#ifndef __x86_64__
  delete static_cast<ucontext_t*>(inside_);
  delete static_cast<ucontext_t*>(outside_);
#endif
}

}  // namespace stand_in
