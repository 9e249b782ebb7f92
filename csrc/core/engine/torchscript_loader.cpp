#include <dlfcn.h>

#include "core/engine/error.hpp"
#include "core/engine/model.hpp"

namespace nearsight {
namespace {

constexpr const char* kLibrary = "libnearsight_torchscript.so";
constexpr const char* kEntry = "nearsight_torchscript_load";
using Load = Potential* (*)(const ModelFile&, std::string& error);

/// The folder of the library that this code is part of: the backends lie beside it.
std::string own_folder() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(&own_folder), &info) || !info.dli_fname) return "";
  const std::string path = info.dli_fname;
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

}  // namespace

std::unique_ptr<Potential> make_torchscript_potential(const ModelFile& file) {
  // Stays open for the life of the process: libtorch does not survive being closed.
  static void* library = nullptr;
  if (!library) library = dlopen((own_folder() + kLibrary).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* reason = dlerror();
    throw Error(ErrorKind::unsupported, std::string("the torchscript backend cannot be loaded (") +
                                            (reason ? reason : "unknown reason") +
                                            "): install torch in the version that nearsight was built with");
  }
  const auto load = reinterpret_cast<Load>(dlsym(library, kEntry));
  if (!load)
    throw Error(ErrorKind::unsupported,
                std::string(kLibrary) + " belongs to another nearsight version: reinstall");
  std::string error;
  std::unique_ptr<Potential> potential(load(file, error));
  if (!potential) throw Error(ErrorKind::file, "'" + file.path + "': " + error);
  return potential;
}

}  // namespace nearsight
