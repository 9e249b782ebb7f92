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

// Why this plugin cannot work in the LAMMPS around it; empty if it can.
std::string mismatch(void* lammps) {
  const std::string rebuild = "; rebuild nearsight for this LAMMPS";
  const int release = lammps_version(lammps);
  if (release != NEARSIGHT_LAMMPS_RELEASE) {
    return "the nearsight plugin was built for LAMMPS " + std::to_string(NEARSIGHT_LAMMPS_RELEASE) +
           ", and this is LAMMPS " + std::to_string(release) + rebuild +
           ", or install the LAMMPS it was built for";
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

void* create_pair(void* lammps) {
  const std::string problem = mismatch(lammps);
  if (!problem.empty()) fail(lammps, problem);
  // Found through the RPATH; stays open, so that `clear` and `plugin unload` leave no dangling code behind.
  void* library = dlopen("libnearsight_pair_mlp.so", RTLD_NOW | RTLD_LOCAL);
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
