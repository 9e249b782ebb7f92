#pragma once
#include <functional>
#include <string>
#include <vector>

#include "openmm/KernelImpl.h"

namespace NearsightPlugin {

constexpr double angstromPerNm = 10.0;
constexpr double kJPerMolPerEv =
    6.02214076e23 * 1.602176634e-19 / 1000.0;                // both factors are exact in the SI
constexpr double forceUnit = kJPerMolPerEv * angstromPerNm;  // eV/Å in kJ/(mol nm)

/// What a GPU platform does for a NearsightForce: its positions and forces as the core wants them, without a
/// copy on the host.
class CalcNearsightForceKernel : public OpenMM::KernelImpl {
 public:
  static std::string Name() { return "CalcNearsightForce"; }
  using KernelImpl::KernelImpl;

  /// Arrays in the device's memory: [3 * particles] Å; [3 * particles] eV/Å, 0 before, null where not wanted.
  /// The stream has queued what writes them.
  using Evaluate = std::function<void(const double* positions, double* forces, void* stream)>;

  /// The System's indices of the particles that the model sees.
  virtual void initialize(const std::vector<int>& particles) = 0;
  virtual int getDeviceIndex() const = 0;
  /// Runs it with the device, and the platform's context on it, current.
  virtual void withContext(const std::function<void()>& body) = 0;
  /// Calls `evaluate` once, likewise, and adds the forces to the platform's own.
  virtual void execute(bool includeForces, const Evaluate& evaluate) = 0;
};

}  // namespace NearsightPlugin
