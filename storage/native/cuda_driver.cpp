#include "cuda_driver.h"

#include <dlfcn.h>

#include <type_traits>

namespace ff {

Driver::Driver(const std::string& library) {
  void* const lib = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (lib == nullptr)
    throw DeviceError("no CUDA driver: " + std::string(dlerror()) +
                      "; install NVIDIA's driver, or ask for the CPU");
  auto load = [&](auto& function, const char* name) {
    void* const symbol = dlsym(lib, name);
    if (symbol == nullptr)
      throw DeviceError(library + " has no " + name + ": install a newer NVIDIA driver");
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol);
  };
  load(init, "cuInit");
  load(error_name, "cuGetErrorName");
  load(error_string, "cuGetErrorString");
  load(device_get, "cuDeviceGet");
  load(device_attribute, "cuDeviceGetAttribute");
  load(retain, "cuDevicePrimaryCtxRetain");
  load(release, "cuDevicePrimaryCtxRelease_v2");
  load(set_current, "cuCtxSetCurrent");
  load(synchronize, "cuCtxSynchronize");
  load(allocate, "cuMemAlloc_v2");
  load(free, "cuMemFree_v2");
  load(host_allocate, "cuMemHostAlloc");
  load(host_free, "cuMemFreeHost");
  load(host_register, "cuMemHostRegister_v2");
  load(host_unregister, "cuMemHostUnregister");
  load(copy_in, "cuMemcpyHtoDAsync_v2");
  load(copy_out, "cuMemcpyDtoHAsync_v2");
  load(copy, "cuMemcpyDtoDAsync_v2");
  load(fill, "cuMemsetD8Async");
  load(stream_create, "cuStreamCreate");
  load(stream_destroy, "cuStreamDestroy_v2");
  load(stream_wait, "cuStreamWaitEvent");
  load(event_create, "cuEventCreate");
  load(event_destroy, "cuEventDestroy_v2");
  load(event_record, "cuEventRecord");
  load(event_query, "cuEventQuery");
  load(event_synchronize, "cuEventSynchronize");
  load(launch, "cuLaunchKernel");
  check(init(0), "cuInit");
}

}  // namespace ff
