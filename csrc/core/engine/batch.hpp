#pragma once
#include <cstddef>

#include "core/engine/span.hpp"
#include "core/neighbors/neighbor_list.hpp"

namespace nearsight {

/// Systems that do not see each other, one after another: atoms first_atoms[s] ... first_atoms[s + 1] - 1 are
/// those of system s, in a cell of its own.
struct Batch {
  Span<const double> positions;         // [3 * atoms] Å; need not be wrapped
  Span<const int> species;              // [atoms], -1: outside the model
  Span<const std::size_t> first_atoms;  // [systems + 1]
  Span<const Cell> cells;               // [systems]

  std::size_t size() const { return cells.size(); }
  Span<const double> positions_of(std::size_t system) const {
    return positions.subspan(3 * first_atoms[system], 3 * (first_atoms[system + 1] - first_atoms[system]));
  }
};

/// Results of the systems of a batch, eV and Å; the arrays are the host's and start as zero. Null: not
/// wanted, but those of systems need those of atoms.
struct BatchResults {
  Span<double> energies;         // [systems] with reference energies
  Span<double> virials;          // [systems][6]
  Span<double> forces;           // [3 * atoms]
  Span<double> atom_energies;    // [atoms]
  Span<double> atom_virials;     // [6 * atoms]
  Span<double> member_energies;  // [systems][members] of a committee
  Span<double> member_forces;    // [members][3 * atoms]
  Span<double> member_virials;   // [systems][members][6]
};

}  // namespace nearsight
