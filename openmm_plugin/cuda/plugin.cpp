// The kernel for OpenMM's CUDA platform. Loaded by OpenMM after that platform, whose library it takes its
// symbols from.
#include "CudaNearsightForceKernel.h"
#include "openmm/KernelFactory.h"
#include "openmm/Platform.h"
#include "openmm/cuda/CudaPlatform.h"
#include "openmm/internal/ContextImpl.h"

namespace {

class Factory final : public OpenMM::KernelFactory {
 public:
  OpenMM::KernelImpl* createKernelImpl(std::string name, const OpenMM::Platform& platform,
                                       OpenMM::ContextImpl& context) const override {
    auto& data = *static_cast<OpenMM::CudaPlatform::PlatformData*>(context.getPlatformData());
    return new NearsightPlugin::CudaNearsightForceKernel(name, platform, *data.contexts[0]);
  }
};

}  // namespace

extern "C" __attribute__((visibility("default"))) void registerKernelFactories() {
  OpenMM::Platform::getPlatformByName("CUDA").registerKernelFactory(
      NearsightPlugin::CalcNearsightForceKernel::Name(), new Factory);
}
