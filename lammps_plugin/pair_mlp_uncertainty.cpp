// What a committee disagrees about, and which features leave their training ranges: docs/uncertainty.md.
//
// SPDX-License-Identifier: GPL-2.0-only

#include <atom.h>
#include <comm.h>
#include <error.h>
#include <update.h>

#include <algorithm>
#include <cmath>

#include "pair_mlp.h"

using namespace LAMMPS_NS;

namespace {

// Extra values of the pair style, as compute pair numbers them less 1.
enum { MAX_F, MIN_F, AVG_F, MAX_V, MIN_V, AVG_V, STD_E, EXTRAPOLATIONS, NUM_EXTRA };

// Deviation over members of component k of rows [members][width], as a variance.
double variance(const double* rows, std::size_t members, std::size_t width, std::size_t k) {
  double mean = 0, sum = 0;
  for (std::size_t m = 0; m < members; ++m) mean += rows[m * width + k];
  mean /= static_cast<double>(members);
  for (std::size_t m = 0; m < members; ++m) sum += std::pow(rows[m * width + k] - mean, 2);
  return sum / static_cast<double>(members);
}

}  // namespace

// ---- before a run ----

void PairMLP::offer_extra_values() {
  const bool wanted = deviation_.every > 0 || extrapolation_.is_on();
  extra_.assign(NUM_EXTRA, 0.0);
  nextra = wanted ? NUM_EXTRA : 0;
  pvector = extra_.data();
}

void PairMLP::init_uncertainty() {
  if (deviation_.every > 0 || deviation_.wanted) require_committee();
  if (!extrapolation_.is_on()) return;
  Extrapolation& e = extrapolation_;
  e.features.resize(ns_model_num_features(model_.get()));
  if (e.features.empty()) {
    error->all(FLERR,
               "pair_style mlp: extrapolation needs the ranges of the features in the training set, and {} "
               "with backend {} has none; take backend native and a model that was trained with them",
               model_path_, ns_model_backend(model_.get()));
  }
  for (std::size_t k = 0; k < e.features.size(); ++k) {
    e.features[k].struct_size = sizeof(ns_feature);
    ns_model_feature(model_.get(), static_cast<int>(k), &e.features[k]);
  }
  e.of_run = 0;
  begin_extrapolations();
}

void PairMLP::require_committee() {
  if (ns_model_num_members(model_.get()) > 1) return;
  error->all(FLERR,
             "pair_style mlp: deviation needs a committee, and {} is a single model; merge several with "
             "'nearsight committee'",
             model_path_);
}

// ---- committees ----

bool PairMLP::wants_members() const {
  return deviation_.wanted || (deviation_.every > 0 && update->ntimestep % deviation_.every == 0);
}

void PairMLP::open_members(ns_results& results, std::size_t num_atoms) {
  require_committee();
  const std::size_t members = ns_model_num_members(model_.get());
  deviation_.energies.assign(members, 0.0);
  deviation_.forces.assign(members * 3 * std::max<std::size_t>(1, num_atoms), 0.0);
  deviation_.virials.assign(6 * members, 0.0);
  results.member_energies = deviation_.energies.data();
  results.member_forces = deviation_.forces.data();
  results.member_virials = deviation_.virials.data();
}

// Deviations over all ranks, as DeePMD-kit defines them: population standard deviations; virials per atom and
// over nine components.
void PairMLP::close_members(std::size_t num_atoms) {
  Deviation& d = deviation_;
  const std::size_t members = d.energies.size(), width = 3 * num_atoms;
  for (std::size_t m = 0; m < members; ++m) {  // what other ranks' atoms contribute
    add_ghosts({reinterpret_cast<char*>(d.forces.data() + m * width), 3, true});
  }
  const double force_unit = energy_unit_ / length_unit_;
  double extremes[2] = {0.0, -HUGE_VAL};  // of forces: largest, minus smallest
  std::vector<double> sums = {0.0, 0.0};  // atoms, their deviations
  d.of_atoms.assign(std::max(1, atom->nlocal), 0.0);
  for (int i = 0; i < atom->nlocal; ++i) {
    if (species_[i] < 0) continue;
    double square = 0;
    for (int a = 0; a < 3; ++a) square += variance(d.forces.data(), members, width, 3 * i + a);
    const double value = d.of_atoms[i] = std::sqrt(square) / force_unit;
    extremes[0] = std::max(extremes[0], value);
    extremes[1] = std::max(extremes[1], -value);
    sums[0] += 1;
    sums[1] += value;
  }
  sums.insert(sums.end(), d.energies.begin(), d.energies.end());
  sums.insert(sums.end(), d.virials.begin(), d.virials.end());
  MPI_Allreduce(MPI_IN_PLACE, extremes, 2, MPI_DOUBLE, MPI_MAX, world);
  MPI_Allreduce(MPI_IN_PLACE, sums.data(), static_cast<int>(sums.size()), MPI_DOUBLE, MPI_SUM, world);
  if (comm->me == 0 && sums[0] > 0) {  // compute pair adds up the ranks
    const double* const virials = sums.data() + 2 + members;
    double largest = 0, smallest = HUGE_VAL, squares = 0;
    for (int k = 0; k < 6; ++k) {
      const double square = variance(virials, members, 6, k) / std::pow(sums[0] * energy_unit_, 2);
      largest = std::max(largest, square);
      smallest = std::min(smallest, square);
      squares += (k < 3 ? 1 : 2) * square;
    }
    extra_[MAX_F] = extremes[0];
    extra_[MIN_F] = -extremes[1];
    extra_[AVG_F] = sums[1] / sums[0];
    extra_[MAX_V] = std::sqrt(largest);
    extra_[MIN_V] = std::sqrt(smallest);
    extra_[AVG_V] = std::sqrt(squares / 9);
    extra_[STD_E] = std::sqrt(variance(sums.data() + 2, members, 1, 0)) / energy_unit_;
    write_deviation();
  }
}

// A line in the columns of DeePMD-kit's model_devi.out, once for each step of `deviation`.
void PairMLP::write_deviation() {
  Deviation& d = deviation_;
  const bigint step = update->ntimestep;
  if (d.path.empty() || step == d.last_row || step % d.every != 0) return;
  if (!d.file) {
    d.file.reset(std::fopen(d.path.c_str(), d.append ? "a" : "w"));
    if (!d.file) stop(fmt::format("cannot write {}: {}", d.path, utils::getsyserror()));
    if (std::ftell(d.file.get()) == 0) {
      fmt::print(d.file.get(), "#{:>11}{:>19}{:>19}{:>19}{:>19}{:>19}{:>19}\n", "step", "max_devi_v",
                 "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f");
    }
  }
  fmt::print(d.file.get(), "{:>12}{:19.6e}{:19.6e}{:19.6e}{:19.6e}{:19.6e}{:19.6e}\n", step, extra_[MAX_V],
             extra_[MIN_V], extra_[AVG_V], extra_[MAX_F], extra_[MIN_F], extra_[AVG_F]);
  std::fflush(d.file.get());
  d.last_row = step;
}

// ---- extrapolation ----

void PairMLP::begin_extrapolations() {
  Extrapolation& e = extrapolation_;
  e.counts.assign(e.features.size(), 0);
  e.lowest.clear();
  e.highest.clear();
  for (const ns_feature& feature : e.features) {
    e.lowest.push_back(feature.minimum);
    e.highest.push_back(feature.maximum);
  }
  e.sum = 0;
  e.first_step = -1;
}

void PairMLP::open_extrapolations(ns_results& results) {
  results.extrapolations = extrapolation_.counts.data();
  results.lowest_features = extrapolation_.lowest.data();
  results.highest_features = extrapolation_.highest.data();
}

void PairMLP::close_extrapolations() {
  Extrapolation& e = extrapolation_;
  const bigint step = update->ntimestep;
  if (e.first_step < 0) e.first_step = step;
  bigint sum = 0;
  for (const long long count : e.counts) sum += count;
  bigint new_ones = sum - e.sum;
  e.sum = sum;
  extra_[EXTRAPOLATIONS] = static_cast<double>(new_ones);  // compute pair adds up the ranks
  if (e.stop_above >= 0) {
    MPI_Allreduce(MPI_IN_PLACE, &new_ones, 1, MPI_LMP_BIGINT, MPI_SUM, world);
    e.of_run += new_ones;
    if (e.of_run > e.stop_above) {
      error->all(
          FLERR,
          "pair_style mlp: {} extrapolations in this run at step {}, and 'extrapolation stop' allows {}; "
          "{}",
          e.of_run, step, e.stop_above, summarize_extrapolations());
    }
  }
  if (e.warn_every > 0 && step % e.warn_every == 0) {
    const std::string text = summarize_extrapolations();
    if (comm->me == 0 && !text.empty())
      utils::logmesg(lmp, "pair_style mlp: {} (steps {} to {})\n", text, e.first_step, step);
    begin_extrapolations();
  }
}

// How many features of all ranks left their ranges, and the one that went farthest; "" if none did.
std::string PairMLP::summarize_extrapolations() {
  Extrapolation& e = extrapolation_;
  const int count = static_cast<int>(e.features.size());
  MPI_Allreduce(MPI_IN_PLACE, e.counts.data(), count, MPI_LONG_LONG, MPI_SUM, world);
  MPI_Allreduce(MPI_IN_PLACE, e.lowest.data(), count, MPI_DOUBLE, MPI_MIN, world);
  MPI_Allreduce(MPI_IN_PLACE, e.highest.data(), count, MPI_DOUBLE, MPI_MAX, world);
  bigint sum = 0;
  int outside = 0, worst = 0;
  double farthest = -1;
  for (int k = 0; k < count; ++k) {
    if (e.counts[k] == 0) continue;
    const ns_feature& f = e.features[k];
    sum += e.counts[k];
    ++outside;
    const double beyond =
        std::max(f.minimum - e.lowest[k], e.highest[k] - f.maximum) / (f.maximum - f.minimum);
    if (beyond <= farthest) continue;
    farthest = beyond;
    worst = k;
  }
  if (outside == 0) return "";
  const ns_feature& f = e.features[worst];
  const bool below = f.minimum - e.lowest[worst] > e.highest[worst] - f.maximum;
  return fmt::format(
      "{} extrapolations, {} of {} features outside of their training ranges, the farthest '{}' of {}: {:g}, "
      "range {:g} to {:g}",
      sum, outside, count, f.label, ns_model_species(model_.get(), f.species),
      below ? e.lowest[worst] : e.highest[worst], f.minimum, f.maximum);
}
