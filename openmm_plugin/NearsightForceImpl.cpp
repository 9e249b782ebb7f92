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

int deviceIndexOf(const std::string& device) {
  return device.rfind("cuda:", 0) == 0 ? std::stoi(device.substr(5)) : -1;
}

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

NearsightForceImpl::~NearsightForceImpl() {
  onDevice([&] { evaluator_.reset(); });
}

void NearsightForceImpl::initialize(OpenMM::ContextImpl& context) {
  selectParticles(context.getSystem().getNumParticles());
  loadModel();
  takeKernel(context);
  onDevice([&] { makeEvaluator(); });
  if (hasKernel_) return;
  CustomCPPForceImpl::initialize(context);
  positions_.resize(3 * particles_.size());
  forces_.resize(3 * particles_.size());
}

void NearsightForceImpl::takeKernel(OpenMM::ContextImpl& context) {
  OpenMM::Platform& platform = context.getPlatform();
  if (owner_.getDevice() == "cpu") return;
  if (!platform.supportsKernels({CalcNearsightForceKernel::Name()})) {
    // CUDA's runtime and a platform with a context of its own would change it for one another.
    if (platform.getName() == "CUDA")
      throw OpenMMException(
          "nearsight: device cuda on the CUDA platform needs libnearsight_openmm_cuda.so, which is not "
          "loaded; "
          "install nearsight where the CUDA toolkit is, or use device cpu");
    return;
  }
  if (owner_.getElectricField() && owner_.usesPeriodicBoundaryConditions())
    throw OpenMMException(
        "nearsight: an electric field in a periodic box needs positions that no platform has wrapped; "
        "use device cpu on the CUDA platform");
  kernel_ = platform.createKernel(CalcNearsightForceKernel::Name(), context);
  auto& kernel = kernel_.getAs<CalcNearsightForceKernel>();
  const int wanted = deviceIndexOf(owner_.getDevice()), found = kernel.getDeviceIndex();
  if (wanted >= 0 && wanted != found)
    throw OpenMMException("nearsight: device " + owner_.getDevice() +
                          " was asked for, but the Context is on GPU " + std::to_string(found) +
                          "; say cuda for that of the Context");
  kernel.initialize(particles_);
  hasKernel_ = true;
}

void NearsightForceImpl::onDevice(const std::function<void()>& body) {
  if (hasKernel_)
    kernel_.getAs<CalcNearsightForceKernel>().withContext(body);
  else
    body();
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
}

void NearsightForceImpl::makeEvaluator() {
  ns_options options{};
  options.struct_size = sizeof options;
  options.precision = owner_.getPrecision() == "double" ? NS_PRECISION_DOUBLE : NS_PRECISION_MIXED;
  options.device = owner_.getDevice() == "cpu" ? NS_DEVICE_CPU : NS_DEVICE_CUDA;
  options.device_index = hasKernel_ ? NS_CURRENT_DEVICE : deviceIndexOf(owner_.getDevice());
  options.num_threads = owner_.getNumThreads();
  options.skin = owner_.getSkin() * angstromPerNm;
  ns_evaluator* evaluator = nullptr;
  check(ns_evaluator_create(model_.get(), &options, nullptr, &evaluator));
  evaluator_.reset(evaluator);
}

double NearsightForceImpl::evaluate(OpenMM::ContextImpl& context, const double* positions, double* forces,
                                    void* stream) {
  double cell[9] = {};
  ns_system system{};
  system.struct_size = sizeof system;
  system.num_atoms = static_cast<int>(particles_.size());
  system.positions = positions;
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
  results.forces = forces;
  check(hasKernel_ ? ns_evaluate_device(evaluator_.get(), &system, stream, &results)
                   : ns_evaluate_system(evaluator_.get(), &system, &results));
  return results.energy * kJPerMolPerEv;
}

double NearsightForceImpl::computeForce(OpenMM::ContextImpl& context, const std::vector<Vec3>& positions,
                                        std::vector<Vec3>& forces) {
  for (std::size_t k = 0; k < particles_.size(); ++k)
    for (int d = 0; d < 3; ++d) positions_[3 * k + d] = positions[particles_[k]][d] * angstromPerNm;
  std::fill(forces_.begin(), forces_.end(), 0.0);
  const double energy = evaluate(context, positions_.data(), forces_.data(), nullptr);
  std::fill(forces.begin(), forces.end(), Vec3());  // OpenMM hands over the last call's
  for (std::size_t k = 0; k < particles_.size(); ++k)
    forces[particles_[k]] = Vec3(forces_[3 * k], forces_[3 * k + 1], forces_[3 * k + 2]) * forceUnit;
  return energy;
}

double NearsightForceImpl::calcForcesAndEnergy(OpenMM::ContextImpl& context, bool includeForces,
                                               bool includeEnergy, int groups) {
  if (!hasKernel_)
    return CustomCPPForceImpl::calcForcesAndEnergy(context, includeForces, includeEnergy, groups);
  if ((groups & (1 << owner_.getForceGroup())) == 0) return 0.0;
  double energy = 0.0;
  kernel_.getAs<CalcNearsightForceKernel>().execute(
      includeForces, [&](const double* positions, double* forces, void* stream) {
        energy = evaluate(context, positions, forces, stream);
      });
  return includeEnergy ? energy : 0.0;
}

}  // namespace NearsightPlugin
