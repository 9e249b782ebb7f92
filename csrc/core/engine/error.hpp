#pragma once
#include <stdexcept>
#include <string>

namespace nearsight {

/// What went wrong, in the classes that hosts tell apart. Values equal ns_status of the C API.
enum class ErrorKind { argument = 1, file = 2, unsupported = 3, numeric = 4, internal = 5 };

/// An error whose text is one sentence for the user: what was expected, what was found, what to do.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

}  // namespace nearsight
