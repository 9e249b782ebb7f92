#include "core/mesh/coulomb.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>

#include "core/engine/error.hpp"
#include "core/mesh/pair_kernel.hpp"
#include "core/neighbors/cell.hpp"

namespace nearsight {
namespace {

constexpr double kMinDistance = 1e-3;  // Å, as for edges

bool is_good(double value, double width) {
  return std::isfinite(value) && width >= 0 && std::isfinite(width);
}

[[noreturn]] void refuse_charge(const Charges& charges, std::size_t i) {
  std::ostringstream message;
  if (!std::isfinite(charges.values[i]))
    message << "charge " << i << " is " << charges.values[i] << " e, but charges must be finite: correct it";
  else
    message << "the width of charge " << i << " is " << charges.width(i)
            << " Å, but widths must be finite and not negative: correct it, or give 0 for a point";
  throw Error(ErrorKind::argument, message.str());
}

}  // namespace

double Charges::max_width() const {
  return widths.empty() ? 0.0 : *std::max_element(widths.begin(), widths.end());
}

Charges Charges::first(std::size_t count) const {
  return {positions.subspan(0, 3 * count), values.subspan(0, count),
          widths.empty() ? widths : widths.subspan(0, count)};
}

void Coulomb::clear(std::size_t n) {
  energy = 0;
  virial.fill(0);
  potentials.assign(n, 0.0);
  fields.assign(3 * n, 0.0);
}

void Coulomb::add_virial(double scale, const std::array<double, 3>& v) {
  virial[0] += scale * v[0] * v[0];
  virial[1] += scale * v[1] * v[1];
  virial[2] += scale * v[2] * v[2];
  virial[3] += scale * v[0] * v[1];
  virial[4] += scale * v[0] * v[2];
  virial[5] += scale * v[1] * v[2];
}

void Coulomb::finish(const Charges& charges) {
  for (double& v : virial) v *= kCoulomb;
  for (double& v : potentials) v *= kCoulomb;
  for (double& v : fields) v *= kCoulomb;
  energy = 0;
  for (std::size_t i = 0; i < charges.size(); ++i) energy += 0.5 * charges.values[i] * potentials[i];
}

PmeTimes PmeTimes::operator-(const PmeTimes& before) const {
  return {total - before.total,     communication - before.communication, pairs - before.pairs,
          charges - before.charges, transforms - before.transforms,       lists - before.lists};
}

void check_charges(const Charges& charges) {
  const std::size_t n = charges.size();
  if (charges.positions.size() != 3 * n || (!charges.widths.empty() && charges.widths.size() != n))
    throw Error(ErrorKind::argument,
                "there are " + std::to_string(n) + " charges, but " +
                    std::to_string(charges.positions.size() / 3) + " positions and " +
                    std::to_string(charges.widths.size()) +
                    " widths: give one position for each charge, and no widths or as many");
  for (std::size_t i = 0; i < n; ++i)
    if (!is_good(charges.values[i], charges.width(i))) refuse_charge(charges, i);
}

void check_distance(double r, std::size_t i, std::size_t j, std::size_t own) {
  if (r >= kMinDistance) return;
  std::ostringstream message;
  message << "charges " << i << " and " << (j < own ? std::to_string(j) : "one of another rank") << " are "
          << r << " Å apart, but they must be at least " << kMinDistance
          << " Å apart: correct the positions or the cell";
  throw Error(ErrorKind::numeric, message.str());
}

void direct_sum(const Charges& charges, std::size_t own, bool fields, Coulomb& result) {
  check_charges(charges);
  check_positions(charges.positions, complete(Cell{}, 1.0));
  result.clear(own);
  for (std::size_t j = 0; j < charges.size(); ++j)
    for (std::size_t i = 0; i < std::min(j, own); ++i) {
      const Vec3 r = point(charges.positions, j) - point(charges.positions, i);
      const double distance = norm(r), qi = charges.values[i], qj = charges.values[j];
      check_distance(distance, i, j, own);
      const double wi = charges.width(i), wj = charges.width(j);
      const PairTerm term = bare(wi * wi + wj * wj, distance);
      result.potentials[i] += qj * term.value;
      if (j < own) result.potentials[j] += qi * term.value;
      if (!fields) continue;
      for (int c = 0; c < 3; ++c) result.fields[3 * i + c] += qj * term.slope * r[c];
      result.add_virial((j < own ? -1.0 : -0.5) * qi * qj * term.slope, r);  // the other half is with j
      if (j >= own) continue;
      for (int c = 0; c < 3; ++c) result.fields[3 * j + c] -= qi * term.slope * r[c];
    }
  result.finish(charges.first(own));
}

}  // namespace nearsight
