#pragma once
#include "openmm/serialization/SerializationProxy.h"

namespace NearsightPlugin {

/// XML form of a NearsightForce; type name "NearsightForce", version 1.
class NearsightForceProxy final : public OpenMM::SerializationProxy {
 public:
  NearsightForceProxy() : SerializationProxy("NearsightForce") {}
  void serialize(const void* object, OpenMM::SerializationNode& node) const override;
  void* deserialize(const OpenMM::SerializationNode& node) const override;
};

}  // namespace NearsightPlugin
