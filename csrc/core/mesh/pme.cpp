#include "core/mesh/pme.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/engine/error.hpp"
#include "core/neighbors/cell.hpp"

namespace nearsight {
namespace {

constexpr double kSafety = 0.5;   // estimates are statistical
constexpr double kVacuum = 1.25;  // room for a slab to grow
constexpr double kFinestDouble = 1e-13;
constexpr double kOutgrown = 0.1;  // change of a lattice vector that calls for other parameters

void check_rtol(double rtol, bool single) {
  const double finest = single ? kFinestSingleMesh : kFinestDouble;
  if (rtol >= finest && rtol <= 0.1) return;
  std::ostringstream message;
  message << "rtol is " << rtol << ", but " << finest << " to 0.1 are expected for a mesh in "
          << (single ? "single precision: correct it, or take double" : "double precision: correct it");
  throw Error(ErrorKind::argument, message.str());
}

bool is_open(const std::array<bool, 3>& pbc) {
  return !pbc[0] && !pbc[1] && !pbc[2];
}

}  // namespace

Pme::Pme(const Charges& charges, const Cell& cell, const PmeOptions& options, ThreadPool& threads)
    : options_(options), num_charges_(charges.size()), cell_(cell) {
  check_rtol(options.rtol, options.single);
  if (is_open(cell.pbc)) return;
  Box box = make_box(charges, cell, 1.0, slab_tolerance());
  if (box.slab) {
    height_ = kVacuum * box.height;
    box = make_box(charges, cell, 1.0, slab_tolerance(), height_);
  }
  double squares = 0;
  for (const double q : charges.values) squares += q * q;
  if (squares == 0) return;  // nothing to be accurate about
  const double unit = kCoulomb * squares / static_cast<double>(charges.size());
  force_scale_ = measure_forces(charges, cell, box, unit, threads);
  set_up(charges, box, kSafety * options.rtol * force_scale_, threads);
}

void Pme::set_up(const Charges& charges, const Box& box, double force_error, ThreadPool& threads) {
  parameters_ = choose_parameters(charges, box, force_error, options_.wishes, threads);
  double_mesh_.reset();
  float_mesh_.reset();
  if (options_.single)
    float_mesh_ = std::make_unique<Mesh<float>>(parameters_.mesh, parameters_.order, parameters_.splitting);
  else
    double_mesh_ = std::make_unique<Mesh<double>>(parameters_.mesh, parameters_.order, parameters_.splitting);
}

/// The root mean square force, from sums just accurate enough to tell.
double Pme::measure_forces(const Charges& charges, const Cell& cell, const Box& box, double unit,
                           ThreadPool& threads) {
  Coulomb result;
  for (const double rough : {1e-2, 1e-3, 1e-4}) {
    set_up(charges, box, rough * unit, threads);
    evaluate(charges, cell, threads, result);
    double squares = 0;
    for (std::size_t k = 0; k < result.fields.size(); ++k)
      squares += std::pow(charges.values[k / 3] * result.fields[k], 2);
    const double found = std::sqrt(squares / static_cast<double>(charges.size()));
    if (found > 10.0 * rough * unit) return found;
  }
  return unit;
}

Box Pme::box(const Charges& charges, const Cell& cell) const {
  if (cell.pbc != cell_.pbc)
    throw Error(ErrorKind::argument,
                "the periodic directions are not those that the mesh was set up for: set it up again");
  return make_box(charges, cell, 1.0, slab_tolerance(), height_);
}

bool Pme::fits(const Charges& charges, const Cell& cell) const {
  if (charges.size() != num_charges_ || cell.pbc != cell_.pbc) return false;
  for (int a = 0; a < 3; ++a) {
    const Vec3 before = row(cell_.vectors, a);
    if (cell.pbc[a] && norm(row(cell.vectors, a) - before) > kOutgrown * norm(before)) return false;
  }
  const bool silent = !is_open(cell.pbc) && !double_mesh_ && !float_mesh_;
  return !silent ||
         std::all_of(charges.values.begin(), charges.values.end(), [](double q) { return q == 0; });
}

void Pme::evaluate(const Charges& charges, const Cell& cell, ThreadPool& threads, Coulomb& result) {
  if (is_open(cell_.pbc) && is_open(cell.pbc)) return direct_sum(charges, result);
  const Box box = this->box(charges, cell);
  result.clear(charges.size());
  if (!double_mesh_ && !float_mesh_) {
    for (const double q : charges.values)
      if (q != 0)
        throw Error(ErrorKind::argument,
                    "the mesh was set up without charges, but there are some now: set it up again");
    return;
  }
  add_short_range(charges, box, parameters_.splitting, parameters_.cutoff, threads, result);
  if (options_.single)
    float_mesh_->add(charges, box, threads, result);
  else
    double_mesh_->add(charges, box, threads, result);
  add_corrections(charges, box, parameters_.splitting, parameters_.cutoff, result);
  result.finish(charges);
}

}  // namespace nearsight
