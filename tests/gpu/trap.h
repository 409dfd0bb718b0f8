// What happens when a kernel touches an address that it must not: the kernel ends with a message
// and the process lives on, as with a GPU.
#pragma once

namespace stand_in {

void set_traps();
// For the thread that calls: signals need a stack even where a fiber has used up its own.
void give_signal_stack();

}  // namespace stand_in
