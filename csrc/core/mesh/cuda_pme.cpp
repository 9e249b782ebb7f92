#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "core/engine/error.hpp"
#include "core/mesh/pme_work.hpp"

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

void* find(const char* name) {
  const char* const wanted = std::getenv("NEARSIGHT_CUDA");
  const bool emulated = wanted && std::string(wanted) == "emulated";
  const std::string file = emulated ? "libnearsight_cuda_emulated.so" : "libnearsight_cuda.so";
  void* const library = dlopen((own_folder() + file).c_str(), RTLD_NOW | RTLD_LOCAL);
  void* const entry = library ? dlsym(library, name) : nullptr;
  if (entry) return entry;
  throw Error(ErrorKind::unsupported,
              file + " cannot be opened: build nearsight with CUDA, or use device cpu");
}

}  // namespace

std::unique_ptr<PmeWork> make_cuda_pme(const PmeParameters& parameters, bool single, int device) {
  using Make = PmeWork* (*)(const PmeParameters&, bool, int, ErrorKind&, std::string&);
  ErrorKind kind{};
  std::string error;
  std::unique_ptr<PmeWork> work(
      reinterpret_cast<Make>(find("nearsight_cuda_make_pme"))(parameters, single, device, kind, error));
  if (!work) throw Error(kind, error);
  return work;
}

std::unique_ptr<PmeWork> make_cuda_direct_sum(int device) {
  using Make = PmeWork* (*)(int, ErrorKind&, std::string&);
  ErrorKind kind{};
  std::string error;
  std::unique_ptr<PmeWork> work(
      reinterpret_cast<Make>(find("nearsight_cuda_make_direct_sum"))(device, kind, error));
  if (!work) throw Error(kind, error);
  return work;
}

}  // namespace nearsight
