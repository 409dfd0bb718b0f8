// Memory that the stand-in gives out as the device's, or as pinned memory of the host. Fresh memory
// is full of 0xcd. Pages that nobody may touch lie before and behind; what is left of the last page
// is full of a pattern that must still be there when the device is waited for. Memory that was
// given back stays forbidden for long.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace stand_in {

enum class Use { device, pinned };

// nullptr if the device would have more than its limit.
char* allocate(Use use, size_t bytes);
// False if no memory of this use begins there.
bool give_back(Use use, void* data);

// Memory of somebody else that counts as pinned. False if it is (not) pinned already.
bool pin(char* data, size_t bytes);
bool unpin(char* data);

// True if all of it is the device's, or pinned.
bool within(Use use, const void* data, size_t bytes);

// What copies need of both ends: which use all of the memory must still have, if any.
struct End {
  char* data;
  std::optional<Use> use;
};
// False, and nothing is copied, if some has been given back. Nobody gives it back meanwhile.
bool copy(const End& to, const End& from, size_t bytes);

// The first pattern that was written over since the last call, in words; or nothing.
std::string damage();
// Where an address lies, in words.
std::string about(const void* address);

void set_limit(size_t bytes);  // of the device's memory
size_t limit();
void set_registered_limit(size_t bytes);  // of memory of somebody else that is pinned
size_t registered_limit();
size_t registered();
size_t held(Use use);

}  // namespace stand_in
