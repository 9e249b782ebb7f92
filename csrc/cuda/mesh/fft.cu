// cuFFT without its headers: a few functions, which have been the same since CUDA 8.
#include <dlfcn.h>

#include <string>
#include <type_traits>

#include "core/engine/error.hpp"
#include "cuda/mesh/fft.hpp"

namespace nearsight {
namespace cuda {
namespace {

// cufftType and cufftResult
enum Type { kRealToComplex = 0x2a, kComplexToReal = 0x2c, kDoubleToComplex = 0x6a, kComplexToDouble = 0x6c };
enum Result { kSuccess = 0, kNoMemory = 2 };

/// The folder of site-packages that this library lies in, or nothing.
std::string site_packages() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(&site_packages), &info) || !info.dli_fname) return "";
  const std::string path = info.dli_fname;
  const auto end = path.rfind("nearsight/lib/");
  return end == std::string::npos ? "" : path.substr(0, end);
}

void* open_cufft() {
  // What the process has open already, or the system finds; then what pip has installed beside nearsight.
  for (const char* name : {"libcufft.so.12", "libcufft.so.11", "libcufft.so"})
    if (void* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  for (const char* name : {"nvidia/cu13/lib/libcufft.so.12", "nvidia/cufft/lib/libcufft.so.11"})
    if (void* const library = dlopen((site_packages() + name).c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  throw Error(
      ErrorKind::unsupported,
      "electrostatics on a GPU needs cuFFT, but no libcufft.so.12 or libcufft.so.11 was found: install "
      "it with pip install nvidia-cufft (of CUDA 12: nvidia-cufft-cu12) or with the CUDA toolkit and "
      "put its folder into LD_LIBRARY_PATH, or use device cpu");
}

struct Library {
  using Execute = int (*)(int plan, void* from, void* to);

  int (*plan)(int* plan, int n0, int n1, int n2, int type);
  int (*set_stream)(int plan, void* stream);
  int (*destroy)(int plan);
  Execute real_to_complex, complex_to_real, double_to_complex, complex_to_double;

  Library() {
    void* const library = open_cufft();  // for the life of the process
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
      if (!function)
        throw Error(ErrorKind::unsupported, std::string("the cuFFT that was found has no function ") + name +
                                                ": install cuFFT 11 or 12, or use device cpu");
    };
    find(plan, "cufftPlan3d");
    find(set_stream, "cufftSetStream");
    find(destroy, "cufftDestroy");
    find(real_to_complex, "cufftExecR2C");
    find(complex_to_real, "cufftExecC2R");
    find(double_to_complex, "cufftExecD2Z");
    find(complex_to_double, "cufftExecZ2D");
  }
};

const Library& cufft() {
  static const Library library;
  return library;
}

void check(int result, const char* where) {
  if (result == kSuccess) return;
  if (result == kNoMemory)
    throw Error(ErrorKind::numeric, std::string("the GPU has not enough memory left for ") + where +
                                        " of the charges' mesh: use a smaller system, or a larger rtol");
  throw Error(ErrorKind::internal, std::string("cuFFT failed in ") + where + " with status " +
                                       std::to_string(result) + ": report it");
}

struct Handle {
  int plan = 0;

  Handle(const std::array<int, 3>& lengths, int type, const Stream& stream) {
    check(cufft().plan(&plan, lengths[0], lengths[1], lengths[2], type), "the plan");
    cufft().set_stream(plan, stream.handle());
  }
  ~Handle() { cufft().destroy(plan); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
};

}  // namespace

template <class T>
struct Fft3<T>::Plan {
  static constexpr bool kSingle = sizeof(T) == 4;
  Handle forward, backward;

  Plan(const std::array<int, 3>& lengths, const Stream& stream)
      : forward(lengths, kSingle ? kRealToComplex : kDoubleToComplex, stream),
        backward(lengths, kSingle ? kComplexToReal : kComplexToDouble, stream) {}
};

template <class T>
Fft3<T>::Fft3(const std::array<int, 3>& lengths, const Stream& stream) : plan_(new Plan(lengths, stream)) {}

template <class T>
Fft3<T>::~Fft3() {
  delete plan_;
}

template <class T>
void Fft3<T>::forward(T* mesh, Complex<T>* waves) {
  const auto execute = Plan::kSingle ? cufft().real_to_complex : cufft().double_to_complex;
  check(execute(plan_->forward.plan, mesh, waves), "the transform");
}

template <class T>
void Fft3<T>::backward(Complex<T>* waves, T* mesh) {
  const auto execute = Plan::kSingle ? cufft().complex_to_real : cufft().complex_to_double;
  check(execute(plan_->backward.plan, waves, mesh), "the transform");
}

template class Fft3<float>;
template class Fft3<double>;

}  // namespace cuda
}  // namespace nearsight
