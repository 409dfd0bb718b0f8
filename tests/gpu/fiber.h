// A line of execution with a stack of its own, which runs until it hands over. A fiber stays on the
// thread that resumed it first.
#pragma once

#include <cstddef>

namespace stand_in {

class Fiber {
 public:
  using Body = void (*)(void*);

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Begins body(argument) at the next resume; what it did before is dropped. The body never
  // returns: it suspends for good.
  void start(Body body, void* argument);
  void resume();   // from outside: returns at the next suspend
  void suspend();  // from inside: returns at the next resume

 private:
  static void enter();

  Body body_ = nullptr;
  void* argument_ = nullptr;
  char* memory_;   // a page that nobody may touch, and the stack
  void* inside_;   // where the fiber goes on: its stack pointer, or its ucontext_t
  void* outside_;  // the same of who resumed it
};

}  // namespace stand_in
