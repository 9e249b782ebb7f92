#include "CudaNearsightForceKernel.h"

#include "TransferSource.h"
#include "openmm/common/ContextSelector.h"

using OpenMM::ContextSelector;

namespace NearsightPlugin {

namespace {

template <class T>
T* pointer(OpenMM::CudaArray& array) {
  return reinterpret_cast<T*>(array.getDevicePointer());
}

}  // namespace

void CudaNearsightForceKernel::initialize(const std::vector<int>& particles) {
  ContextSelector selector(cuda_);
  std::vector<int> numbers(cuda_.getNumAtoms(), -1);
  for (std::size_t k = 0; k < particles.size(); ++k) numbers[particles[k]] = static_cast<int>(k);
  numbers_.initialize<int>(cuda_, numbers.size(), "nearsightNumbers");
  numbers_.upload(numbers);
  positions_.initialize<double>(cuda_, 3 * particles.size(), "nearsightPositions");
  forces_.initialize<double>(cuda_, 3 * particles.size(), "nearsightForces");

  const OpenMM::ComputeProgram program = cuda_.compileProgram(transferSource);
  readPositions_ = program->createKernel("readPositions");
  readPositions_->addArg(cuda_.getPosq());
  if (cuda_.getUseMixedPrecision()) readPositions_->addArg(cuda_.getPosqCorrection());
  readPositions_->addArg(cuda_.getAtomIndexArray());
  readPositions_->addArg(numbers_);
  readPositions_->addArg(cuda_.getNumAtoms());
  readPositions_->addArg(angstromPerNm);
  readPositions_->addArg(positions_);
  addForces_ = program->createKernel("addForces");
  addForces_->addArg(forces_);
  addForces_->addArg(cuda_.getAtomIndexArray());
  addForces_->addArg(numbers_);
  addForces_->addArg(cuda_.getNumAtoms());
  addForces_->addArg(cuda_.getPaddedNumAtoms());
  addForces_->addArg(forceUnit);
  addForces_->addArg(cuda_.getLongForceBuffer());
}

void CudaNearsightForceKernel::withContext(const std::function<void()>& body) {
  ContextSelector selector(cuda_);
  body();
}

void CudaNearsightForceKernel::execute(bool includeForces, const Evaluate& evaluate) {
  ContextSelector selector(cuda_);
  readPositions_->execute(cuda_.getNumAtoms());
  cuda_.clearBuffer(forces_);
  evaluate(pointer<double>(positions_), includeForces ? pointer<double>(forces_) : nullptr,
           cuda_.getCurrentStream());
  if (includeForces) addForces_->execute(cuda_.getNumAtoms());
}

}  // namespace NearsightPlugin
