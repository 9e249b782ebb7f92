#pragma once
#include <functional>
#include <vector>

#include "NearsightKernels.h"
#include "openmm/cuda/CudaArray.h"
#include "openmm/cuda/CudaContext.h"

namespace NearsightPlugin {

/// On the context and stream of one OpenMM Context. Where a Context has several GPUs it is the first that
/// does it all.
class CudaNearsightForceKernel final : public CalcNearsightForceKernel {
 public:
  CudaNearsightForceKernel(const std::string& name, const OpenMM::Platform& platform,
                           OpenMM::CudaContext& cuda)
      : CalcNearsightForceKernel(name, platform), cuda_(cuda) {}

  void initialize(const std::vector<int>& particles) override;
  int getDeviceIndex() const override { return cuda_.getDeviceIndex(); }
  void withContext(const std::function<void()>& body) override;
  void execute(bool includeForces, const Evaluate& evaluate) override;

 private:
  OpenMM::CudaContext& cuda_;
  OpenMM::CudaArray numbers_, positions_, forces_;
  OpenMM::ComputeKernel readPositions_, addForces_;
};

}  // namespace NearsightPlugin
