#include "NearsightForce.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <utility>

#include "NearsightForceImpl.h"
#include "openmm/OpenMMException.h"

using OpenMM::OpenMMException;

namespace NearsightPlugin {

namespace {

void requireOneOf(const std::string& what, const std::string& value,
                  std::initializer_list<const char*> legal) {
  if (std::find(legal.begin(), legal.end(), value) != legal.end()) return;
  std::string message = "nearsight: " + what + " \"" + value + "\" is unknown; expected one of";
  for (const char* word : legal) message += std::string(" ") + word;
  throw OpenMMException(message);
}

void requireDistinct(std::vector<int> particles) {
  std::sort(particles.begin(), particles.end());
  const auto twice = std::adjacent_find(particles.begin(), particles.end());
  if (twice != particles.end())
    throw OpenMMException("nearsight: particle " + std::to_string(*twice) +
                          " is listed twice; list each particle once");
}

}  // namespace

NearsightForce::NearsightForce(std::string model, std::vector<std::string> species,
                               std::vector<int> particles)
    : model_(std::move(model)), species_(std::move(species)), particles_(std::move(particles)) {
  setName("NearsightForce");
  if (!particles_.empty() && particles_.size() != species_.size())
    throw OpenMMException("nearsight: " + std::to_string(particles_.size()) + " particles but " +
                          std::to_string(species_.size()) +
                          " species were given; give one species per particle");
  requireDistinct(particles_);
}

void NearsightForce::setBackend(const std::string& backend) {
  requireOneOf("backend", backend, {"auto", "native", "torchscript"});
  backend_ = backend;
}

void NearsightForce::setPrecision(const std::string& precision) {
  requireOneOf("precision", precision, {"mixed", "double"});
  precision_ = precision;
}

void NearsightForce::setDevice(const std::string& device) {
  const std::string number = device.rfind("cuda:", 0) == 0 ? device.substr(5) : "";
  const bool isNumber =
      !number.empty() && number.size() < 4 && number.find_first_not_of("0123456789") == std::string::npos;
  if (device != "cpu" && device != "cuda" && !isNumber)
    throw OpenMMException("nearsight: device \"" + device +
                          "\" is unknown; expected cpu, cuda or, with the number of a GPU, cuda:0");
  device_ = device;
}

void NearsightForce::setNumThreads(int threads) {
  if (threads < 1)
    throw OpenMMException("nearsight: the number of threads must be at least 1, not " +
                          std::to_string(threads));
  threads_ = threads;
}

void NearsightForce::setSkin(double skin) {
  if (!(skin >= 0) || std::isinf(skin))
    throw OpenMMException("nearsight: the skin must be a length of at least 0 nm, not " +
                          std::to_string(skin));
  skin_ = skin;
}

void NearsightForce::setCharge(double charge) {
  if (!std::isfinite(charge))
    throw OpenMMException("nearsight: the total charge must be a number of e, not " + std::to_string(charge));
  charge_ = charge;
}

void NearsightForce::setMolecules(std::vector<int> molecules, std::vector<double> charges) {
  if (molecules.size() != species_.size())
    throw OpenMMException("nearsight: " + std::to_string(molecules.size()) + " molecules but " +
                          std::to_string(species_.size()) +
                          " species were given; give the molecule of each particle");
  for (const int molecule : molecules)
    if (molecule < 0 || static_cast<std::size_t>(molecule) >= charges.size())
      throw OpenMMException("nearsight: molecule " + std::to_string(molecule) +
                            " of a particle is not one of " + std::to_string(charges.size()) +
                            " with charges, counted from 0");
  for (const double charge : charges)
    if (!std::isfinite(charge))
      throw OpenMMException("nearsight: the charge of a molecule must be a number of e, not " +
                            std::to_string(charge));
  molecules_ = std::move(molecules);
  moleculeCharges_ = std::move(charges);
}

void NearsightForce::setElectricField(const OpenMM::Vec3& field) {
  for (int d = 0; d < 3; ++d)
    if (!std::isfinite(field[d]))
      throw OpenMMException("nearsight: the electric field must be three numbers of V/nm, found " +
                            std::to_string(field[d]));
  field_ = field;
}

OpenMM::ForceImpl* NearsightForce::createImpl() const {
  return new NearsightForceImpl(*this);
}

}  // namespace NearsightPlugin
