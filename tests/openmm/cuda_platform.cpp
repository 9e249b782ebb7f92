// A platform that calls itself CUDA: OpenMM's Reference with a kernel for NearsightForce that keeps positions
// and forces as the real one has them, in the host's memory. Atoms stand in the opposite order, as OpenMM's
// may, and arrays are padded. TEST_PLATFORM in the environment is "mixed", "double", or "without kernel".
#include <cstdlib>
#include <string>

#include "NearsightKernels.h"
#include "openmm/KernelFactory.h"
#include "openmm/System.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm/reference/ReferencePlatform.h"

#define KERNEL inline
#define GLOBAL
#define RESTRICT __restrict__
#define GLOBAL_ID 0
#define GLOBAL_SIZE 1
#define ATOMIC_ADD(to, value) (*(to) += (value))
using mm_long = long long;
using mm_ulong = unsigned long long;

namespace {

namespace in_double {
struct real4 {
  double x, y, z, w;
};
#include "cuda/transfer.cu"
}  // namespace in_double

namespace in_mixed {
struct real4 {
  float x, y, z, w;
};
#define USE_MIXED_PRECISION
#include "cuda/transfer.cu"
}  // namespace in_mixed

using OpenMM::ReferencePlatform;
using OpenMM::Vec3;

std::string wanted() {
  return std::getenv("TEST_PLATFORM");
}

class Kernel final : public NearsightPlugin::CalcNearsightForceKernel {
 public:
  Kernel(const std::string& name, const OpenMM::Platform& platform, OpenMM::ContextImpl& context)
      : CalcNearsightForceKernel(name, platform),
        data_(*static_cast<ReferencePlatform::PlatformData*>(context.getPlatformData())),
        atoms_(context.getSystem().getNumParticles()),
        padded_((atoms_ + 31) / 32 * 32) {}

  void initialize(const std::vector<int>& particles) override {
    numbers_.assign(atoms_, -1);
    for (std::size_t k = 0; k < particles.size(); ++k) numbers_[particles[k]] = static_cast<int>(k);
    for (int i = 0; i < atoms_; ++i) order_.push_back(atoms_ - 1 - i);
    positions_.resize(3 * particles.size());
    forces_.resize(3 * particles.size());
  }
  int getDeviceIndex() const override { return 0; }
  void withContext(const std::function<void()>& body) override { body(); }

  void execute(bool includeForces, const Evaluate& evaluate) override {
    read();
    forces_.assign(forces_.size(), 0.0);
    evaluate(positions_.data(), includeForces ? forces_.data() : nullptr, nullptr);
    if (!includeForces) return;
    std::vector<mm_ulong> buffer(3 * padded_, 0);
    in_double::addForces(forces_.data(), order_.data(), numbers_.data(), atoms_, padded_,
                         NearsightPlugin::forceUnit, buffer.data());
    for (int i = 0; i < atoms_; ++i)
      for (int d = 0; d < 3; ++d)
        (*data_.forces)[order_[i]][d] += static_cast<mm_long>(buffer[i + d * padded_]) / 4294967296.0;
  }

 private:
  void read() {
    if (wanted() == "double") {
      std::vector<in_double::real4> posq;
      for (const int atom : order_) {
        const Vec3 r = (*data_.positions)[atom];
        posq.push_back({r[0], r[1], r[2], 0.5});
      }
      in_double::readPositions(posq.data(), order_.data(), numbers_.data(), atoms_,
                               NearsightPlugin::angstromPerNm, positions_.data());
      return;
    }
    std::vector<in_mixed::real4> posq, correction;
    const auto rest = [](double x) { return static_cast<float>(x - static_cast<float>(x)); };
    for (const int atom : order_) {
      const Vec3 r = (*data_.positions)[atom];
      posq.push_back({static_cast<float>(r[0]), static_cast<float>(r[1]), static_cast<float>(r[2]), 0.5f});
      correction.push_back({rest(r[0]), rest(r[1]), rest(r[2]), 0.0f});
    }
    in_mixed::readPositions(posq.data(), correction.data(), order_.data(), numbers_.data(), atoms_,
                            NearsightPlugin::angstromPerNm, positions_.data());
  }

  ReferencePlatform::PlatformData& data_;
  const int atoms_, padded_;
  std::vector<int> numbers_, order_;
  std::vector<double> positions_, forces_;
};

class Factory final : public OpenMM::KernelFactory {
  OpenMM::KernelImpl* createKernelImpl(std::string name, const OpenMM::Platform& platform,
                                       OpenMM::ContextImpl& context) const override {
    return new Kernel(name, platform, context);
  }
};

class CudaPlatform final : public ReferencePlatform {
 public:
  CudaPlatform() {
    if (wanted() != "without kernel")
      registerKernelFactory(NearsightPlugin::CalcNearsightForceKernel::Name(), new Factory);
  }
  const std::string& getName() const {
    static const std::string name = "CUDA";
    return name;
  }
};

}  // namespace

extern "C" void registerPlatforms() {
  OpenMM::Platform::registerPlatform(new CudaPlatform);
}
