// The entry points that OpenMM calls after it has loaded the library.
#include <string>

#include "NearsightForce.h"
#include "NearsightForceProxy.h"
#include "nearsight.h"
#include "openmm/OpenMMException.h"
#include "openmm/Platform.h"

#define NEARSIGHT_OPENMM_EXPORT extern "C" __attribute__((visibility("default")))

/// The OpenMM release this library was compiled for, readable from outside (not const: it must not be folded
/// away).
NEARSIGHT_OPENMM_EXPORT char nearsight_openmm_version[];
char nearsight_openmm_version[] = NEARSIGHT_OPENMM_VERSION;

namespace {

std::string minorOf(const std::string& version) {
  return version.substr(0, version.find('.', version.find('.') + 1));
}

/// Classes of OpenMM change their layout between minor releases; used across them, they crash without a word.
void checkVersions() {
  const std::string built = nearsight_openmm_version;
  const std::string running = OpenMM::Platform::getOpenMMVersion();
  if (minorOf(built) != minorOf(running))
    throw OpenMM::OpenMMException("nearsight: the plugin was built for OpenMM " + minorOf(built) +
                                  ", but OpenMM " + running +
                                  " is running; install nearsight again next to this OpenMM");
  if (ns_api_version() != NS_API_VERSION)
    throw OpenMM::OpenMMException("nearsight: the plugin needs version " + std::to_string(NS_API_VERSION) +
                                  " of libnearsight.so, but version " + std::to_string(ns_api_version()) +
                                  " is loaded; install nearsight again");
}

}  // namespace

NEARSIGHT_OPENMM_EXPORT void registerNearsightSerializationProxies() {
  checkVersions();
  static const NearsightPlugin::NearsightForceProxy proxy;
  OpenMM::SerializationProxy::registerProxy(typeid(NearsightPlugin::NearsightForce), &proxy);
}

// CustomCPPForceImpl brings the kernels of every platform, so nothing but the XML form is left to register.
NEARSIGHT_OPENMM_EXPORT void registerKernelFactories() {
  registerNearsightSerializationProxies();
}
