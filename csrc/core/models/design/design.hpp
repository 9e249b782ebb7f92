#pragma once
#include "core/engine/threads.hpp"
#include "core/models/descriptor.hpp"

namespace nearsight {

/// Rows of the linear equations for coefficients c[species][features] of E = sum over atoms of c · features.
/// Columns are species times the features of the species that has most.
struct DesignRows {
  double* energy;  // [frames][columns]
  double* forces;  // [3 * atoms][columns] F = -dE/dr
  double* virial;  // [6 * frames][columns] -dE/dstrain: xx yy zz xy xz yz
};

/// Writes the rows of frames whose atoms follow one another: frame f has the atoms first_atom[f] up to
/// first_atom[f + 1], and every atom of the graph is a center. The result does not depend on the threads.
void design_rows(const Descriptor& descriptor, int num_species, const Graph& graph,
                 Span<const std::int64_t> first_atom, const DesignRows& rows, ThreadPool& threads);

}  // namespace nearsight
