#include "NearsightForceProxy.h"

#include <memory>

#include "NearsightForce.h"
#include "openmm/OpenMMException.h"
#include "openmm/serialization/SerializationNode.h"

using OpenMM::OpenMMException;
using OpenMM::SerializationNode;

namespace NearsightPlugin {

namespace {
/// Files without molecules stay readable for versions that know none.
constexpr int plainVersion = 1, moleculesVersion = 2;
}  // namespace

void NearsightForceProxy::serialize(const void* object, SerializationNode& node) const {
  const auto& force = *static_cast<const NearsightForce*>(object);
  node.setIntProperty("version", force.getMolecules().empty() ? plainVersion : moleculesVersion);
  node.setStringProperty("name", force.getName());
  node.setIntProperty("forceGroup", force.getForceGroup());
  node.setStringProperty("model", force.getModel());
  node.setBoolProperty("periodic", force.usesPeriodicBoundaryConditions());
  node.setStringProperty("backend", force.getBackend());
  node.setStringProperty("precision", force.getPrecision());
  // Not written where it is the default, for plugins that know no devices.
  if (force.getDevice() != "cpu") node.setStringProperty("device", force.getDevice());
  node.setIntProperty("threads", force.getNumThreads());
  node.setDoubleProperty("skin", force.getSkin());
  if (force.getCharge()) node.setDoubleProperty("charge", *force.getCharge());
  if (const auto& field = force.getElectricField()) {
    node.setDoubleProperty("efieldX", (*field)[0]);
    node.setDoubleProperty("efieldY", (*field)[1]);
    node.setDoubleProperty("efieldZ", (*field)[2]);
  }
  SerializationNode& list = node.createChildNode("Particles");
  const auto& particles = force.getParticles();
  for (std::size_t k = 0; k < force.getSpecies().size(); ++k) {
    SerializationNode& entry = list.createChildNode("Particle");
    if (!particles.empty()) entry.setIntProperty("index", particles[k]);
    entry.setStringProperty("species", force.getSpecies()[k]);
    if (!force.getMolecules().empty()) entry.setIntProperty("molecule", force.getMolecules()[k]);
  }
  if (force.getMolecules().empty()) return;
  SerializationNode& molecules = node.createChildNode("Molecules");
  for (const double charge : force.getMoleculeCharges())
    molecules.createChildNode("Molecule").setDoubleProperty("charge", charge);
}

void* NearsightForceProxy::deserialize(const SerializationNode& node) const {
  const int version = node.getIntProperty("version");
  if (version < plainVersion || version > moleculesVersion)
    throw OpenMMException("nearsight: this System was written with version " + std::to_string(version) +
                          " of the NearsightForce XML, and this plugin reads versions " +
                          std::to_string(plainVersion) + " to " + std::to_string(moleculesVersion) +
                          "; update nearsight");
  std::vector<std::string> species;
  std::vector<int> particles, molecules;
  for (const SerializationNode& entry : node.getChildNode("Particles").getChildren()) {
    species.push_back(entry.getStringProperty("species"));
    if (entry.hasProperty("index")) particles.push_back(entry.getIntProperty("index"));
    if (entry.hasProperty("molecule")) molecules.push_back(entry.getIntProperty("molecule"));
  }
  auto force = std::make_unique<NearsightForce>(node.getStringProperty("model"), species, particles);
  force->setName(node.getStringProperty("name"));
  force->setForceGroup(node.getIntProperty("forceGroup"));
  force->setUsesPeriodicBoundaryConditions(node.getBoolProperty("periodic"));
  force->setBackend(node.getStringProperty("backend"));
  force->setPrecision(node.getStringProperty("precision"));
  if (node.hasProperty("device")) force->setDevice(node.getStringProperty("device"));
  force->setNumThreads(node.getIntProperty("threads"));
  force->setSkin(node.getDoubleProperty("skin"));
  if (node.hasProperty("charge")) force->setCharge(node.getDoubleProperty("charge"));
  if (version >= moleculesVersion) {
    std::vector<double> charges;
    for (const SerializationNode& entry : node.getChildNode("Molecules").getChildren())
      charges.push_back(entry.getDoubleProperty("charge"));
    force->setMolecules(std::move(molecules), std::move(charges));
  }
  if (node.hasProperty("efieldX"))
    force->setElectricField({node.getDoubleProperty("efieldX"), node.getDoubleProperty("efieldY"),
                             node.getDoubleProperty("efieldZ")});
  return force.release();
}

}  // namespace NearsightPlugin
