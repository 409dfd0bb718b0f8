// Errors of the storage core. bind_pad.cpp and bind_file.cpp turn them into the classes of
// storage/errors.py; std::invalid_argument becomes ValueError.
#pragma once

#include <stdexcept>
#include <string>

namespace ff {

struct BudgetError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What the system said no to, with its errno.
struct StorageError : std::runtime_error {
  StorageError(int code, const std::string& what) : std::runtime_error(what), code(code) {}
  int code;
};

// Stored bytes are not those that were written.
struct CorruptionError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// 1536 -> "1.5 KiB (1536 bytes)"
std::string bytes_text(size_t bytes);

}  // namespace ff
