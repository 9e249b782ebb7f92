#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "NearsightForce.h"
#include "NearsightKernels.h"
#include "nearsight.h"
#include "openmm/Kernel.h"
#include "openmm/internal/CustomCPPForceImpl.h"

namespace NearsightPlugin {

/// What one Context needs to evaluate a NearsightForce. It shares nothing with other Contexts, so they may
/// run in different threads. On a platform with a CalcNearsightForceKernel and with device cuda the arrays
/// are the platform's own; otherwise they are copies in the host's memory, by CustomCPPForceImpl.
class NearsightForceImpl final : public OpenMM::CustomCPPForceImpl {
 public:
  explicit NearsightForceImpl(const NearsightForce& owner) : CustomCPPForceImpl(owner), owner_(owner) {}

  ~NearsightForceImpl() override;

  void initialize(OpenMM::ContextImpl& context) override;
  double calcForcesAndEnergy(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy,
                             int groups) override;
  const OpenMM::Force& getOwner() const override { return owner_; }
  double computeForce(OpenMM::ContextImpl& context, const std::vector<OpenMM::Vec3>& positions,
                      std::vector<OpenMM::Vec3>& forces) override;

 private:
  template <auto free>
  struct Free {
    template <typename T>
    void operator()(T* object) const {
      free(object);
    }
  };

  void selectParticles(int numParticles);
  void takeKernel(OpenMM::ContextImpl& context);
  void loadModel();
  void makeEvaluator();
  /// Runs it with the platform's GPU current, where it has one for us.
  void onDevice(const std::function<void()>& body);
  /// kJ/mol, for positions in Å; adds to forces in eV/Å. With a kernel the arrays are the device's.
  double evaluate(OpenMM::ContextImpl& context, const double* positions, double* forces, void* stream);

  const NearsightForce& owner_;
  OpenMM::Kernel kernel_;  ///< of the platform
  bool hasKernel_ = false;
  std::unique_ptr<ns_model, Free<ns_model_free>> model_;
  std::unique_ptr<ns_evaluator, Free<ns_evaluator_free>> evaluator_;
  std::vector<int> particles_;              ///< index in the System of each atom that the model sees
  std::vector<int> species_;                ///< species of each atom
  std::vector<double> positions_, forces_;  ///< Å and eV/Å
};

}  // namespace NearsightPlugin
