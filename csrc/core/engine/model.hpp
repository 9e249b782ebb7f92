#pragma once
#include <memory>
#include <string>

#include "core/couple/couple.hpp"
#include "core/couple/dispersion.hpp"
#include "core/engine/potential.hpp"
#include "core/io/model_file.hpp"

namespace nearsight {

enum class Backend { automatic, native, torchscript };

/// A loaded model file: its local potential, its couple and its metadata. Immutable.
class Model {
 public:
  /// `automatic` takes the native engine where the core knows the architecture, else torchscript.
  static std::shared_ptr<const Model> load(const std::string& path, Backend backend);

  const ModelFile& file() const { return file_; }
  const Potential& potential() const { return *potential_; }
  const char* backend() const { return backend_ == Backend::native ? "native" : "torchscript"; }
  /// Whether dE_i/dt is a sum over the edges of atom i alone: no messages, no couple that mixes the atoms, no
  /// dispersion.
  bool has_centroid_virials() const {
    return file_.num_interactions == 1 && couple_->is_local() && !adds_dispersion();
  }
  /// Whether the virial is a sum over edges, half of which belongs to each end: not with a mesh of charges.
  bool has_atom_virials() const { return couple_->channels() == 0; }
  /// Whether several systems can be evaluated in one go: the energy is a sum over atoms without dispersion.
  bool has_batches() const { return couple_->is_local() && !adds_dispersion(); }
  /// Charges of each atom, 0 of a model without.
  int num_charges() const { return couple_->channels(); }
  /// Whether Born effective charges can be had of these charges, from the core or from forces in fields.
  bool has_born_charges() const { return couple_->has_born_charges(); }
  /// Numbers of each atom that evaluators remember, Couple::memory.
  int memory() const { return couple_->memory(); }
  /// Null for a model without dispersion.
  const DispersionRecord* dispersion() const { return dispersion_ ? &*dispersion_ : nullptr; }
  /// Whether dispersion is a part of the energy, rather than the host's to add.
  bool adds_dispersion() const { return dispersion_ && !dispersion_->by_host; }
  /// Members of a committee; 1 for a model that is none.
  int num_members() const { return couple_->members(); }
  /// Index of a chemical symbol in the species list, or -1.
  int find_species(const std::string& symbol) const;

 private:
  Model() = default;
  ModelFile file_;
  std::unique_ptr<Potential> potential_;
  std::unique_ptr<const Couple> couple_;  // tells what it is; evaluators have their own
  std::optional<DispersionRecord> dispersion_;
  Backend backend_ = Backend::native;
};

/// The hand-written engine of an architecture that the core knows; null for others, or where it has no code
/// for the model and says why in `reason`. The file must outlive it.
std::unique_ptr<Potential> make_native_potential(const ModelFile& file, std::string& reason);

/// The module itself, through libtorch, which is opened here for the first time.
/// Throws Error (unsupported) if this build or this machine has no torchscript backend.
std::unique_ptr<Potential> make_torchscript_potential(const ModelFile& file);

/// "avx512", "avx2" or "baseline": what the native kernels use on this machine.
const char* instruction_set();

}  // namespace nearsight
