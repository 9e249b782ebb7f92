#include "core/engine/libraries.hpp"

#include <dlfcn.h>

#include "core/engine/error.hpp"

namespace nearsight {
namespace {

/// The folder of the library that this code is part of.
std::string own_folder() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(&own_folder), &info) || !info.dli_fname) return "";
  const std::string path = info.dli_fname;
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

}  // namespace

SiblingLibrary::SiblingLibrary(const std::string& name)
    : name_(name), handle_(dlopen((own_folder() + name).c_str(), RTLD_NOW | RTLD_LOCAL)) {
  if (handle_) return;
  const char* const reason = dlerror();
  reason_ = reason ? reason : "unknown reason";
}

void* SiblingLibrary::find_address(const char* function) const {
  void* const address = handle_ ? dlsym(handle_, function) : nullptr;
  if (!address)
    throw Error(ErrorKind::unsupported, name_ + " belongs to another nearsight version: reinstall");
  return address;
}

}  // namespace nearsight
