// Chooses the kernels of this machine once, at first use.
#include <cstdlib>
#include <string>

#include "core/engine/error.hpp"
#include "core/engine/model.hpp"
#include "core/models/bpnn/kernels.hpp"

namespace nearsight {
namespace {

enum class Isa { baseline, avx2, avx512 };

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

Isa isa() {
  static const Isa chosen = chosen_isa();
  return chosen;
}

}  // namespace

const char* instruction_set() {
  const char* const names[] = {"baseline", "avx2", "avx512"};
  return names[static_cast<int>(isa())];
}

namespace bpnn {

#ifdef NEARSIGHT_X86
#define NEARSIGHT_FOR_EACH_ISA(X) X(baseline) X(avx2) X(avx512)
#else
#define NEARSIGHT_FOR_EACH_ISA(X) X(baseline)
#endif
#define NEARSIGHT_DECLARE(name)                \
  namespace name {                             \
  extern const Kernels<float> kernels_float;   \
  extern const Kernels<double> kernels_double; \
  }
NEARSIGHT_FOR_EACH_ISA(NEARSIGHT_DECLARE)

template <>
const Kernels<float>& kernels<float>() {
#ifdef NEARSIGHT_X86
  if (isa() == Isa::avx512) return avx512::kernels_float;
  if (isa() == Isa::avx2) return avx2::kernels_float;
#endif
  return baseline::kernels_float;
}

template <>
const Kernels<double>& kernels<double>() {
#ifdef NEARSIGHT_X86
  if (isa() == Isa::avx512) return avx512::kernels_double;
  if (isa() == Isa::avx2) return avx2::kernels_double;
#endif
  return baseline::kernels_double;
}

}  // namespace bpnn
}  // namespace nearsight
