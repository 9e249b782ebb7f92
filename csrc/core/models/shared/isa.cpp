#include "core/models/shared/isa.hpp"

#include <cstdlib>
#include <string>

#include "core/engine/error.hpp"
#include "core/engine/model.hpp"

namespace nearsight {
namespace {

Isa best_isa() {
#ifdef NEARSIGHT_X86
  if (__builtin_cpu_supports("x86-64-v4")) return Isa::avx512;
  if (__builtin_cpu_supports("x86-64-v3")) return Isa::avx2;
#endif
  return Isa::baseline;
}

/// NEARSIGHT_ISA lowers the choice, for tests and for comparing; it cannot raise it above what the machine
/// has.
Isa chosen_isa() {
  const char* const wish = std::getenv("NEARSIGHT_ISA");
  const Isa best = best_isa();
  if (!wish || !*wish) return best;
  const std::string name = wish;
  const Isa isa = name == "avx512" ? Isa::avx512 : name == "avx2" ? Isa::avx2 : Isa::baseline;
  if (isa == Isa::baseline && name != "baseline")
    throw Error(ErrorKind::argument, "NEARSIGHT_ISA is '" + name + "', expected avx512, avx2 or baseline");
  return isa < best ? isa : best;
}

}  // namespace

Isa isa() {
  static const Isa chosen = chosen_isa();
  return chosen;
}

const char* instruction_set() {
  const char* const names[] = {"baseline", "avx2", "avx512"};
  return names[static_cast<int>(isa())];
}

}  // namespace nearsight
