#include "NearsightForceImpl.h"

#include <algorithm>
#include <numeric>

#include "openmm/OpenMMException.h"
#include "openmm/System.h"
#include "openmm/Vec3.h"
#include "openmm/internal/ContextImpl.h"

using OpenMM::OpenMMException;
using OpenMM::Vec3;

namespace NearsightPlugin {

namespace {

constexpr double angstromPerNm = 10.0;
constexpr double kJPerMolPerEv =
    6.02214076e23 * 1.602176634e-19 / 1000.0;  // both factors are exact in the SI

void check(ns_status status) {
  if (status != NS_OK) throw OpenMMException(std::string("nearsight: ") + ns_last_error());
}

ns_backend backendOf(const std::string& name) {
  if (name == "native") return NS_BACKEND_NATIVE;
  return name == "torchscript" ? NS_BACKEND_TORCHSCRIPT : NS_BACKEND_AUTO;
}

std::string speciesList(const ns_model* model) {
  std::string list;
  for (int i = 0; i < ns_model_num_species(model); ++i)
    list += (i ? ", " : "") + std::string(ns_model_species(model, i));
  return list;
}

}  // namespace

void NearsightForceImpl::initialize(OpenMM::ContextImpl& context) {
  CustomCPPForceImpl::initialize(context);
  selectParticles(context.getSystem().getNumParticles());
  loadModel();
  positions_.resize(3 * particles_.size());
  forces_.resize(3 * particles_.size());
}

void NearsightForceImpl::selectParticles(int numParticles) {
  const std::size_t numSpecies = owner_.getSpecies().size();
  particles_ = owner_.getParticles();
  if (particles_.empty()) {
    if (numSpecies != static_cast<std::size_t>(numParticles))
      throw OpenMMException(
          "nearsight: the System has " + std::to_string(numParticles) + " particles, but " +
          std::to_string(numSpecies) +
          " species were given; give one per particle, or list the particles that the model sees");
    particles_.resize(numSpecies);
    std::iota(particles_.begin(), particles_.end(), 0);
  }
  for (const int particle : particles_)
    if (particle < 0 || particle >= numParticles)
      throw OpenMMException("nearsight: particle index " + std::to_string(particle) +
                            " is out of range; the System has " + std::to_string(numParticles) +
                            " particles, counted from 0");
}

void NearsightForceImpl::loadModel() {
  ns_model* model = nullptr;
  check(ns_model_load(owner_.getModel().c_str(), backendOf(owner_.getBackend()), &model));
  model_.reset(model);

  species_.clear();
  for (std::size_t k = 0; k < particles_.size(); ++k) {
    const std::string& symbol = owner_.getSpecies()[k];
    species_.push_back(ns_model_find_species(model, symbol.c_str()));
    if (species_.back() < 0)
      throw OpenMMException("nearsight: particle " + std::to_string(particles_[k]) + " is \"" + symbol +
                            "\", which the model does not know; it was trained for " + speciesList(model));
  }

  ns_options options{};
  options.struct_size = sizeof options;
  options.precision = owner_.getPrecision() == "double" ? NS_PRECISION_DOUBLE : NS_PRECISION_MIXED;
  options.device = NS_DEVICE_CPU;
  options.num_threads = owner_.getNumThreads();
  options.skin = owner_.getSkin() * angstromPerNm;
  ns_evaluator* evaluator = nullptr;
  check(ns_evaluator_create(model, &options, nullptr, &evaluator));
  evaluator_.reset(evaluator);
}

double NearsightForceImpl::computeForce(OpenMM::ContextImpl& context, const std::vector<Vec3>& positions,
                                        std::vector<Vec3>& forces) {
  for (std::size_t k = 0; k < particles_.size(); ++k)
    for (int d = 0; d < 3; ++d) positions_[3 * k + d] = positions[particles_[k]][d] * angstromPerNm;
  std::fill(forces_.begin(), forces_.end(), 0.0);

  double cell[9] = {};
  ns_system system{};
  system.struct_size = sizeof system;
  system.num_atoms = static_cast<int>(particles_.size());
  system.positions = positions_.data();
  system.species = species_.data();
  if (owner_.usesPeriodicBoundaryConditions()) {
    Vec3 box[3];
    context.getPeriodicBoxVectors(box[0], box[1], box[2]);
    for (int i = 0; i < 9; ++i) cell[i] = box[i / 3][i % 3] * angstromPerNm;
    system.cell = cell;
    std::fill(system.pbc, system.pbc + 3, 1);
  }
  if (owner_.getCharge()) system.total_charge = &*owner_.getCharge();
  if (!owner_.getMolecules().empty()) {
    system.molecules = owner_.getMolecules().data();
    system.num_molecules = static_cast<int>(owner_.getMoleculeCharges().size());
    system.molecule_charges = owner_.getMoleculeCharges().data();
  }
  double field[3];
  if (owner_.getElectricField()) {
    for (int d = 0; d < 3; ++d) field[d] = (*owner_.getElectricField())[d] / angstromPerNm;
    system.efield = field;
  }
  ns_results results{};
  results.struct_size = sizeof results;
  results.forces = forces_.data();
  check(ns_evaluate_system(evaluator_.get(), &system, &results));

  constexpr double forceUnit = kJPerMolPerEv * angstromPerNm;
  std::fill(forces.begin(), forces.end(), Vec3());  // OpenMM hands over the last call's
  for (std::size_t k = 0; k < particles_.size(); ++k)
    forces[particles_[k]] = Vec3(forces_[3 * k], forces_[3 * k + 1], forces_[3 * k + 2]) * forceUnit;
  return results.energy * kJPerMolPerEv;
}

}  // namespace NearsightPlugin
