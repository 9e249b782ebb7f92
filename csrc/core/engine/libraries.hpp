#pragma once
#include <string>

namespace nearsight {

/// A library beside this one that is opened when it is asked for, and stays open for the life of the process.
class SiblingLibrary {
 public:
  /// Does not throw: see is_open().
  explicit SiblingLibrary(const std::string& name);

  bool is_open() const { return handle_ != nullptr; }
  const std::string& name() const { return name_; }
  /// Why it is not open.
  const std::string& reason() const { return reason_; }
  /// A function of it. Throws Error (unsupported) if there is none.
  template <class Function>
  Function* find(const char* function) const {
    return reinterpret_cast<Function*>(find_address(function));
  }

 private:
  void* find_address(const char* function) const;

  std::string name_, reason_;
  void* handle_;
};

}  // namespace nearsight
