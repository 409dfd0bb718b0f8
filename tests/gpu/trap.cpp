#include "trap.h"

#include <signal.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <string>

#include "block.h"
#include "memory.h"

namespace stand_in {
namespace {

struct sigaction before_segv, before_bus;

// A kernel holds no lock and owns nothing, so it can be left from here: fail() does not return.
void handle(int signal, siginfo_t* info, void*) {
  if (in_kernel()) {
    char text[64];
    snprintf(text, sizeof text, "touched the address %p, ", info->si_addr);
    fail(text + about(info->si_addr), nullptr, 0);
  }
  // The access is made again, and meets who was there before.
  sigaction(signal, signal == SIGSEGV ? &before_segv : &before_bus, nullptr);
}

}  // namespace

void set_traps() {
  struct sigaction action{};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(SIGSEGV, &action, &before_segv);
  sigaction(SIGBUS, &action, &before_bus);
}

void give_signal_stack() {
  constexpr size_t BYTES = 65536;
  stack_t there{};
  sigaltstack(nullptr, &there);
  if (!(there.ss_flags & SS_DISABLE)) return;  // a sanitizer's
  static thread_local char memory[BYTES];
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = BYTES;
  sigaltstack(&stack, nullptr);
}

}  // namespace stand_in

// What the compiler calls before an access through a bad pointer and for a bad index
// (-fsanitize=alignment,null,bounds); the first word of what it hands over names the place.
namespace {
struct SourceLocation {
  const char* file;
  uint32_t line, column;
};
}  // namespace

extern "C" [[noreturn]] void __ubsan_handle_type_mismatch_v1_abort(const SourceLocation* at,
                                                                   uint64_t address) {
  char text[96];
  snprintf(text, sizeof text, "follows a pointer that is null or not aligned: 0x%llx",
           static_cast<unsigned long long>(address));
  stand_in::fail(text, at->file, static_cast<int>(at->line));
}

extern "C" [[noreturn]] void __ubsan_handle_out_of_bounds_abort(const SourceLocation* at,
                                                                uint64_t index) {
  stand_in::fail("has the index " + std::to_string(index) + " beyond the array", at->file,
                 static_cast<int>(at->line));
}
