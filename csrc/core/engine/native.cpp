#include "core/engine/model.hpp"

namespace nearsight {

std::unique_ptr<Potential> make_native_potential(const ModelFile&) { return nullptr; }

const char* instruction_set() {
#ifdef NEARSIGHT_X86
  if (__builtin_cpu_supports("x86-64-v4")) return "avx512";
  if (__builtin_cpu_supports("x86-64-v3")) return "avx2";
#endif
  return "baseline";
}

}  // namespace nearsight
