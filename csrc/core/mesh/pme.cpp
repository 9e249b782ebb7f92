#include "core/mesh/pme.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>

#include "core/engine/error.hpp"
#include "core/neighbors/cell.hpp"

namespace nearsight {
namespace {

constexpr double kSafety = 0.5;   // estimates are statistical
constexpr double kCrystal = 0.2;  // where forces vanish: errors of the energy of a crystal add up
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

Pme::Pme(const Charges& charges, const Cell& cell, const PmeOptions& options, ThreadPool& threads,
         const Communicator& communicator)
    : options_(options), ranks_(communicator), cell_(cell) {
  check_rtol(options.rtol, options.single);
  check_cell(cell);
  const ChargeSize size = measure(charges, ranks_);
  num_charges_ = size.num_charges;
  if (is_open(cell.pbc)) {
    if (on_device()) work_ = make_cuda_direct_sum(options_.device_index);
    return;
  }
  Box box = make_box(charges, cell, 1.0, slab_tolerance(), 0.0, ranks_);
  if (box.slab) {
    height_ = kVacuum * box.height;
    box = make_box(charges, cell, 1.0, slab_tolerance(), height_, ranks_);
  }
  if (size.squares == 0) return;  // nothing to be accurate about
  const double unit = kCoulomb * size.squares / size.num_charges;
  const double found = measure_forces(charges, size, cell, box, unit, threads);
  force_scale_ = found > 0 ? found : unit;
  const double error = (found > 0 ? kSafety : kCrystal) * options.rtol * force_scale_;
  set_up(charges, size, box, error, options.single, threads);
  times_ = {};
}

void Pme::set_up(const Charges& charges, const ChargeSize& size, const Box& box, double force_error,
                 bool single, ThreadPool& threads) {
  parameters_ = choose_parameters(charges, size, box, force_error, options_.wishes, single, threads, ranks_);
  const Pencils pencils(parameters_.mesh, ranks_.size(), options_.pencils);
  work_.reset();  // its memory
  if (on_device())
    work_ = make_cuda_pme(parameters_, pencils, ranks_.rank(), single, options_.device_index);
  else if (single)
    work_ = std::make_unique<PmeParts<float>>(parameters_, pencils, ranks_.rank());
  else
    work_ = std::make_unique<PmeParts<double>>(parameters_, pencils, ranks_.rank());
}

/// The root mean square force, from sums just accurate enough to tell; 0 if it is nothing against the unit.
double Pme::measure_forces(const Charges& charges, const ChargeSize& size, const Cell& cell, const Box& box,
                           double unit, ThreadPool& threads) {
  Coulomb result;
  for (const double rough : {1e-2, 1e-3, 1e-4}) {
    set_up(charges, size, box, rough * unit, false, threads);
    evaluate(charges, cell, threads, result);
    double squares = 0;
    for (std::size_t k = 0; k < result.fields.size(); ++k)
      squares += std::pow(charges.values[k / 3] * result.fields[k], 2);
    ranks_.sum({&squares, 1});
    const double found = std::sqrt(squares / size.num_charges);
    if (found > 10.0 * rough * unit) return found;
  }
  return 0.0;
}

/// All ranks see that a rank has another cell: one that fails alone leaves the others waiting.
void Pme::check_cell(const Cell& cell) {
  std::array<double, 12> own{};
  for (int d = 0; d < 3; ++d) {
    own[9 + d] = cell.pbc[d];
    for (int c = 0; c < 3 && cell.pbc[d]; ++c) own[3 * d + c] = cell.vectors[3 * d + c];
  }
  const std::vector<double> all = ranks_.gather({own.data(), own.size()});
  for (int r = 1; r < ranks_.size(); ++r)
    if (!std::equal(all.begin(), all.begin() + own.size(), all.begin() + r * own.size()))
      throw Error(ErrorKind::argument, "rank " + std::to_string(r) +
                                           " has another cell or other periodic directions than rank 0: give "
                                           "the whole cell of the system on all ranks");
  if (cell.pbc != cell_.pbc)
    throw Error(ErrorKind::argument,
                "the periodic directions are not those that the mesh was set up for: set it up again");
}

/// Throws if there is something to sum up without a mesh.
void Pme::check_silence(const Charges& charges) {
  if (measure(charges, ranks_).squares > 0)
    throw Error(ErrorKind::argument,
                "the mesh was set up without charges, but there are some now: set it up again");
}

Box Pme::box(const Charges& charges, const Cell& cell) {
  check_cell(cell);
  return make_box(charges, cell, 1.0, slab_tolerance(), height_, ranks_);
}

bool Pme::fits(const Charges& charges, const Cell& cell) {
  const ChargeSize size = measure(charges, ranks_);
  if (size.num_charges != num_charges_ || cell.pbc != cell_.pbc) return false;
  for (int a = 0; a < 3; ++a) {
    const Vec3 before = row(cell_.vectors, a);
    if (cell.pbc[a] && norm(row(cell.vectors, a) - before) > kOutgrown * norm(before)) return false;
  }
  return is_open(cell.pbc) || !is_silent() || size.squares == 0;
}

void Pme::evaluate(const Charges& charges, const Cell& cell, bool fields, ThreadPool& threads,
                   Coulomb& result) {
  const double start = seconds_now(), exchanged = ranks_.seconds();
  check_cell(cell);
  if (is_open(cell_.pbc))
    add_open(charges, fields, threads, result);
  else
    add_lattice(charges, make_box(charges, cell, 1.0, slab_tolerance(), height_, ranks_), fields, threads,
                result);
  times_.total += seconds_now() - start;
  times_.communication += ranks_.seconds() - exchanged;
}

void Pme::add_open(const Charges& charges, bool fields, ThreadPool& threads, Coulomb& result) {
  if (!work_) return direct_sum(surroundings_.all(charges, ranks_), charges.size(), fields, result);
  check_charges(charges);
  check_positions(charges.positions, complete(Cell{}, 1.0));
  result.clear(charges.size());
  work_->add(charges, Box{}, fields, threads, ranks_, times_, result);
  result.finish(charges);
}

void Pme::add_lattice(const Charges& charges, const Box& box, bool fields, ThreadPool& threads,
                      Coulomb& result) {
  result.clear(charges.size());
  if (is_silent()) return check_silence(charges);
  work_->add(charges, box, fields, threads, ranks_, times_, result);
  add_corrections(charges, box, parameters_.splitting, parameters_.cutoff, ranks_, result);
  result.finish(charges);
}

template <class T>
void PmeParts<T>::add(const Charges& charges, const Box& box, bool fields, ThreadPool& threads, Ranks& ranks,
                      PmeTimes& times, Coulomb& result) {
  const auto busy = [&] { return seconds_now() - ranks.seconds(); };  // without exchanges
  const double start = busy(), transformed = mesh_.seconds();
  const std::vector<Region> regions = find_regions(charges.positions, box, ranks);
  pairs_.add(charges, box, regions, fields, threads, ranks, result);
  const double middle = busy();
  mesh_.add(charges, box, regions, fields, threads, ranks, result);
  const double transforms = mesh_.seconds() - transformed;
  times.pairs += middle - start;
  times.charges += busy() - middle - transforms;
  times.transforms += transforms;
  times.lists = pairs_.num_lists();
}

template class PmeParts<float>;
template class PmeParts<double>;

}  // namespace nearsight
