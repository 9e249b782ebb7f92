// Batches: rows of many systems at once, each with a neighbor list of its own.
#include <algorithm>
#include <atomic>

#include "core/engine/error.hpp"
#include "core/engine/evaluator.hpp"

namespace nearsight {
namespace {

/// to[systems][width], `stride` numbers apart, += sums over the atoms of each system.
void add_by_system(const Batch& batch, Span<const double> of_atoms, std::size_t width, Span<double> to,
                   std::size_t stride) {
  for (std::size_t s = 0; s < batch.size() && to; ++s)
    for (std::size_t i = batch.first_atoms[s]; i < batch.first_atoms[s + 1]; ++i)
      for (std::size_t k = 0; k < width; ++k) to[s * stride + k] += of_atoms[i * width + k];
}

}  // namespace

void Evaluator::evaluate(const Batch& given, const BatchResults& results) {
  if (!model_->has_batches())
    throw Error(ErrorKind::unsupported, "'" + model_->file().path +
                                            "' cannot be evaluated for several systems at once, since its "
                                            "energy is more than a sum over atoms: evaluate them one by one");
  cells_.assign(given.cells.begin(), given.cells.end());
  for (Cell& cell : cells_) clear_open_rows(cell);
  const Batch batch{given.positions, given.species, given.first_atoms, cells_};
  const std::size_t atoms = batch.species.size(), members = model_->num_members();
  const Domain domain{atoms, batch.positions, batch.species, {}, {}, {}, nullptr};
  check(domain);
  owned_.clear();
  systems_.resize(atoms);
  for (std::size_t s = 0; s < batch.size(); ++s)
    std::fill(systems_.begin() + batch.first_atoms[s], systems_.begin() + batch.first_atoms[s + 1], s);
  for (std::size_t i = 0; i < atoms; ++i)
    if (batch.species[i] >= 0) owned_.push_back(static_cast<int>(i));
  Results sums;
  sums.forces = results.forces;
  sums.energies = results.atom_energies;
  sums.virials = results.atom_virials;
  sums.member_forces = results.member_forces;
  if (results.member_virials) {
    member_atom_virials_.assign(members * 6 * atoms, 0.0);
    sums.member_atom_virials = member_atom_virials_;
  }
  run(domain, owned_, sums, [&]() -> RowEngine& { return load(domain, batch, sums.extrapolations); });

  add_by_system(batch, results.atom_energies, 1, results.energies, 1);
  add_by_system(batch, results.atom_virials, 6, results.virials, 6);
  for (std::size_t m = 0; m < members && results.member_virials; ++m)
    add_by_system(batch, {member_atom_virials_.data() + m * 6 * atoms, 6 * atoms}, 6,
                  {results.member_virials.data() + 6 * m, results.member_virials.size() - 6 * m},
                  6 * members);
  for (std::size_t row = 0; row < owned_.size() && results.member_energies; ++row)
    for (std::size_t m = 0; m < members; ++m)
      results.member_energies[systems_[owned_[row]] * members + m] +=
          readouts_[row * members + m] + model_->file().reference_energies[batch.species[owned_[row]]];
}

RowEngine& Evaluator::load(const Domain& domain, const Batch& batch, const Extrapolations& found) {
  if (device_) {
    device_->load(batch, owned_, found);
    return *device_;
  }
  find_lists(batch);
  const double cutoff = model_->file().cutoff;
  cpu_->load(
      domain, owned_, {},
      [=, &domain](EdgeBuffer& edges, int i) {
        const int s = systems_[i];
        edges.append(domain, cutoff, i, lists_[s], batch.cells[s], static_cast<int>(batch.first_atoms[s]));
      },
      found);
  return *cpu_;
}

/// Threads take systems as they come, since these differ in size.
void Evaluator::find_lists(const Batch& batch) {
  lists_.resize(std::max(lists_.size(), batch.size()));
  std::atomic<std::size_t> next{0};
  threads_.run([&](int) {
    ThreadPool alone;
    for (std::size_t s = next++; s < batch.size(); s = next++)
      build_cell_list(batch.positions_of(s), batch.cells[s], model_->file().cutoff, alone, lists_[s]);
  });
}

}  // namespace nearsight
