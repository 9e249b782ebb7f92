#pragma once
#include <functional>
#include <memory>
#include <string>

#include "core/engine/span.hpp"

namespace nearsight {

/// Sum over ranks in place; in one process it does nothing.
using AllSum = std::function<void(Span<double>)>;

/// Readouts -> energy and its cotangents dE/d(readout).
class Couple {
 public:
  virtual ~Couple() = default;

  /// Columns of the readout matrix that this couple reads.
  virtual int columns() const = 0;

  /// Members of a committee: the energy is the mean of so many readouts.
  virtual int members() const { return 1; }

  /// True if the cotangents of an atom depend on that atom alone: then forward and reverse run tile by tile.
  virtual bool is_local() const = 0;

  /// readouts and cotangents [rows, columns]; energies [rows] are per-atom shares that add up to the energy.
  virtual void evaluate(Span<const double> readouts, const AllSum& all_sum, Span<double> cotangents,
                        Span<double> energies) const = 0;
};

/// E = sum of the atoms' energies; of a committee, with a column per member, their mean.
std::unique_ptr<Couple> make_sum(int members);

/// E = eigenvalue `state` of the symmetric matrix H = sum_i h_i, upper triangles by rows. By Hellmann and
/// Feynman dE/dh = u uᵀ with the eigenvector u, so u·h_i·u are the per-atom shares.
std::unique_ptr<Couple> make_eigenstate(int num_states, int state);

/// From the `couple` object of nearsight.json; Error (unsupported) for a kind that this version does not
/// know.
std::unique_ptr<Couple> make_couple(const std::string& json);

}  // namespace nearsight
