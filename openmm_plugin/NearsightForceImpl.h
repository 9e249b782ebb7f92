#pragma once
#include <memory>
#include <string>
#include <vector>

#include "NearsightForce.h"
#include "nearsight.h"
#include "openmm/internal/CustomCPPForceImpl.h"

namespace NearsightPlugin {

/// What one Context needs to evaluate a NearsightForce. It shares nothing with other Contexts, so they may
/// run in different threads.
class NearsightForceImpl final : public OpenMM::CustomCPPForceImpl {
 public:
  explicit NearsightForceImpl(const NearsightForce& owner) : CustomCPPForceImpl(owner), owner_(owner) {}

  void initialize(OpenMM::ContextImpl& context) override;
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
  void loadModel();

  const NearsightForce& owner_;
  std::unique_ptr<ns_model, Free<ns_model_free>> model_;
  std::unique_ptr<ns_evaluator, Free<ns_evaluator_free>> evaluator_;
  std::vector<int> particles_;              ///< index in the System of each atom that the model sees
  std::vector<int> species_;                ///< species of each atom
  std::vector<double> positions_, forces_;  ///< Å and eV/Å
};

}  // namespace NearsightPlugin
