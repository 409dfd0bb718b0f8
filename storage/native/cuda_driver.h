// The functions of the CUDA driver that Fourfold calls, looked up at run time.
#pragma once

#include <cstddef>
#include <string>

#include "device.h"

namespace ff {

// Names and shapes of the functions as in cuda.h (CUDA 11 and later keep the _v2 names). Handles
// are pointers or 64-bit addresses there; all results are CUresult, 0 for success.
struct Driver {
  using Handle = void*;
  using Address = unsigned long long;

  int (*init)(unsigned);
  int (*error_name)(int, const char**);
  int (*error_string)(int, const char**);
  int (*device_get)(int*, int);
  int (*device_attribute)(int*, int, int);
  int (*retain)(Handle*, int);
  int (*release)(int);
  int (*set_current)(Handle);
  int (*synchronize)();
  int (*allocate)(Address*, size_t);
  int (*free)(Address);
  int (*host_allocate)(void**, size_t, unsigned);
  int (*host_free)(void*);
  int (*host_register)(void*, size_t, unsigned);
  int (*host_unregister)(void*);
  int (*copy_in)(Address, const void*, size_t, Handle);
  int (*copy_out)(void*, Address, size_t, Handle);
  int (*copy)(Address, Address, size_t, Handle);
  int (*fill)(Address, unsigned char, size_t, Handle);
  int (*stream_create)(Handle*, unsigned);
  int (*stream_destroy)(Handle);
  int (*stream_wait)(Handle, Handle, unsigned);
  int (*event_create)(Handle*, unsigned);
  int (*event_destroy)(Handle);
  int (*event_record)(Handle, Handle);
  int (*event_query)(Handle);
  int (*event_synchronize)(Handle);
  int (*launch)(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                Handle, void**, void**);

  explicit Driver(const std::string& library);

  void check(int result, const std::string& what) const {
    if (result == 0) return;
    const char *name = nullptr, *text = nullptr;
    error_name(result, &name);
    error_string(result, &text);
    throw DeviceError(what + ": " + (name ? name : "unknown error") + " (" +
                      std::to_string(result) + (text ? std::string("), ") + text : ")"));
  }
};

}  // namespace ff
