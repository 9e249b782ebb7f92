#pragma once
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/engine/communicator.hpp"
#include "core/engine/device.hpp"
#include "core/engine/edges.hpp"
#include "core/engine/span.hpp"
#include "core/engine/threads.hpp"
#include "core/mesh/coulomb.hpp"
#include "core/neighbors/neighbor_list.hpp"

namespace nearsight {

/// What a couple sees of the system; the atoms are those with readouts.
struct Coupled {
  Span<const double> readouts;   // [rows, columns]
  Span<const double> positions;  // [3 * rows] Å; only of couples with direct forces
  Span<const int> species;       // [rows]; likewise
  Cell cell;                     // likewise
  Outside outside;               // likewise; its molecules are those of the rows
  Span<double> memory;           // [rows, Couple::memory] in and out
};

/// What a couple gives for the same rows.
struct Joined {
  Span<double> cotangents;  // [rows, columns] dE/d(readout)
  Span<double> energies;    // [rows] eV, per-atom shares that add up to the energy
  // Of couples with direct forces; added to.
  Span<double> forces;       // [3 * rows] at constant readouts, eV/Å
  Span<double> virial;       // [6] at constant readouts, eV
  Span<double> charges;      // [rows, channels] e
  Span<double> potentials;   // [rows, channels] dE/d(charge), V
  double electrostatic = 0;  // out: what the charges contribute to the energies, eV
  PmeTimes times;            // out
  int steps = 0;             // out: of equilibration
  // For Born effective charges, or empty; assigned. Charges of the first channel change by what the readouts
  // of their own atom do, and by a share of what the sum of all then lacks.
  Span<double> charge_cotangents;  // [rows, columns] d(charge)/d(readout) of the first part
  Span<double> shares;             // [rows]
};

/// Readouts -> energy and its cotangents dE/d(readout). It may remember what it has set up: each evaluator
/// has its own.
class Couple {
 public:
  virtual ~Couple() = default;

  /// Columns of the readout matrix that this couple reads.
  virtual int columns() const = 0;

  /// Members of a committee: the energy is the mean of so many readouts.
  virtual int members() const { return 1; }

  /// True if the energy is the sum over atoms of the mean of their readouts, so that all cotangents are
  /// 1 / members: then forward and reverse run tile by tile, in any thread.
  virtual bool is_local() const = 0;

  /// True if the energy is the sum of a single readout and of what no readout enters: then all cotangents are
  /// 1, whatever the couple finds.
  virtual bool is_additive() const { return false; }

  /// Charges of each atom; 0: the energy depends on positions through readouts only.
  virtual int channels() const { return 0; }

  /// Whether it gives what Born effective charges need.
  virtual bool has_born_charges() const { return channels() > 0; }

  /// Numbers that travel with each atom from one evaluation to the next, all 0 at first. They may change how
  /// long an evaluation takes, and results by no more than what the model's own residual allows.
  virtual int memory() const { return 0; }

  /// Collective, if it is not local. Throws what the kind of couple says.
  virtual void evaluate(const Coupled& system, const Communicator& ranks, ThreadPool& threads,
                        Joined& joined) = 0;
};

struct CoupleOptions {
  bool double_precision = true;
  Device device = Device::cpu;  // of the charges' sums
  int device_index = -1;        // of the GPU; -1: the first one
};

/// E = sum of the atoms' energies; of a committee, with a column per member, their mean.
std::unique_ptr<Couple> make_sum(int members);

/// E = eigenvalue `state` of the symmetric matrix H = sum_i h_i, upper triangles by rows. By Hellmann and
/// Feynman dE/dh = u uᵀ with the eigenvector u, so u·h_i·u are the per-atom shares.
std::unique_ptr<Couple> make_eigenstate(int num_states, int state);

/// E = Σ_i e_i + the electrostatic energy of charges, docs/electrostatics.md. `spec` is the JSON text of the
/// couple's record, docs/file_format.md.
std::unique_ptr<Couple> make_coulomb(const std::string& spec, const std::vector<std::string>& species,
                                     const CoupleOptions& options);

/// From the `couple` object of nearsight.json; Error (unsupported) for a kind that this version does not
/// know.
std::unique_ptr<Couple> make_couple(const std::string& json, const std::vector<std::string>& species,
                                    const CoupleOptions& options);

}  // namespace nearsight
