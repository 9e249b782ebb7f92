#pragma once
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/engine/communicator.hpp"
#include "core/engine/device.hpp"
#include "core/engine/span.hpp"
#include "core/engine/threads.hpp"
#include "core/neighbors/neighbor_list.hpp"

namespace nearsight {

/// D3 of the species of a model: the record `dispersion` of docs/file_format.md in eV and Å.
struct DispersionRecord {
  std::string functional;
  bool by_host = false;  // the host adds it, the model does not
  double s6, s8, a1, a2;
  double cutoff, coordination_cutoff, smoothing;     // Å
  std::vector<double> radii, r4r2;                   // [species] Å; √(C8 / 3 C6) of like atoms, Å
  std::vector<std::vector<double>> coordination;     // [species][references]
  std::vector<std::vector<std::vector<double>>> c6;  // [species][species][references · references] eV Å⁶
  std::size_t references() const;                    // of the species with most of them
  std::size_t num_species() const { return radii.size(); }
};

/// Of the JSON text of a record. Throws Error (file) for one that is damaged or not of `num_species` species,
/// (unsupported) for another method.
DispersionRecord read_dispersion(const std::string& json, std::size_t num_species);

/// What dispersion adds; arrays are of the own atoms, added to, or null: not wanted.
struct Dispersed {
  Span<double> forces;             // [3n] eV/Å
  Span<double> energies;           // [n] eV, half of each pair to each end
  Span<double> virials;            // [6n] eV, likewise
  double energy = 0;               // out: of the own atoms, eV
  std::array<double, 6> virial{};  // out: likewise, xx yy zz xy xz yz
};

/// D3 with the damping of Becke and Johnson, docs/dispersion.md, of two bodies: Grimme, Antony, Ehrlich and
/// Krieg, J. Chem. Phys. 132, 154104 (2010); Grimme, Ehrlich and Goerigk, J. Comput. Chem. 32, 1456 (2011).
/// It has a list of pairs of its own, which is kept while it holds.
class Dispersion {
 public:
  virtual ~Dispersion() = default;

  /// Of the atoms of this rank in the whole cell, periodic in any directions. Collective. Throws what
  /// complete, check_positions and Blocks throw.
  virtual void evaluate(Span<const double> positions, Span<const int> species, const Cell& cell,
                        ThreadPool& threads, Dispersed& result) = 0;
};

/// Terms of pairs are in numbers of double or single precision, all sums over them in double. `device_index`
/// -1: the first GPU.
std::unique_ptr<Dispersion> make_dispersion(const DispersionRecord& record, bool double_precision,
                                            const Communicator& ranks, Device device = Device::cpu,
                                            int device_index = -1);

/// On an NVIDIA GPU. Throws as make_cuda_worker does, and Error (unsupported) for more reference
/// systems of an element than kernels hold.
std::unique_ptr<Dispersion> make_cuda_dispersion(const DispersionRecord& record, bool double_precision,
                                                 const Communicator& ranks, int device_index);

}  // namespace nearsight
