// What LAMMPS opens as a plugin: registers `pair_style mlp`. The pair style itself lies in a library of its
// own, because it is bound to one LAMMPS release: this file needs nothing of LAMMPS but its C API, so it
// loads into any release, costs nothing until a pair style is asked for, and then says in one sentence why
// that cannot work.
//
// SPDX-License-Identifier: GPL-2.0-only

#include <dlfcn.h>
#include <exceptions.h>
#include <lmptype.h>
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <string>

// The C API of LAMMPS (library.h), as far as it is used here.
extern "C" {
int lammps_version(void* handle);
int lammps_extract_setting(void* handle, const char* keyword);
}

namespace {

// The structure that LAMMPS' PLUGIN package takes (lammpsplugin.h, which installed LAMMPS packages leave
// out).
struct PluginEntry {
  const char *version, *style, *name, *info, *author;
  union {
    void* (*v1)(void* lammps);
    void* (*v2)(void* lammps, int argc, char** argv);
  } creator;
  void* handle;
};
using RegisterFunction = void (*)(PluginEntry*, void* lammps);
using CreateFunction = void* (*)(void* lammps);

#ifdef OMPI_MAJOR_VERSION
constexpr bool built_with_open_mpi = true;
#else
constexpr bool built_with_open_mpi = false;
#endif

std::string mpi_library() {
  char text[16384];  // more than any MPI's MPI_MAX_LIBRARY_VERSION_STRING: the one that runs may be another
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string version(text, length);
  return version.substr(0, version.find_first_of(",\n"));
}

// Number of the update of a stable release, which may differ in the layout of its classes; -1 if LAMMPS was
// not built from its repository. The C API does not tell it.
int stable_update() {
  const auto git_descriptor = reinterpret_cast<const char* (*)()>(
      dlsym(RTLD_DEFAULT, "_ZN9LAMMPS_NS6LAMMPS14git_descriptorEv"));  // static, LAMMPS::git_descriptor()
  const std::string text = git_descriptor ? git_descriptor() : "";     // stable_22Jul2025_update4
  if (text.rfind("stable_", 0) != 0) return -1;
  const auto position = text.find("_update");
  return position == std::string::npos ? 0 : std::atoi(text.c_str() + position + 7);
}

std::string name(int release, int update) {
  return "LAMMPS " + std::to_string(release) + (update > 0 ? " update " + std::to_string(update) : "");
}

// Why this plugin cannot work in the LAMMPS around it; empty if it can.
std::string mismatch(void* lammps) {
  const std::string rebuild = "; rebuild nearsight for this LAMMPS";
  const int release = lammps_version(lammps), update = stable_update(),
            built_update = NEARSIGHT_LAMMPS_UPDATE;
  const bool other_update = update >= 0 && built_update >= 0 && update != built_update;
  if (release != NEARSIGHT_LAMMPS_RELEASE || other_update) {
    return "the nearsight plugin was built for " + name(NEARSIGHT_LAMMPS_RELEASE, built_update) +
           ", and this is " + name(release, update) + rebuild + ", or install the LAMMPS it was built for";
  }
  const int tagint_size = lammps_extract_setting(lammps, "tagint");
  const int bigint_size = lammps_extract_setting(lammps, "bigint");
  if (tagint_size != sizeof(LAMMPS_NS::tagint) || bigint_size != sizeof(LAMMPS_NS::bigint)) {
    return "the nearsight plugin was built for atom IDs of " + std::to_string(8 * sizeof(LAMMPS_NS::tagint)) +
           " bits, and this LAMMPS has " + std::to_string(8 * tagint_size) +
           " bits (LAMMPS_SMALLBIG or LAMMPS_BIGBIG)" + rebuild;
  }
  const bool runs_open_mpi = mpi_library().rfind("Open MPI", 0) == 0;
  if (runs_open_mpi != built_with_open_mpi) {
    return std::string("the nearsight plugin was built for ") + (built_with_open_mpi ? "Open MPI" : "MPICH") +
           ", and this LAMMPS runs on " + mpi_library() + rebuild;
  }
  return "";
}

// LAMMPS prints what its own Error class throws before it throws; the C API offers no way to do both.
[[noreturn]] void fail(void* lammps, const std::string& reason) {
  const std::string sentence = "ERROR: pair_style mlp: " + reason;
  if (lammps_extract_setting(lammps, "world_rank") == 0) std::fprintf(stderr, "%s\n", sentence.c_str());
  throw LAMMPS_NS::LAMMPSException(sentence);
}

// The library with the pair style, which lies beside this one.
std::string pair_library() {
  Dl_info info{};
  dladdr(reinterpret_cast<void*>(&pair_library), &info);
  const std::string path = info.dli_fname ? info.dli_fname : "";
  return path.substr(0, path.rfind('/') + 1) + "libnearsight_pair_mlp.so";
}

void* create_pair(void* lammps) {
  const std::string problem = mismatch(lammps);
  if (!problem.empty()) fail(lammps, problem);
  // Stays open, so that `clear` and `plugin unload` leave no dangling code behind.
  void* library = dlopen(pair_library().c_str(), RTLD_NOW | RTLD_LOCAL);
  void* create = library ? dlsym(library, "nearsight_create_pair") : nullptr;
  if (!create) fail(lammps, std::string("the nearsight installation is damaged: ") + dlerror());
  return reinterpret_cast<CreateFunction>(create)(lammps);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void* lammps, void* handle,
                                                                         void* registrar) {
  PluginEntry entry{};
  entry.style = "pair";
  entry.name = "mlp";
  entry.info = "pair style mlp (machine-learned potentials)";
  entry.author = "nearsight";
  entry.creator.v1 = create_pair;
  entry.handle = handle;
  reinterpret_cast<RegisterFunction>(registrar)(&entry, lammps);
}
