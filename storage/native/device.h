// One GPU through the CUDA driver, which is looked for when the first device is opened: nothing
// here is compiled or linked against CUDA. Kernels come as handles of functions that somebody else
// has loaded into the device's primary context, by name.
//
// Every call may come from any thread. What is enqueued on a stream reads its arguments at once and
// its memory later. A call that fails throws DeviceError, which names what was called and what the
// driver says; errors of kernels come out at a later call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "half.h"

namespace ff {

struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Driver;  // the functions of libcuda (cuda_driver.h)

// The kernel of that name for elements of a type: "gather_bf16".
std::string kernel_for(const char* name, Dtype dtype);

class Device {
 public:
  using Kernels = std::map<std::string, uint64_t>;  // CUfunction of each kernel
  // Gives back memory of the device that somebody keeps and does not use. Comes on any thread, with
  // whatever locks that holds. Returns why it could not, or nothing.
  using Relief = std::function<std::string()>;

  // library: of the driver, "libcuda.so.1". ordinal: the GPU among those visible. relief: asked
  // once when there is no memory left, before one more attempt; may be empty.
  Device(const std::string& library, int ordinal, Kernels kernels, Relief relief = {});
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  int ordinal() const { return ordinal_; }
  uint32_t processors() const { return processors_; }  // streaming multiprocessors
  // Whether kernels find pinned memory of the host at the host's own addresses.
  bool follows_host() const { return follows_host_; }
  // Makes the device the current one of this thread. The other members do it themselves.
  void enter() const;
  // Returns when all that was enqueued on any stream is done, or the device has failed: for those
  // whose memory goes.
  void finish() const noexcept;
  // Memory of the device, not initialised. Throws DeviceError if there is not so much.
  char* allocate(size_t bytes) const;
  // Throws std::invalid_argument for a kernel that was not handed over.
  uint64_t kernel(const std::string& name) const;

  const Driver& driver() const { return *driver_; }

 private:
  std::unique_ptr<Driver> driver_;
  int ordinal_;
  int handle_ = 0;
  void* context_ = nullptr;
  uint32_t processors_ = 0;
  bool follows_host_ = false;
  Kernels kernels_;
  Relief relief_;
};

class Stream;

// Memory of the GPU; not initialised. It goes at once: a driver may wait for the kernels that use
// it, and need not. Whoever has it waits.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  // Throws DeviceError if there is not so much.
  DeviceMemory(const Device& device, size_t bytes);
  DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;
  ~DeviceMemory();

  char* data() const { return data_; }  // an address of the device: not to be followed here
  size_t bytes() const { return bytes_; }
  template <class T>
  T* as(size_t byte = 0) const {
    return reinterpret_cast<T*>(data_ + byte);
  }
  // At least so many bytes; what was there is lost if it grows. Then it waits for the stream, which
  // must be behind all that uses the old memory.
  void reserve(const Stream& stream, size_t bytes);

 private:
  const Device* device_ = nullptr;
  char* data_ = nullptr;
  size_t bytes_ = 0;
};

// Memory of the host that stays where it is, so that the GPU can copy it in the background, or read
// and write it at the same addresses. It goes at once, too.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(const Device& device, size_t bytes);
  // Pins memory that somebody else has: pages, whole ones. It must outlive this.
  PinnedMemory(const Device& device, char* data, size_t bytes);
  PinnedMemory(PinnedMemory&& other) noexcept { *this = std::move(other); }
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;
  ~PinnedMemory();

  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  // At least so many bytes; what was there is lost if it grows. No copy may be under way.
  void reserve(const Device& device, size_t bytes);

 private:
  const Device* device_ = nullptr;
  char* data_ = nullptr;
  size_t bytes_ = 0;
  bool own_ = false;
};

class Event;

// Work in order. One that is made here is its own; one of somebody else's (torch's current stream)
// is given by its handle, CUstream, where 0 is the default one.
class Stream {
 public:
  explicit Stream(const Device& device);
  Stream(const Device& device, uint64_t handle) : device_(&device), handle_(handle) {}
  Stream(Stream&& other) noexcept : device_(other.device_) { *this = std::move(other); }
  Stream& operator=(Stream&& other) noexcept;
  ~Stream();

  uint64_t handle() const { return handle_; }
  const Device& device() const { return *device_; }

  // Between host memory, pinned if it is to happen in the background, and the device's.
  void copy_in(void* device, const void* host, size_t bytes) const;
  void copy_out(void* host, const void* device, size_t bytes) const;
  void copy(void* to, const void* from, size_t bytes) const;  // within the device
  void fill(void* device, uint8_t byte, size_t bytes) const;
  // args: the kernel's struct. Without blocks nothing is launched.
  template <class Args>
  void launch(const char* kernel, size_t blocks, uint32_t threads, Args args) const {
#if __has_builtin(__builtin_clear_padding)
    __builtin_clear_padding(&args);  // whoever looks at arguments sees no bytes of something else
#endif
    launch_raw(kernel, blocks, threads, &args);
  }
  // What is enqueued later waits for the event as it was last recorded.
  void wait(const Event& event) const;
  // Returns when all that was enqueued is done; the thread sleeps until then.
  void synchronize() const;
  // The same, or when the device has failed: as Device::finish().
  void finish() const noexcept;

 private:
  void launch_raw(const char* kernel, size_t blocks, uint32_t threads, const void* args) const;

  const Device* device_;
  uint64_t handle_ = 0;
  bool own_ = false;
};

// A moment of a stream. A thread that waits for it sleeps: others have batches to plan on its core.
class Event {
 public:
  // Who waits for it. The device tells the host of every moment that the host may wait for, by an
  // interrupt; an event that only streams wait for does without.
  enum class For { host, device };

  explicit Event(const Device& device, For waits = For::host);
  Event(Event&& other) noexcept : device_(other.device_) { *this = std::move(other); }
  Event& operator=(Event&& other) noexcept;
  ~Event();

  uint64_t handle() const { return handle_; }
  void record(const Stream& stream) const;
  bool done() const;  // true if it was never recorded
  // Throws std::logic_error for an event that is for the device.
  void synchronize() const;
  // The same, or returns when the device has failed: as Device::finish().
  void finish() const noexcept;

 private:
  const Device* device_;
  uint64_t handle_ = 0;
  For waits_ = For::host;
};

}  // namespace ff
