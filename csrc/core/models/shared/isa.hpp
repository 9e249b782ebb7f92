#pragma once
// Every kernels.cpp is compiled once per instruction set (see csrc/CMakeLists.txt) and defines a table of
// functions in a namespace of that name; here the table of this machine is chosen, once.

namespace nearsight {

enum class Isa { baseline, avx2, avx512 };

/// The best that this machine has, or less if NEARSIGHT_ISA in the environment asks for it.
Isa isa();

constexpr int kPad = 16;  // runs of neighbors and rows of matrices are padded to this many elements
constexpr int padded(int n) {
  return (n + kPad - 1) / kPad * kPad;
}

}  // namespace nearsight

/// Defines the table kernels_T of one instruction set, from the function table<T>(), at the end of a
/// kernels.cpp. In the namespace of the kernels.
#define NEARSIGHT_DEFINE_KERNELS(T)          \
  namespace NEARSIGHT_ISA {                  \
  extern const Kernels<T> kernels_##T;       \
  const Kernels<T> kernels_##T = table<T>(); \
  }

/// Defines kernels<T>(), which returns the table kernels_T of this machine. In the namespace of the kernels.
#ifdef NEARSIGHT_X86
#define NEARSIGHT_CHOOSE_KERNELS(T)                                                                        \
  namespace baseline {                                                                                     \
  extern const Kernels<T> kernels_##T;                                                                     \
  }                                                                                                        \
  namespace avx2 {                                                                                         \
  extern const Kernels<T> kernels_##T;                                                                     \
  }                                                                                                        \
  namespace avx512 {                                                                                       \
  extern const Kernels<T> kernels_##T;                                                                     \
  }                                                                                                        \
  template <>                                                                                              \
  const Kernels<T>& kernels<T>() {                                                                         \
    const Kernels<T>* const tables[] = {&baseline::kernels_##T, &avx2::kernels_##T, &avx512::kernels_##T}; \
    return *tables[static_cast<int>(isa())];                                                               \
  }
#else
#define NEARSIGHT_CHOOSE_KERNELS(T)    \
  namespace baseline {                 \
  extern const Kernels<T> kernels_##T; \
  }                                    \
  template <>                          \
  const Kernels<T>& kernels<T>() {     \
    return baseline::kernels_##T;      \
  }
#endif
