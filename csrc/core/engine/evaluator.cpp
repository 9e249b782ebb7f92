#include "core/engine/evaluator.hpp"

#include <algorithm>
#include <cmath>

#include "core/couple/polarization.hpp"
#include "core/engine/error.hpp"

namespace nearsight {

Evaluator::Evaluator(std::shared_ptr<const Model> model, const EvaluatorOptions& options, Host host)
    : model_(std::move(model)),
      couple_(make_couple(model_->file().couple, model_->file().species,
                          {options.double_precision, options.device, options.device_index})),
      dispersion_(model_->adds_dispersion()
                      ? make_dispersion(*model_->dispersion(), options.double_precision, host.ranks,
                                        options.device, options.device_index)
                      : nullptr),
      host_(std::move(host)),
      exchanges_(host_.exchange && model_->potential().exchange_width() > 0),
      threads_(std::max(1, options.num_threads)),
      verlet_(model_->file().cutoff, options.skin) {
  const Exchange* const exchange = exchanges_ ? &host_.exchange : nullptr;
  if (options.device == Device::cuda)
    device_ = make_cuda_worker(model_->file(),
                               {options.double_precision, options.device_index, options.skin, exchange});
  else
    cpu_ = std::make_unique<CpuRows>(model_->potential(), couple_->columns(), options.double_precision,
                                     exchange, threads_);
}

Evaluator::~Evaluator() = default;

void Evaluator::check(const Domain& domain) const {
  const int num_species = static_cast<int>(model_->file().species.size());
  for (std::size_t i = 0; i < domain.species.size(); ++i)
    if (domain.species[i] < -1 || domain.species[i] >= num_species)
      throw Error(ErrorKind::argument, "atom " + std::to_string(i) + " (counted from 0) has species number " +
                                           std::to_string(domain.species[i]) + ", expected -1 to " +
                                           std::to_string(num_species - 1) + " of this model");
  // One sum finds any value that is not finite.
  double sum = 0.0;
  for (const double x : domain.positions) sum += x * 0.0;
  if (sum != 0.0 || std::isnan(sum))
    throw Error(ErrorKind::numeric,
                "a position is not a finite number: the simulation has become unstable, or the "
                "input is damaged; check the time step and the starting geometry");
}

void Evaluator::clear_open_rows(Cell& cell) {
  for (int a = 0; a < 3; ++a)
    if (!cell.pbc[a]) std::fill_n(cell.vectors.begin() + 3 * a, 3, 0.0);
}

void Evaluator::evaluate(Span<const double> positions, Span<const int> species, Cell cell,
                         const Outside& outside, Results& results) {
  evaluate_system(positions, nullptr, species, cell, outside, results);
}

void Evaluator::evaluate(const DeviceArrays& arrays, Span<const int> species, const Cell& cell,
                         const Outside& outside, Results& results) {
  if (!device_)
    throw Error(ErrorKind::argument,
                "a system in the memory of a GPU was given, but this evaluator was made for device cpu: make "
                "it for device cuda, or give a system in the host's memory");
  const bool is_seen = couple_->channels() > 0 || dispersion_;  // by what takes positions from the host
  host_positions_.resize(is_seen ? 3 * species.size() : 0);
  host_forces_.assign(arrays.forces ? host_positions_.size() : 0, 0.0);
  if (is_seen) device_->read_positions(arrays, host_positions_);
  results.forces = host_forces_.empty() ? Span<double>() : host_forces_;
  evaluate_system(host_positions_, &arrays, species, cell, outside, results);
  if (results.forces) device_->add_forces(results.forces, arrays);
}

void Evaluator::evaluate_system(Span<const double> positions, const DeviceArrays* arrays,
                                Span<const int> species, Cell cell, const Outside& outside,
                                Results& results) {
  clear_open_rows(cell);
  if (!std::equal(species.begin(), species.end(), last_species_.begin(), last_species_.end())) {
    last_species_.assign(species.begin(), species.end());
    last_memory_.assign(species.size() * couple_->memory(), 0.0);
  }
  const Domain domain{species.size(), positions, species, cell, outside, last_memory_, arrays};
  check(domain);
  owned_.clear();
  for (std::size_t i = 0; i < species.size(); ++i)
    if (species[i] >= 0) owned_.push_back(static_cast<int>(i));
  run(domain, owned_, results, [&]() -> RowEngine& {
    if (device_) {
      if (arrays)
        device_->load(*arrays, species, cell, owned_, results.extrapolations);
      else
        device_->load(positions, species, cell, owned_, {}, results.extrapolations);
      return *device_;
    }
    const NeighborList& list = verlet_.update(positions, cell, threads_);
    const double cutoff = model_->file().cutoff;
    const auto append = [=, &domain, &list](EdgeBuffer& edges, int i) {
      edges.append(domain, cutoff, i, list, cell);
    };
    cpu_->load(domain, owned_, {}, append, results.extrapolations);
    return *cpu_;
  });
}

void Evaluator::evaluate(const Domain& domain, const HostList& list, Results& results) {
  check(domain);
  owned_.clear();
  ghosts_.clear();
  for (const int i : list.centers) {
    if (domain.species[i] < 0) continue;
    if (static_cast<std::size_t>(i) < domain.num_owned)
      owned_.push_back(i);
    else if (model_->file().num_interactions > 1 && !exchanges_)
      ghosts_.push_back(i);
  }
  run(domain, owned_, results, [&]() -> RowEngine& {
    if (device_) {
      device_->load(domain.positions, domain.species, {}, owned_, ghosts_, results.extrapolations);
      return *device_;
    }
    const double cutoff = model_->file().cutoff;
    const auto append = [=, &domain, &list](EdgeBuffer& edges, int i) {
      edges.append(domain, cutoff, i, list);
    };
    cpu_->load(domain, owned_, ghosts_, append, results.extrapolations);
    return *cpu_;
  });
}

void Evaluator::check(const Results& wanted) const {
  if ((wanted.virials || wanted.centroid_virials) && !model_->has_atom_virials())
    throw Error(
        ErrorKind::unsupported,
        "virials of atoms are not defined for the electrostatics of this model, of which the mesh knows "
        "only the sum: ask for the total virial");
  if (wanted.centroid_virials && !model_->has_centroid_virials())
    throw Error(
        ErrorKind::unsupported,
        "virials in centroid form (heat flux) need a model with one interaction layer whose energy is "
        "a sum over atoms without dispersion, and this model is none: use virials with half of each edge to "
        "each end");
  if ((wanted.charges || wanted.potentials) && couple_->channels() == 0)
    throw Error(ErrorKind::unsupported,
                "'" + model_->file().path + "' has no charges: ask for them of a model with long_range");
  if (wanted.born_charges && couple_->channels() > 0 && !couple_->has_born_charges())
    throw Error(
        ErrorKind::unsupported,
        "Born effective charges of equilibrated charges, which depend on all atoms, are not computed: "
        "take forces in a field");
  if (wanted.born_charges && (couple_->channels() == 0 || model_->file().num_interactions > 1))
    throw Error(ErrorKind::unsupported,
                "Born effective charges need a model with charges and one interaction "
                "layer, and '" +
                    model_->file().path + "' is none: take forces in a field");
  if (wanted.born_charges && host_.ranks.size > 1)
    throw Error(ErrorKind::unsupported,
                "Born effective charges are computed in one process: ask for them with one rank");
  if ((wanted.member_energies || wanted.member_forces || wanted.member_virials ||
       wanted.member_atom_virials) &&
      model_->num_members() < 2)
    throw Error(ErrorKind::unsupported, "'" + model_->file().path +
                                            "' is no committee, so there are no results of its members: "
                                            "merge several models with `nearsight committee`");
  if (wanted.extrapolations.counts && model_->potential().features().empty())
    throw Error(ErrorKind::unsupported,
                "'" + model_->file().path + "' with backend " + model_->backend() +
                    " knows no ranges of its features in the training set, so extrapolations cannot be "
                    "found: take backend native and a model that was trained with them");
}

void Evaluator::check(const Outside& outside, const Results& wanted) const {
  const bool has_field = norm(outside.field) > 0.0;
  if (couple_->channels() == 0 && (outside.total_charge || outside.has_molecules() || has_field))
    throw Error(ErrorKind::argument, std::string(outside.total_charge      ? "a total charge"
                                                 : outside.has_molecules() ? "the charge of a molecule"
                                                                           : "an electric field") +
                                         " was given, but '" + model_->file().path +
                                         "' has no electrostatics: leave it out");
  if (!outside.has_molecules()) return;
  if (outside.total_charge)
    throw Error(ErrorKind::argument,
                "a total charge and charges of molecules were both given: leave one of them out, since the "
                "molecules add up to the total");
  if (wanted.born_charges)
    throw Error(ErrorKind::unsupported,
                "Born effective charges are not computed where molecules have charges of their own: take "
                "forces in a field, or give a total charge instead");
}

/// `load` gives the structure to the engine that it returns.
void Evaluator::run(const Domain& domain, Span<const int> owned, Results& results,
                    const std::function<RowEngine&()>& load) {
  check(results);
  check(domain.outside, results);
  const std::size_t columns = couple_->columns(), rows = owned.size(), members = model_->num_members();
  readouts_.resize(rows * columns);
  cotangents_.resize(rows * columns);
  energies_.resize(rows);
  if (couple_->channels() > 0 || dispersion_) gather_owned(domain, owned);
  RowEngine& engine = load();

  EdgeSums sums{results.forces, results.virials, results.centroid_virials, {results.virial, 6}};
  if (domain.arrays) {
    sums.forces = {};
    sums.device_forces = domain.arrays->forces;
  }
  if (couple_->is_local() || couple_->is_additive()) {
    // Cotangents do not wait for the readouts. Those of a member are 1 in its own column.
    constants_.assign((members + 1) * columns, 0.0);
    std::fill_n(constants_.begin(), columns, 1.0 / members);
    std::vector<Pull> pulls{{{constants_.data(), columns}, sums}};
    if (results.member_forces || results.member_virials || results.member_atom_virials)
      for (std::size_t m = 0; m < members; ++m) {
        constants_[(m + 1) * columns + m] = 1.0;
        pulls.push_back({{constants_.data() + (m + 1) * columns, columns}, member_sums(results, m)});
      }
    engine.evaluate(pulls, readouts_);
    join(domain, owned, results);
  } else {
    engine.forward(readouts_);
    join(domain, owned, results);
    std::vector<Pull> pulls{{cotangents_, sums}};
    if (results.born_charges) pulls.push_back({charge_cotangents_, charge_flows(domain)});
    engine.reverse(pulls);
  }
  if (results.born_charges) add_born_charges(domain, owned, results);
  add_energies(domain, owned, results);
  if (dispersion_) add_dispersion(domain, owned, results);
}

EdgeSums Evaluator::member_sums(const Results& results, std::size_t member) {
  const auto of_member = [&](const Span<double>& all) {
    const std::size_t width = all.size() / model_->num_members();
    return width ? all.subspan(member * width, width) : Span<double>();
  };
  return {
      of_member(results.member_forces),
      of_member(results.member_atom_virials),
      {},
      results.member_virials ? results.member_virials.subspan(6 * member, 6) : Span<double>(unwanted_, 6)};
}

/// How the charges of centers move with their neighbors; see MovingCharges.
EdgeSums Evaluator::charge_flows(const Domain& domain) {
  const std::size_t atoms = domain.species.size();
  charge_flows_.assign(12 * atoms, 0.0);
  return {
      {charge_flows_.data() + 9 * atoms, 3 * atoms}, {}, {charge_flows_.data(), 9 * atoms}, {unwanted_, 6}};
}

void Evaluator::add_born_charges(const Domain& domain, Span<const int> owned, Results& results) {
  const std::size_t atoms = domain.species.size();
  if (couple_->is_additive()) charge_flows_.assign(12 * atoms, 0.0);  // fixed charges flow nowhere
  const Span<double> flows(charge_flows_.data(), 9 * atoms), gradients(flows.end(), 3 * atoms);
  nearsight::add_born_charges({owned, domain.positions, charges_, shares_, flows, gradients}, domain.cell,
                              results.born_charges);
}

/// Readouts -> energies and cotangents.
void Evaluator::join(const Domain& domain, Span<const int> owned, Results& results) {
  if (couple_->channels() > 0) return join_charges(domain, owned, results);
  Joined joined;
  joined.cotangents = cotangents_;
  joined.energies = energies_;
  couple_->evaluate({readouts_, {}, {}, {}, {}, {}}, host_.ranks, threads_, joined);
}

/// The couple of all rows, which adds forces and a virial of its own.
void Evaluator::join_charges(const Domain& domain, Span<const int> owned, Results& results) {
  const std::size_t rows = owned.size(), channels = couple_->channels(), width = couple_->memory();
  memory_.assign(width * rows, 0.0);
  for (std::size_t row = 0; row < rows && domain.memory; ++row)
    std::copy_n(domain.memory.data() + width * owned[row], width, memory_.data() + width * row);
  direct_.assign(3 * rows, 0.0);
  charges_.resize(rows * channels);
  potentials_.resize(rows * channels);
  Joined joined;
  joined.cotangents = cotangents_;
  joined.energies = energies_;
  joined.forces = direct_;
  joined.virial = Span<double>(results.virial, 6);
  joined.charges = charges_;
  joined.potentials = potentials_;
  if (results.born_charges) {
    charge_cotangents_.resize(cotangents_.size());
    shares_.resize(rows);
    joined.charge_cotangents = charge_cotangents_;
    joined.shares = shares_;
  }
  Outside outside = domain.outside;
  outside.molecules = molecules_;
  couple_->evaluate({readouts_, positions_, species_, domain.cell, outside, memory_}, host_.ranks, threads_,
                    joined);
  results.electrostatic += joined.electrostatic;
  results.steps = joined.steps;
  results.times = joined.times;
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t i = owned[row];
    if (results.forces)
      for (int a = 0; a < 3; ++a) results.forces[3 * i + a] += direct_[3 * row + a];
    if (domain.memory) std::copy_n(memory_.data() + width * row, width, domain.memory.data() + width * i);
    for (std::size_t c = 0; c < channels; ++c) {
      if (results.charges) results.charges[i * channels + c] += charges_[row * channels + c];
      if (results.potentials) results.potentials[i * channels + c] += potentials_[row * channels + c];
    }
  }
}

void Evaluator::add_energies(const Domain& domain, Span<const int> owned, Results& results) const {
  const std::size_t members = results.member_energies.size();
  double energy = 0.0;
  for (std::size_t row = 0; row < owned.size(); ++row) {
    const double reference = model_->file().reference_energies[domain.species[owned[row]]];
    const double share = energies_[row] + reference;
    energy += share;
    if (results.energies) results.energies[owned[row]] += share;
    for (std::size_t m = 0; m < members; ++m)
      results.member_energies[m] += readouts_[row * members + m] + reference;
  }
  results.energy += energy;
  if (!std::isfinite(energy))
    throw Error(ErrorKind::numeric,
                "the energy is not a finite number: the structure is far outside what the model "
                "was trained on, or the simulation has become unstable");
}

void Evaluator::gather_owned(const Domain& domain, Span<const int> owned) {
  positions_.resize(3 * owned.size());
  species_.resize(owned.size());
  for (std::size_t row = 0; row < owned.size(); ++row) {
    std::copy_n(domain.positions.data() + 3 * owned[row], 3, positions_.data() + 3 * row);
    species_[row] = domain.species[owned[row]];
  }
  molecules_.clear();
  if (!domain.outside.has_molecules()) return;
  const int num_molecules = static_cast<int>(domain.outside.molecule_charges.size());
  for (const int i : owned) {
    molecules_.push_back(domain.outside.molecules[i]);
    if (molecules_.back() < 0 || molecules_.back() >= num_molecules)
      throw Error(ErrorKind::argument, "atom " + std::to_string(i) +
                                           " (counted from 0) has molecule number " +
                                           std::to_string(molecules_.back()) + ", expected 0 to " +
                                           std::to_string(num_molecules - 1) + " of the " +
                                           std::to_string(num_molecules) + " molecules with charges");
  }
}

/// Members of a committee all get the same.
void Evaluator::add_dispersion(const Domain& domain, Span<const int> owned, Results& results) {
  const std::size_t rows = owned.size();
  direct_.assign(3 * rows, 0.0);
  energies_.assign(rows, 0.0);
  virials_.assign(6 * rows, 0.0);
  Dispersed found;
  found.forces = direct_;
  found.energies = energies_;
  found.virials = virials_;
  dispersion_->evaluate(positions_, species_, domain.cell, threads_, found);
  results.energy += found.energy;
  results.dispersion += found.energy;
  for (int a = 0; a < 6; ++a) results.virial[a] += found.virial[a];
  for (std::size_t m = 0; m < results.member_energies.size(); ++m) results.member_energies[m] += found.energy;
  for (std::size_t k = 0; k < results.member_virials.size(); ++k)
    results.member_virials[k] += found.virial[k % 6];
  const std::size_t width = 3 * domain.species.size();
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t i = owned[row];
    if (results.energies) results.energies[i] += energies_[row];
    for (int a = 0; a < 6 && results.virials; ++a) results.virials[6 * i + a] += virials_[6 * row + a];
    for (int a = 0; a < 3; ++a) {
      if (results.forces) results.forces[3 * i + a] += direct_[3 * row + a];
      for (std::size_t m = 0; m * width < results.member_forces.size(); ++m)
        results.member_forces[m * width + 3 * i + a] += direct_[3 * row + a];
    }
  }
}

}  // namespace nearsight
