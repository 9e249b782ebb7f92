// Says what the runtime says: program devices | use N | allocate BYTES | synchronize | fft.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "core/engine/error.hpp"
#include "cuda/mesh/fft.hpp"
#include "cuda/runtime.hpp"

namespace cuda = nearsight::cuda;

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const long number = argc > 2 ? std::atol(argv[2]) : 0;
  try {
    const cuda::Stream stream;
    if (what == "devices") std::printf("%d\n", cuda::num_devices());
    if (what == "use") std::printf("%d\n", cuda::use_device(static_cast<int>(number)));
    if (what == "allocate") cuda::allocate(number);
    if (what == "synchronize") stream.synchronize();
    if (what == "fft") {
      float mesh = 0;
      cuda::Complex<float> wave{};
      cuda::Fft3<float>({4, 4, 4}, stream).forward(&mesh, &wave);
    }
  } catch (const nearsight::Error& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
  return 0;
}
