// Errors of the storage core. bind_pad.cpp turns them into the classes of storage/errors.py;
// std::invalid_argument becomes ValueError.
#pragma once

#include <stdexcept>
#include <string>

namespace ff {

struct BudgetError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// 1536 -> "1.5 KiB (1536 bytes)"
std::string bytes_text(size_t bytes);

}  // namespace ff
