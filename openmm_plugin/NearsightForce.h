#pragma once
#include <optional>
#include <string>
#include <vector>

#include "openmm/Force.h"
#include "openmm/Vec3.h"

namespace NearsightPlugin {

/// A machine-learned potential from a nearsight model file, on every platform. Positions and forces are
/// copied to and from the host, except with device cuda on the CUDA platform, for which the library
/// libnearsight_openmm_cuda.so must be loaded as well.
///
/// Lengths are in nm as everywhere in OpenMM. What does not depend on the System is checked when it is set;
/// the rest (the file, the elements, particle indices) when a Context is made. Failures throw
/// OpenMM::OpenMMException.
class __attribute__((visibility("default"))) NearsightForce : public OpenMM::Force {
 public:
  /// `species[k]` is the chemical symbol of particle `particles[k]`. With no `particles` they are all
  /// particles of the System, in order. The file is read when a Context is made; the XML form holds its path,
  /// not its content.
  NearsightForce(std::string model, std::vector<std::string> species, std::vector<int> particles = {});

  const std::string& getModel() const { return model_; }
  const std::vector<std::string>& getSpecies() const { return species_; }
  const std::vector<int>& getParticles() const { return particles_; }

  /// Whether the Context's periodic box applies, in all three directions. Default: false.
  bool usesPeriodicBoundaryConditions() const override { return periodic_; }
  void setUsesPeriodicBoundaryConditions(bool periodic) { periodic_ = periodic; }

  /// "auto", "native" or "torchscript". Default: "auto".
  const std::string& getBackend() const { return backend_; }
  void setBackend(const std::string& backend);

  /// "mixed" (features in single precision, sums in double) or "double". Default: "mixed".
  const std::string& getPrecision() const { return precision_; }
  void setPrecision(const std::string& precision);

  /// "cpu", or an NVIDIA GPU, "cuda" or "cuda:1". On the CUDA platform, "cuda" is that of the Context.
  /// Default: "cpu".
  const std::string& getDevice() const { return device_; }
  void setDevice(const std::string& device);

  /// Threads of the core, at least 1. Default: 1.
  int getNumThreads() const { return threads_; }
  void setNumThreads(int threads);

  /// Verlet skin in nm: the neighbor list lasts until a particle has moved half of it. Default: 0.1.
  double getSkin() const { return skin_; }
  void setSkin(double skin);

  /// Total charge in e of the particles that the model sees, for models with electrostatics. Default: not
  /// given, which means 0, or for fixed charges in an open system their sum.
  const std::optional<double>& getCharge() const { return charge_; }
  void setCharge(double charge);

  /// In place of a total charge: molecules keep charges of their own, molecules[k] of the k-th particle that
  /// the model sees, from 0, with charges in e. Default: none.
  const std::vector<int>& getMolecules() const { return molecules_; }
  const std::vector<double>& getMoleculeCharges() const { return moleculeCharges_; }
  void setMolecules(std::vector<int> molecules, std::vector<double> charges);

  /// Uniform electric field on the charges, V/nm, for models with electrostatics. Default: none.
  const std::optional<OpenMM::Vec3>& getElectricField() const { return field_; }
  void setElectricField(const OpenMM::Vec3& field);

 protected:
  OpenMM::ForceImpl* createImpl() const override;

 private:
  std::string model_;
  std::vector<std::string> species_;
  std::vector<int> particles_;
  std::string backend_ = "auto";
  std::string precision_ = "mixed";
  std::string device_ = "cpu";
  bool periodic_ = false;
  int threads_ = 1;
  double skin_ = 0.1;
  std::optional<double> charge_;
  std::vector<int> molecules_;
  std::vector<double> moleculeCharges_;
  std::optional<OpenMM::Vec3> field_;
};

}  // namespace NearsightPlugin
