#pragma once
// Energies of pairs of atoms as functions of plain numbers, for CPUs and GPUs.
#include <cmath>

#include "core/engine/host_device.hpp"

namespace nearsight {
namespace mace {

/// An energy of the distance and its slope, eV and eV/Å.
struct PairEnergy {
  double value = 0, slope = 0;
};

/// ZBL's repulsion; scale 0: there is none.
struct ZblTerms {
  double order, exponent, prefactor, scale;
  const double *numbers, *radii;  // [species]
};

/// Walls at distances that the training set does not have; limits null: there are none.
struct WallTerms {
  double slope, repulsion;  // eV/Å, eV
  int num_species;
  const double* limits;  // [species][species][3] Å
};

NEARSIGHT_HOST_DEVICE inline PairEnergy zbl_energy(const ZblTerms& zbl, int a, int b, double r) {
  // Universal screening function of Ziegler, Biersack and Littmark, in the digits that mace-torch takes.
  constexpr double kFactors[4] = {0.1818, 0.5099, 0.2802, 0.02817}, kRates[4] = {3.2, 0.9423, 0.4028, 0.2016};
  constexpr double kBohr = 0.529, kCoulomb = 14.3996;  // Å, eV Å
  const double end = zbl.scale != 0.0 ? zbl.radii[a] + zbl.radii[b] : 0.0;
  if (r >= end) return {};
  const double za = zbl.numbers[a], zb = zbl.numbers[b];
  const double length = zbl.prefactor * kBohr / (std::pow(za, zbl.exponent) + std::pow(zb, zbl.exponent));
  double screening = 0, d_screening = 0;
  for (int k = 0; k < 4; ++k) {
    const double term = kFactors[k] * std::exp(-kRates[k] * r / length);
    screening += term;
    d_screening -= kRates[k] / length * term;
  }
  const double p = zbl.order, x = r / end, xp = std::pow(x, p);
  const double envelope = 1 - xp * (0.5 * (p + 1) * (p + 2) - p * (p + 2) * x + 0.5 * p * (p + 1) * x * x);
  const double d_envelope = -0.5 * p * (p + 1) * (p + 2) * xp / x * (1 - x) * (1 - x) / end;
  const double coulomb = 0.5 * zbl.scale * kCoulomb * za * zb / r;
  return {coulomb * screening * envelope,
          coulomb * ((d_screening - screening / r) * envelope + screening * d_envelope)};
}

NEARSIGHT_HOST_DEVICE inline PairEnergy wall_energy(const WallTerms& walls, int a, int b, double r) {
  if (!walls.limits) return {};
  const double* const limits = walls.limits + 3 * (a * walls.num_species + b);
  const double closest = limits[0], begin = limits[1], end = limits[2], width = end - begin;
  if (r < closest) {
    const double x = closest / r - 1, half = 0.5 * walls.repulsion;
    return {half * x * x * x, -3 * half * x * x * closest / (r * r)};
  }
  if (r <= begin || r >= end) return {};
  const double u = (2 * r - begin - end) / width, rest = 1 - u * u, half = 0.5 * walls.slope * width;
  return {half * rest * rest * rest, -12 * half * u * rest * rest / width};
}

/// Half of what keeps apart two atoms that are closer than radial functions are tabulated.
NEARSIGHT_HOST_DEVICE inline PairEnergy close_repulsion(double r, double shortest) {
  constexpr double kRepulsion = 100.0;  // eV
  if (r >= shortest) return {};
  const double x = shortest / r - 1;
  return {0.5 * kRepulsion * x * x, -kRepulsion * x * shortest / (r * r)};
}

}  // namespace mace
}  // namespace nearsight
